// SPDX-License-Identifier: Apache-2.0
//
// Everything that a hostile application can send to a node: packets of any bytes, ioctls of any
// struct, in any order.
//
// An input is a list of packets, each {op, size low, size high, bytes}. Op bits 0-3 choose a
// command (15: the bytes are the whole packet, header and all); bits 4-5 say how many descriptors
// come along; bit 6 drains the loop's timers; bit 7 hangs up. Because nobody guesses a 64-bit
// handle, a handle or address below 16 in a well-formed struct stands for the n-th live one. After
// each input nothing may be left of the session. The same packets are sent to the control node, whose
// commands are others.
#include "support/plain_host.hpp"

#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include <sys/mman.h>
#include <unistd.h>

namespace accelmm::test {
namespace {

constexpr std::array<std::uint32_t, 16> compute_commands{
    ACCELMM_IOCTL_INFO,      ACCELMM_IOCTL_ALLOC,      ACCELMM_IOCTL_FREE,
    ACCELMM_IOCTL_MAP_CPU,   ACCELMM_IOCTL_MAP_DEVICE, ACCELMM_IOCTL_UNMAP_DEVICE,
    ACCELMM_IOCTL_EXPORT,    ACCELMM_IOCTL_IMPORT,     ACCELMM_IOCTL_WAIT,
    ACCELMM_IOCTL_EVENTS,    ACCELMM_IOCTL_WATCH,      PLAIN_IOCTL_JOB,
    PLAIN_IOCTL_LATER,       ACCELMM_IOCTL_BACKING,    ACCELMM_IOCTL_SHORTAGE,
    ACCELMM_IOCTL_MAP_MEMORY};
constexpr std::array<std::uint32_t, 8> control_commands{
    ACCELMM_IOCTL_INFO,   ACCELMM_IOCTL_DEFRAGMENT, ACCELMM_IOCTL_SHORTAGE, ACCELMM_IOCTL_WAIT,
    ACCELMM_IOCTL_EVENTS, ACCELMM_IOCTL_WATCH,      ACCELMM_IOCTL_ALLOC,    PLAIN_IOCTL_JOB};

// Counts what the target is worth: calls that only bounce off the checks of a packet prove little.
struct Tally {
  std::uint64_t packets = 0;
  std::uint64_t handled = 0;
  ~Tally() {
    std::fprintf(stderr, "messages_fuzz: %llu of %llu packets reached a handler\n",
                 static_cast<unsigned long long>(handled),
                 static_cast<unsigned long long>(packets));
    // A target whose inputs never get anywhere would stay green for ever.
    if (packets >= 10'000 && handled * 10 < packets) std::abort();
  }
};

struct Live {
  std::vector<std::uint64_t> handles;
  std::vector<std::uint64_t> addresses;
};

DeviceDescription small_quota() {
  DeviceDescription description = plain_description();
  description.session_quota = {.bytes = 8_MiB, .buffers = 32, .mappings = 32, .waits = 8};
  return description;
}

PlainHost& shared_host() {
  static PlainHost host(small_quota());
  return host;
}

void substitute(std::vector<std::byte>& args, std::size_t offset,
                const std::vector<std::uint64_t>& live) {
  std::uint64_t word = 0;
  if (args.size() < offset + sizeof word || live.empty()) return;
  std::memcpy(&word, args.data() + offset, sizeof word);
  if (word >= 16) return;
  std::memcpy(args.data() + offset, &live[word % live.size()], sizeof word);
}

void make_live(std::uint32_t command, std::vector<std::byte>& args, const Live& live) {
  switch (command) {
    case ACCELMM_IOCTL_FREE:
    case ACCELMM_IOCTL_MAP_CPU:
    case ACCELMM_IOCTL_MAP_DEVICE:
    case ACCELMM_IOCTL_EXPORT:
    case ACCELMM_IOCTL_BACKING:
      return substitute(args, 0, live.handles);
    case ACCELMM_IOCTL_UNMAP_DEVICE:
      return substitute(args, 0, live.addresses);
    default:
      return;
  }
}

void learn(std::uint32_t command, const KeptConnection::Packet& reply, Live& live) {
  std::uint64_t word = 0;
  const auto at = [&](std::size_t offset) {
    if (reply.payload.size() < offset + sizeof word) return false;
    std::memcpy(&word, reply.payload.data() + offset, sizeof word);
    return true;
  };
  if (reply.header.status != 0) return;
  if (command == ACCELMM_IOCTL_ALLOC && at(offsetof(accelmm_alloc, handle)))
    live.handles.push_back(word);
  if (command == ACCELMM_IOCTL_IMPORT && at(offsetof(accelmm_import, handle)))
    live.handles.push_back(word);
  if (command == ACCELMM_IOCTL_MAP_DEVICE && at(offsetof(accelmm_map_device, address)))
    live.addresses.push_back(word);
}

// One descriptor of each kind that an application might send: what we exported, an unsealed file, a
// pipe.
std::vector<UniqueFd> some_fds(unsigned count, const KeptConnection::Log& log) {
  std::vector<UniqueFd> fds;
  if (count >= 1) {
    for (const auto& packet : log.sent)
      if (fds.empty() && !packet.fds.empty())
        if (auto copy = duplicate(packet.fds.front().view())) fds.push_back(std::move(*copy));
    if (fds.empty()) fds.emplace_back(memfd_create("fuzz", MFD_CLOEXEC));
  }
  if (count >= 2) fds.emplace_back(memfd_create("fuzz", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (count >= 3) {
    int ends[2] = {-1, -1};
    if (pipe(ends) == 0) {
      close(ends[1]);
      fds.emplace_back(ends[0]);
    }
  }
  return fds;
}

void require(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "messages_fuzz: %s\n", what);
  std::abort();
}

// Sends the packets of an input to one node. Returns how many there were.
std::uint64_t send_all(PlainHost& host, NodeKind node, std::span<const std::uint8_t> input) {
  const std::span<const std::uint32_t> commands =
      node == NodeKind::compute ? std::span<const std::uint32_t>(compute_commands)
                                : std::span<const std::uint32_t>(control_commands);
  std::uint64_t packets = 0;
  RawClient client(host, node);
  client.say_hello();
  Live live;
  while (input.size() >= 3 && client.log().open) {
    const unsigned op = input[0];
    const std::size_t length = std::min<std::size_t>(input[1] + 256U * input[2], input.size() - 3);
    const auto bytes = std::as_bytes(input.subspan(3, length));
    input = input.subspan(3 + length);
    ++packets;
    auto fds = some_fds((op >> 4) & 3, client.log());
    client.log().sent.clear();
    if ((op & 15) >= commands.size()) {
      client.deliver(bytes, std::move(fds));
    } else {
      const std::uint32_t command = commands[op & 15];
      std::vector<std::byte> args(bytes.begin(), bytes.end());
      make_live(command, args, live);
      // The struct is as long as the input says: shorter, longer, or ours.
      const auto sized = static_cast<std::uint32_t>(_IOC(
          _IOC_DIR(command), _IOC_TYPE(command), _IOC_NR(command), args.size() & _IOC_SIZEMASK));
      client.send(ACCELMM_MESSAGE_IOCTL, sized, args, std::move(fds));
      if (!client.log().sent.empty()) learn(command, client.log().sent.back(), live);
    }
    if ((op & 0x40) != 0) host.driver->end_later();
    if ((op & 0x80) != 0) break;
  }
  return packets;
}

}  // namespace
}  // namespace accelmm::test

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace accelmm;
  using namespace accelmm::test;
  static Tally tally;
  PlainHost& host = shared_host();
  const std::uint64_t handled_before = host.device().counters().ioctls;
  tally.packets += send_all(host, NodeKind::compute, {data, size});
  tally.handled += host.device().counters().ioctls - handled_before;
  static_cast<void>(send_all(host, NodeKind::control, {data, size}));
  require(host.device().host().used() == ByteCount(0), "host memory is left");
  require(host.device().memory()->used() == ByteCount(0), "device memory is left");
  accelmm_info info{};
  info.topic = ACCELMM_INFO_USAGE;
  require(host.device().info(NodeKind::control, nullptr, info).has_value(), "no usage");
  accelmm_info_usage usage{};
  std::memcpy(&usage, info.data, sizeof usage);
  require(usage.page_table_bytes == 0 && usage.mappings == 0 && usage.buffers == 0,
          "page tables, mappings or buffers are left");
  require(usage.compute_sessions == 0, "a session is left");
  require(host.transport.timers() == 0, "a timer is left");
  return 0;
}
