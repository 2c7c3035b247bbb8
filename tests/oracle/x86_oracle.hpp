// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "oracle/address_ranges.hpp"
#include "oracle/oracle.hpp"
#include "oracle/stopped_machine.hpp"

#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <utility>

namespace accelmm::test {

/// x86-64's tables of 4 or 5 levels, as the monitor of qemu-system-x86_64 walks them.
///
/// The bus address is gva2gpa's; the leaf's size comes from "info tlb", and whether it may be
/// written, on all levels, from "info mem". What a CPU would refuse because of reserved bits, none
/// of the three sees.
class X86Oracle final : public Oracle {
 public:
  struct Options {
    unsigned levels = 4;  ///< 4 or 5
    ByteCount memory{std::uint64_t{64} << 20};
  };

  /// Errors  no_entry: not installed.  io_error: QEMU does not run.
  [[nodiscard]] static Result<std::unique_ptr<X86Oracle>> create(const Options& options) {
    if (options.levels != 4 && options.levels != 5)
      return fail(Errc::invalid_argument, "no such x86 tables");
    auto machine = StoppedMachine::start({.program = "qemu-system-x86_64",
                                          .machine = "pc",
                                          .cpu = "max",
                                          .architecture = "i386",
                                          .memory = options.memory});
    if (!machine) return fail(machine.error());
    std::unique_ptr<X86Oracle> oracle(new X86Oracle(options.levels, std::move(*machine)));
    if (auto set = oracle->start_paging(); !set) return fail(set.error());
    return oracle;
  }

  /// What lies below is no memory, in parts, but the video card's and the firmware's.
  [[nodiscard]] std::uint64_t base() const override { return 0x10'0000; }
  [[nodiscard]] std::span<std::byte> memory() override { return machine_.memory().subspan(base()); }
  [[nodiscard]] pid_t pid() const { return machine_.pid(); }
  [[nodiscard]] QemuWire& wire() { return machine_.stub().wire(); }

  [[nodiscard]] Result<std::vector<std::optional<OracleAnswer>>> translate(
      std::uint64_t root, std::span<const std::uint64_t> addresses, Access wanted) override {
    if (auto set = machine_.stub().set_register("cr3", root); !set) return fail(set.error());
    const auto found = machine_.translate(addresses);
    if (!found) return fail(found.error());
    auto leaves = read_leaves();
    if (!leaves) return fail(leaves.error());
    AddressRanges writable;
    if (allows(wanted, Access::write)) {
      if (auto read = read_writable(root, writable); !read) return fail(read.error());
    }
    std::vector<std::optional<OracleAnswer>> answers(addresses.size());
    for (std::size_t at = 0; at < addresses.size(); ++at) {
      const auto& bus = (*found)[at];
      if (!bus || (allows(wanted, Access::write) && !writable.contains(addresses[at]))) continue;
      const auto size = leaf_size(*leaves, addresses[at], *bus);
      if (!size) return fail(size.error());
      answers[at] = OracleAnswer{*bus, *size};
    }
    return answers;
  }

 private:
  // A line of "info tlb": only the two large sizes are told from the small one.
  struct Leaf {
    std::uint64_t bus_address;
    bool large;
    std::uint64_t size;
  };
  using Leaves = std::map<std::uint64_t, Leaf>;

  static constexpr std::uint64_t kib4 = std::uint64_t{1} << 12;
  static constexpr std::uint64_t mib2 = std::uint64_t{1} << 21;
  static constexpr std::uint64_t gib1 = std::uint64_t{1} << 30;
  // "info tlb" does not print the bits from there on.
  static constexpr std::uint64_t printed_bits = (std::uint64_t{1} << 50) - 1;
  static constexpr std::uint64_t cr4_pae = 0x20;
  static constexpr std::uint64_t cr4_la57 = 0x1000;

  X86Oracle(unsigned levels, StoppedMachine machine)
      : levels_(levels), machine_(std::move(machine)) {}

  [[nodiscard]] Result<void> set_levels(unsigned levels) {
    return machine_.stub().set_register("cr4", levels == 5 ? cr4_pae | cr4_la57 : cr4_pae);
  }

  // CR0.PG last: it makes QEMU look at the others.
  [[nodiscard]] Result<void> start_paging() {
    if (auto set = set_levels(levels_); !set) return set;
    constexpr std::uint64_t efer_lme_lma_nxe = 0xd00;
    if (auto set = machine_.stub().set_register("efer", efer_lme_lma_nxe); !set) return set;
    constexpr std::uint64_t cr0_pg_wp_et_pe = 0x8001'0011;
    return machine_.stub().set_register("cr0", cr0_pg_wp_et_pe);
  }

  // Lines "address: bus_address XGPDACTUW", with - for what is not set.
  [[nodiscard]] Result<Leaves> read_leaves() {
    const auto printed = machine_.print("info tlb");
    if (!printed) return fail(printed.error());
    Leaves leaves;
    bool understood = true;
    for_each_line(*printed, [&](std::string_view line) {
      if (line.empty()) return;
      understood = understood && line.size() == 44 && line[16] == ':';
      if (!understood) return;
      const bool large = line[37] == 'P';
      leaves.emplace_hint(leaves.end(), parse_hex(line.substr(0, 16)),
                          Leaf{parse_hex(line.substr(18, 16)), large, large ? 0 : kib4});
    });
    if (!understood) return fail(Errc::io_error, "this QEMU's info tlb prints something else");
    if (auto sized = size_large_leaves(leaves); !sized) return fail(sized.error());
    return leaves;
  }

  // 1 GiB or 2 MiB: 1 GiB needs both addresses to be multiples of it, no other leaf inside, and to
  // be there still 2 MiB further on.
  [[nodiscard]] Result<void> size_large_leaves(Leaves& leaves) {
    std::vector<std::uint64_t> probes;
    std::vector<Leaf*> probed;
    for (auto at = leaves.begin(); at != leaves.end(); ++at) {
      auto& [address, leaf] = *at;
      if (!leaf.large) continue;
      leaf.size = mib2;
      const auto next = std::next(at);
      const bool alone = next == leaves.end() || next->first - address >= gib1;
      if (address % gib1 != 0 || leaf.bus_address % gib1 != 0 || !alone) continue;
      probes.push_back(address + mib2);
      probed.push_back(&leaf);
    }
    const auto found = machine_.translate(probes);
    if (!found) return fail(found.error());
    for (std::size_t at = 0; at < probes.size(); ++at)
      if ((*found)[at]) probed[at]->size = gib1;
    return {};
  }

  [[nodiscard]] static Result<std::uint64_t> leaf_size(const Leaves& leaves, std::uint64_t address,
                                                       std::uint64_t bus_address) {
    const auto after = leaves.upper_bound(address);
    if (after != leaves.begin()) {
      const auto& [start, leaf] = *std::prev(after);
      const std::uint64_t offset = address - start;
      if (offset < leaf.size && leaf.bus_address + offset == (bus_address & printed_bits))
        return leaf.size;
    }
    return fail(Errc::io_error, "gva2gpa and info tlb of QEMU disagree");
  }

  // QEMU 7.2 prints nothing useful with 5 levels, so each table of the fourth is asked for alone.
  [[nodiscard]] Result<void> read_writable(std::uint64_t root, AddressRanges& writable) {
    if (levels_ == 4) return read_writable_below(0, writable);
    if (auto set = set_levels(4); !set) return set;
    for (std::uint64_t index = 0; index < 512; ++index) {
      constexpr std::uint64_t present_and_writable = 3;
      constexpr std::uint64_t address_bits = 0xF'FFFF'FFFF'F000;
      if (root < base() || root - base() > memory().size() - kib4) break;
      const std::uint64_t entry = load_word(memory(), root - base() + 8 * index);
      if ((entry & present_and_writable) != present_and_writable) continue;
      if (auto set = machine_.stub().set_register("cr3", entry & address_bits); !set) return set;
      if (auto read = read_writable_below(index, writable); !read) return read;
    }
    if (auto set = machine_.stub().set_register("cr3", root); !set) return set;
    return set_levels(5);
  }

  // Lines "start-end length urw", about 2^48 bytes: with 5 levels, those of one entry of the root.
  [[nodiscard]] Result<void> read_writable_below(std::uint64_t index, AddressRanges& writable) {
    constexpr std::uint64_t half = std::uint64_t{1} << 47;
    constexpr std::uint64_t whole = 2 * half;
    const auto printed = machine_.print("info mem");
    if (!printed) return fail(printed.error());
    for_each_line(*printed, [&](std::string_view line) {
      if (line.size() != 54 || line[53] != 'w') return;
      const std::uint64_t start = parse_hex(line.substr(0, 16)) % whole;
      const std::uint64_t end = start + (parse_hex(line.substr(34, 16)) - 1) % whole + 1;
      for (const std::uint64_t part : {std::uint64_t{0}, half}) {
        const std::uint64_t first = std::max(start, part);
        const std::uint64_t last = std::min(end, part + half);
        if (first < last) writable.add(canonical(first + index * whole), last - first);
      }
    });
    return {};
  }

  // The highest bit of an address is repeated to the left.
  [[nodiscard]] std::uint64_t canonical(std::uint64_t address) const {
    const unsigned unused = levels_ == 5 ? 7 : 16;
    return static_cast<std::uint64_t>(static_cast<std::int64_t>(address << unused) >> unused);
  }

  unsigned levels_;
  StoppedMachine machine_;
};

}  // namespace accelmm::test
