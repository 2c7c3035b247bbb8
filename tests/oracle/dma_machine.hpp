// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "oracle/address_ranges.hpp"
#include "oracle/gdb_stub.hpp"
#include "oracle/guest_memory.hpp"
#include "oracle/qemu_process.hpp"
#include "oracle/qemu_wire.hpp"

#include <accelmm/error.hpp>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <sys/socket.h>
#include <unistd.h>

namespace accelmm::test {

enum class DmaDirection : std::uint8_t { read, write };

/// A machine of QEMU with an emulated IOMMU and 32 devices behind it, which all DMA at once.
///
/// The CPU sleeps; registers are written over the qtest protocol, and each device ("edu") makes one
/// DMA at a time when told to. What the IOMMU makes of the address is in QEMU's log: its own trace
/// events and, where the bus address is no memory or may not be written, the complaint of the bus.
/// Devices cannot write the guest's memory: it is ROM to the machine.
class DmaMachine {
 public:
  static constexpr std::size_t devices = 32;  // the start takes the square of it
  static constexpr unsigned first_slot = 2;   // the first that amd-iommu leaves free
  /// All memory below is for the IOMMU's own tables; the machine's ROMs and video are there too.
  static constexpr std::uint64_t tables_base = 0x20'0000;

  struct Options {
    std::string iommu;                ///< the -device, with its properties
    std::vector<std::string> traces;  ///< the events that name a device and what became of it
    ByteCount memory;
  };

  struct Dma {
    std::uint64_t address;
    unsigned length = 1;  ///< 1 or, at an odd address, 2: then the bus is asked for each byte
  };

  /// One thing that the log says of a DMA.
  struct Event {
    /// The trace event, in full; empty where the bus complains.
    std::string trace;
    /// Where the bus found neither memory nor a device, or no right to write; if it says so.
    std::optional<std::uint64_t> unbacked;
  };
  using Events = std::vector<Event>;

  /// Errors  no_entry: QEMU is not installed.  io_error: it does not run.
  [[nodiscard]] static Result<DmaMachine> start(const Options& options);

  /// The guest's memory from bus address 0.
  [[nodiscard]] std::span<std::byte> memory() const { return memory_.bytes(); }
  [[nodiscard]] pid_t pid() const { return process_.pid(); }
  [[nodiscard]] QemuWire& wire() { return wire_; }

  /// Writes a register of 8 bytes, before the next DMA.
  void write_register(std::uint64_t address, std::uint64_t value) {
    before_ += "writeq " + to_hex(address) + " " + to_hex(value) + "\n";
  }
  /// The same with one of 4 bytes.
  void write_short_register(std::uint64_t address, std::uint32_t value) {
    before_ += "writel " + to_hex(address) + " " + to_hex(value) + "\n";
  }

  /// Makes at most `devices` DMAs, all of one length, the n-th by the n-th device, and tells what
  /// the log says of each.
  /// Errors  io_error: QEMU does not answer, or its log does not mention a DMA.
  [[nodiscard]] Result<std::vector<Events>> run(std::span<const Dma> dmas, DmaDirection direction);

 private:
  // The registers of "edu", and where its buffer of 4096 bytes begins to it.
  static constexpr std::uint64_t edu_source = 0x80;
  static constexpr std::uint64_t edu_destination = 0x88;
  static constexpr std::uint64_t edu_count = 0x90;
  static constexpr std::uint64_t edu_command = 0x98;
  static constexpr std::uint64_t edu_buffer = 0x4'0000;

  DmaMachine(GuestMemory memory, QemuProcess process, QemuWire wire)
      : memory_(std::move(memory)), process_(std::move(process)), wire_(std::move(wire)) {}

  static std::uint64_t registers(std::size_t device) {
    constexpr std::uint64_t window = 0xC000'0000;
    constexpr std::uint64_t each = 0x10'0000;
    return window + device * each;
  }
  // What the process inherits.
  struct Files {
    const GuestMemory& memory;
    const GuestMemory& firmware;
    int socket;
    int log;
  };
  [[nodiscard]] static std::vector<std::string> arguments(const Options& options,
                                                          const Files& files);

  void configure_devices();
  void choose(DmaDirection direction, unsigned length);
  [[nodiscard]] Result<std::string> send();
  [[nodiscard]] Result<void> wait_for(std::size_t device);
  [[nodiscard]] static Result<std::vector<Events>> understand(std::string_view log,
                                                              std::size_t count);
  [[nodiscard]] static std::optional<std::size_t> device_of(std::string_view line);

  GuestMemory memory_;
  QemuProcess process_;
  QemuWire wire_;
  std::string before_;  // commands that wait to be sent
  std::optional<std::pair<DmaDirection, unsigned>> chosen_;
};

inline std::vector<std::string> DmaMachine::arguments(const Options& options, const Files& files) {
  const std::string size = files.memory.megabytes();
  // Nothing in the machine ticks, so that QEMU sleeps between DMAs; virtual time jumps to them.
  std::vector<std::string> all{"-nodefaults",
                               "-display",
                               "none",
                               "-accel",
                               "tcg",
                               "-icount",
                               "shift=0,sleep=off",
                               "-machine",
                               "q35,memory-backend=ram,kernel-irqchip=off,pit=off,hpet=off,smm=off",
                               "-m",
                               size,
                               "-object",
                               "memory-backend-file,id=ram,share=on,readonly=on,size=" + size +
                                   ",mem-path=" + files.memory.path(),
                               "-bios",
                               files.firmware.path(),
                               "-chardev",
                               "socket,id=test,fd=" + std::to_string(files.socket),
                               "-object",
                               "qtest,id=qtest,chardev=test,log=/dev/null",
                               "-d",
                               "guest_errors",
                               "-D",
                               "/proc/self/fd/" + std::to_string(files.log),
                               "-device",
                               options.iommu};
  for (const std::string& event : options.traces) all.insert(all.end(), {"-trace", event});
  for (std::size_t device = 0; device < devices; ++device) {
    const std::size_t function = device % 8;
    const std::string slot = to_hex(first_slot + device / 8).substr(2);
    all.insert(all.end(), {"-device", "edu,dma_mask=0xffffffffffffffff,addr=" + slot + "." +
                                          std::to_string(function) +
                                          (function == 0 ? ",multifunction=on" : "")});
  }
  return all;
}

inline Result<DmaMachine> DmaMachine::start(const Options& options) {
  const auto program = find_program("qemu-system-x86_64");
  if (!program) return fail(Errc::no_entry, "qemu-system-x86_64 is not installed");
  auto memory = GuestMemory::create(options.memory);
  if (!memory) return fail(memory.error());
  const auto firmware = GuestMemory::create(ByteCount(64 << 10));
  if (!firmware) return fail(firmware.error());
  constexpr std::byte hlt{0xF4};
  std::ranges::fill(firmware->bytes(), hlt);
  std::array<int, 2> ends{};
  std::array<int, 2> pipe{};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0)
    return fail_errno(errno, "socketpair");
  UniqueFd ours(ends[0]);
  UniqueFd theirs(ends[1]);
  if (::pipe2(pipe.data(), O_CLOEXEC) != 0) return fail_errno(errno, "pipe");
  UniqueFd log(pipe[0]);
  UniqueFd log_end(pipe[1]);
  const std::array<int, 4> inherited{memory->fd(), firmware->fd(), theirs.get(), log_end.get()};
  const Files files{*memory, *firmware, theirs.get(), log_end.get()};
  auto process = QemuProcess::start(*program, arguments(options, files), inherited);
  if (!process) return fail(process.error());
  theirs.reset();
  log_end.reset();
  DmaMachine machine(std::move(*memory), std::move(*process),
                     QemuWire(std::move(ours), std::move(log)));
  machine.configure_devices();
  if (auto sent = machine.send(); !sent) {
    std::fprintf(stderr, "%s\n", machine.process_.last_words().c_str());
    return fail(sent.error());
  }
  return machine;
}

// Over the ports of PCI's configuration: where a device's registers are, and that it may DMA.
inline void DmaMachine::configure_devices() {
  constexpr std::uint32_t base_address = 0x10;
  constexpr std::uint32_t command = 0x04;
  constexpr std::uint32_t memory_and_master = 6;
  for (std::uint32_t device = 0; device < devices; ++device) {
    const std::uint32_t place = 0x8000'0000U | (first_slot * 8 + device) << 8;
    const auto set = [&](std::uint32_t where, std::uint64_t value) {
      before_ += "outl 0xcf8 " + to_hex(place | where) + "\noutl 0xcfc " + to_hex(value) + "\n";
    };
    set(base_address, registers(device));
    set(command, memory_and_master);
  }
}

// What does not change from DMA to DMA is set once.
inline void DmaMachine::choose(DmaDirection direction, unsigned length) {
  if (chosen_ == std::pair(direction, length)) return;
  chosen_ = std::pair(direction, length);
  const bool read = direction == DmaDirection::read;
  for (std::size_t device = 0; device < devices; ++device) {
    write_register(registers(device) + (read ? edu_destination : edu_source), edu_buffer);
    write_register(registers(device) + edu_count, length);
  }
}

// Sends what waits; each line is answered by one, of which the last comes back.
inline Result<std::string> DmaMachine::send() {
  const auto lines = static_cast<std::size_t>(std::ranges::count(before_, '\n'));
  std::size_t answered = 0;
  std::string last;
  bool refused = false;
  const auto sent = wire_.exchange(std::exchange(before_, {}), [&](std::string& received) {
    const std::size_t end = received.rfind('\n');
    if (end != std::string::npos) {
      for_each_line(std::string_view(received).substr(0, end), [&](std::string_view line) {
        ++answered;
        refused |= !line.starts_with("OK");
        last = line;
      });
      received.erase(0, end + 1);
    }
    return answered >= lines;
  });
  if (!sent) return fail(sent.error());
  if (refused) return fail(Errc::io_error, "QEMU refused a command of its qtest protocol");
  return last;
}

// A device's command loses its lowest bit when the DMA is done.
inline Result<void> DmaMachine::wait_for(std::size_t device) {
  const auto end = std::chrono::steady_clock::now() + wire_.patience();
  while (std::chrono::steady_clock::now() < end) {
    before_ += "readq " + to_hex(registers(device) + edu_command) + "\n";
    const auto answer = send();
    if (!answer) return fail(answer.error());
    if (parse_hex(std::string_view(*answer).substr(std::min<std::size_t>(3, answer->size()))) % 2 ==
        0)
      return {};
  }
  return fail(Errc::io_error, "QEMU does not finish a DMA");
}

inline Result<std::vector<DmaMachine::Events>> DmaMachine::run(std::span<const Dma> dmas,
                                                               DmaDirection direction) {
  if (dmas.empty()) return std::vector<Events>();
  static_cast<void>(wire_.take_logged());
  choose(direction, dmas.front().length);
  const bool read = direction == DmaDirection::read;
  for (std::size_t device = 0; device < dmas.size(); ++device) {
    write_register(registers(device) + (read ? edu_source : edu_destination), dmas[device].address);
    write_register(registers(device) + edu_command, read ? 1 : 3);
  }
  if (auto sent = send(); !sent) return fail(sent.error());
  // The timers of the devices run out in the order in which they were started.
  if (auto done = wait_for(dmas.size() - 1); !done) return fail(done.error());
  return understand(wire_.take_logged(), dmas.size());
}

// Trace events name the device: "dev 00:02.03", "devid: 00:02.3" or "sid 0x13".
inline std::optional<std::size_t> DmaMachine::device_of(std::string_view line) {
  std::uint64_t function = 0;
  const std::size_t source = line.find(" sid 0x");
  const std::size_t dot = line.find('.');
  if (source != std::string_view::npos)
    function = parse_hex(line.substr(source + 5));
  else if (dot != std::string_view::npos && dot >= 2)
    function = parse_hex(line.substr(dot - 2, 2)) * 8 + parse_hex(line.substr(dot + 1));
  if (function < first_slot * 8) return std::nullopt;
  return function - first_slot * 8;
}

inline Result<std::vector<DmaMachine::Events>> DmaMachine::understand(std::string_view log,
                                                                      std::size_t count) {
  std::vector<Events> of(count);
  std::optional<std::size_t> device;
  for_each_line(log, [&](std::string_view line) {
    if (!line.starts_with("Invalid ")) {
      device = device_of(line);
      if (device && *device < count) of[*device].push_back({std::string(line), std::nullopt});
      return;
    }
    // Of more than one byte are only the IOMMU's own reads, of tables where there is no memory. A
    // region with a name counts its addresses from 0, as the memory does that begins there.
    const std::size_t address = line.find(" addr 0x");
    const bool ours = line.find("size 1,") != std::string_view::npos;
    const bool plain = line.find("'(null)'") != std::string_view::npos ||
                       line.find("'ram'") != std::string_view::npos;
    if (!ours || !plain || address == std::string_view::npos || !device || *device >= count) return;
    of[*device].push_back({{}, parse_hex(line.substr(address + 6))});
  });
  if (!std::ranges::all_of(of, [](const Events& events) {
        return !events.empty() && !events.front().trace.empty();
      }))
    return fail(Errc::io_error, "QEMU's log does not mention a DMA");
  return of;
}

}  // namespace accelmm::test
