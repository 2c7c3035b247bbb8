// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "oracle/address_ranges.hpp"
#include "oracle/oracle.hpp"
#include "oracle/stopped_machine.hpp"

#include <cstdint>
#include <memory>
#include <utility>

namespace accelmm::test {

/// As whom a RISC-V CPU accesses memory.
enum class RiscvPrivilege : std::uint8_t {
  user,        ///< pages without U fault: what an IOMMU does for a device
  supervisor,  ///< with SUM: U does not matter
};

/// Sv39, Sv48 or Sv57 with Svnapot, as the CPU of qemu-system-riscv64 walks them.
///
/// Cannot tell leaf sizes. Sets A in entries that it uses. Tells that writing is allowed by what
/// the monitor prints of a leaf's W.
class RiscvOracle final : public Oracle {
 public:
  struct Options {
    unsigned levels = 3;  ///< 3, 4 or 5
    RiscvPrivilege privilege = RiscvPrivilege::user;
    ByteCount memory{std::uint64_t{64} << 20};
  };

  /// Errors  no_entry: not installed.  io_error: QEMU does not run.
  [[nodiscard]] static Result<std::unique_ptr<RiscvOracle>> create(const Options& options) {
    if (options.levels < 3 || options.levels > 5)
      return fail(Errc::invalid_argument, "no such RISC-V tables");
    auto machine = StoppedMachine::start({.program = "qemu-system-riscv64",
                                          .machine = "virt,firmware=none",
                                          .cpu = "rv64,svnapot=on,pmp=off",
                                          .architecture = "riscv",
                                          .memory = options.memory});
    if (!machine) return fail(machine.error());
    std::unique_ptr<RiscvOracle> oracle(new RiscvOracle(options.levels, std::move(*machine)));
    const bool user = options.privilege == RiscvPrivilege::user;
    GdbStub& stub = oracle->machine_.stub();
    if (auto set = stub.set_register("sstatus", user ? 0 : supervisor_uses_user_pages); !set)
      return fail(set.error());
    if (auto set = stub.set_register("priv", user ? 0 : 1); !set) return fail(set.error());
    return oracle;
  }

  [[nodiscard]] std::span<std::byte> memory() override { return machine_.memory(); }
  [[nodiscard]] std::uint64_t base() const override { return 0x8000'0000; }
  [[nodiscard]] pid_t pid() const { return machine_.pid(); }

  [[nodiscard]] Result<std::vector<std::optional<OracleAnswer>>> translate(
      std::uint64_t root, std::span<const std::uint64_t> addresses, Access wanted) override {
    const std::uint64_t mode = levels_ + 5;
    if (auto set = machine_.stub().set_register("satp", mode << 60 | root >> 12); !set)
      return fail(set.error());
    const auto found = machine_.translate(addresses);
    if (!found) return fail(found.error());
    const auto writable = writable_ranges(wanted);
    if (!writable) return fail(writable.error());
    std::vector<std::optional<OracleAnswer>> answers;
    answers.reserve(addresses.size());
    for (std::size_t at = 0; at < addresses.size(); ++at) {
      const bool allowed = !allows(wanted, Access::write) || writable->contains(addresses[at]);
      if ((*found)[at] && allowed)
        answers.emplace_back(OracleAnswer{*(*found)[at], 0});
      else
        answers.emplace_back();
    }
    return answers;
  }

 private:
  static constexpr std::uint64_t supervisor_uses_user_pages = std::uint64_t{1} << 18;

  RiscvOracle(unsigned levels, StoppedMachine machine)
      : levels_(levels), machine_(std::move(machine)) {}

  // "info mem" prints lines "address bus_address size rwxugad"; its bus addresses are of no use.
  [[nodiscard]] Result<AddressRanges> writable_ranges(Access wanted) {
    AddressRanges ranges;
    if (!allows(wanted, Access::write)) return ranges;
    const auto printed = machine_.print("info mem");
    if (!printed) return fail(printed.error());
    for_each_line(*printed, [&](std::string_view line) {
      if (line.size() < 53 || line.starts_with("vaddr") || line[52] != 'w') return;
      ranges.add(parse_hex(line), parse_hex(line.substr(34)));
    });
    return ranges;
  }

  unsigned levels_;
  StoppedMachine machine_;
};

}  // namespace accelmm::test
