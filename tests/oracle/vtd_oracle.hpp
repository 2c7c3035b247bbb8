// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "oracle/dma_machine.hpp"
#include "oracle/oracle.hpp"

#include <accelmm/access.hpp>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <utility>

namespace accelmm::test {

/// VT-d's second-stage tables of 3 or 4 levels, as the intel-iommu of QEMU walks them for a DMA.
///
/// Bus addresses have 48 bits; QEMU 7.2 knows no 5 levels. Bus addresses from 0xC0000000 to 4 GiB
/// belong to the machine's devices: tables should not lead there, for DMAs do what they say.
/// Source  Intel Virtualization Technology for Directed I/O, chapters 3, 9 and 11 (revision 3)
class VtdOracle final : public Oracle {
 public:
  struct Options {
    unsigned levels = 4;  ///< 3 or 4
    ByteCount memory{std::uint64_t{64} << 20};
  };

  /// Errors  no_entry: not installed.  io_error: QEMU does not run.  not_supported: 5 levels.
  [[nodiscard]] static Result<std::unique_ptr<VtdOracle>> create(const Options& options) {
    if (options.levels == 5) return fail(Errc::not_supported, "QEMU's VT-d has at most 4 levels");
    if (options.levels != 3 && options.levels != 4)
      return fail(Errc::invalid_argument, "no such VT-d tables");
    auto machine = DmaMachine::start({.iommu = "intel-iommu,aw-bits=48",
                                      .traces = {"vtd_dmar_translate", "vtd_dmar_fault"},

                                      .memory = options.memory});
    if (!machine) return fail(machine.error());
    std::unique_ptr<VtdOracle> oracle(new VtdOracle(options.levels, std::move(*machine)));
    oracle->enable();
    return oracle;
  }

  [[nodiscard]] std::uint64_t base() const override { return DmaMachine::tables_base; }
  [[nodiscard]] std::span<std::byte> memory() override { return machine_.memory().subspan(base()); }
  [[nodiscard]] pid_t pid() const { return machine_.pid(); }
  [[nodiscard]] QemuWire& wire() { return machine_.wire(); }

  /// Errors  invalid_argument besides: an address at which DMA is an interrupt, on any PC.
  [[nodiscard]] Result<std::vector<std::optional<OracleAnswer>>> translate(
      std::uint64_t root, std::span<const std::uint64_t> addresses, Access wanted) override {
    if (std::ranges::any_of(addresses, [](std::uint64_t at) { return at >> 20 == 0xFEE; }))
      return fail(Errc::invalid_argument, "DMA to this address is an interrupt");
    show(root);
    std::vector<std::optional<OracleAnswer>> answers;
    bool first = true;
    for (const auto direction : {DmaDirection::read, DmaDirection::write}) {
      if (!allows(wanted, direction == DmaDirection::read ? Access::read : Access::write)) continue;
      auto found = translate(addresses, direction);
      if (!found) return found;
      if (first) answers = *found;
      first = false;
      for (std::size_t at = 0; at < addresses.size(); ++at)
        if (answers[at] != (*found)[at]) answers[at].reset();
    }
    return answers;
  }

 private:
  static constexpr std::uint64_t registers = 0xFED9'0000;
  static constexpr std::uint64_t root_table = 0x1000;
  static constexpr std::uint64_t context_table = 0x2000;
  static constexpr std::uint64_t present = 1;

  VtdOracle(unsigned levels, DmaMachine machine) : levels_(levels), machine_(std::move(machine)) {}

  void enable() {
    store_word(machine_.memory(), root_table, context_table | present);
    machine_.write_register(registers + 0x20, root_table);
    constexpr std::uint32_t set_root_table = 1U << 30;
    constexpr std::uint32_t translate = 1U << 31;
    machine_.write_short_register(registers + 0x18, set_root_table);
    invalidate();
    machine_.write_short_register(registers + 0x18, translate);
  }

  // Contexts, then translations; both globally.
  void invalidate() {
    machine_.write_register(registers + 0x28, std::uint64_t{0b101} << 61);
    machine_.write_register(registers + 0xF8, std::uint64_t{0b1001} << 60);
  }

  void show(std::uint64_t root) {
    for (std::uint64_t device = 0; device < DmaMachine::devices; ++device) {
      const std::uint64_t entry = context_table + 16 * (DmaMachine::first_slot * 8 + device);
      const std::uint64_t width = levels_ - 2;
      constexpr std::uint64_t domain = 1 << 8;
      store_word(machine_.memory(), entry, root | present);
      store_word(machine_.memory(), entry + 8, domain | width);
    }
  }

  [[nodiscard]] Result<std::vector<std::optional<OracleAnswer>>> translate(
      std::span<const std::uint64_t> addresses, DmaDirection direction) {
    std::vector<std::optional<OracleAnswer>> answers;
    answers.reserve(addresses.size());
    invalidate();  // what reading has left in QEMU's cache, writing would find unchecked
    while (!addresses.empty()) {
      const auto batch = addresses.first(std::min(addresses.size(), DmaMachine::devices));
      addresses = addresses.subspan(batch.size());
      std::vector<DmaMachine::Dma> dmas;
      for (const std::uint64_t address : batch) dmas.push_back({address});
      const auto events = machine_.run(dmas, direction);
      if (!events) return fail(events.error());
      for (std::size_t at = 0; at < batch.size(); ++at)
        answers.push_back(answer((*events)[at].front().trace, batch[at]));
    }
    return answers;
  }

  // "vtd_dmar_translate dev 00:02.00 iova 0x40200000 -> gpa 0x123000 mask 0xfff", or a fault
  static std::optional<OracleAnswer> answer(std::string_view trace, std::uint64_t address) {
    const std::size_t bus = trace.find(" gpa ");
    const std::size_t mask = trace.find(" mask ");
    if (bus == std::string_view::npos || mask == std::string_view::npos) return std::nullopt;
    const std::uint64_t offset_bits = parse_hex(trace.substr(mask + 6));
    return OracleAnswer{parse_hex(trace.substr(bus + 5)) | (address & offset_bits),
                        offset_bits + 1};
  }

  unsigned levels_;
  DmaMachine machine_;
};

}  // namespace accelmm::test
