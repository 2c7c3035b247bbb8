// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "oracle/dma_machine.hpp"
#include "oracle/leaf_search.hpp"
#include "oracle/oracle.hpp"

#include <accelmm/access.hpp>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <set>
#include <string_view>
#include <utility>
#include <vector>

namespace accelmm::test {

/// The AMD IOMMU's tables (v1) of 1 to 5 levels, as the amd-iommu of QEMU walks them for a DMA.
///
/// QEMU 7.2 does not look at bit 0 (PR) of a leaf. It tells where a leaf begins and not how long it
/// is; that is found out by DMAs across the middle of blocks (leaf_search.hpp). Bus addresses from
/// 0xC0000000 to 4 GiB belong to the machine's devices: tables should not lead there.
///
/// The tables hang below others of ours, so that each device address gets `beyond` added: then a
/// bus address is never equal to the device address, of which the log tells where a DMA is refused.
/// Source  AMD I/O Virtualization Technology (IOMMU) Specification, 2.2.2 and 2.2.3 (rev. 3.07)
class AmdIommuOracle final : public Oracle {
 public:
  struct Options {
    unsigned levels = 4;  ///< 1 to 5
    ByteCount memory{std::uint64_t{64} << 20};
  };

  /// Errors  no_entry: not installed.  io_error: QEMU does not run.
  [[nodiscard]] static Result<std::unique_ptr<AmdIommuOracle>> create(const Options& options) {
    if (options.levels < 1 || options.levels > 5)
      return fail(Errc::invalid_argument, "not so many levels of AMD IOMMU tables");
    auto machine = DmaMachine::start({.iommu = "amd-iommu",
                                      .traces = {"amdvi_translation_result"},

                                      .memory = options.memory});
    if (!machine) return fail(machine.error());
    std::unique_ptr<AmdIommuOracle> oracle(new AmdIommuOracle(options.levels, std::move(*machine)));
    oracle->enable();
    return oracle;
  }

  [[nodiscard]] std::uint64_t base() const override { return DmaMachine::tables_base; }
  [[nodiscard]] std::span<std::byte> memory() override { return machine_.memory().subspan(base()); }
  [[nodiscard]] pid_t pid() const { return machine_.pid(); }
  [[nodiscard]] QemuWire& wire() { return machine_.wire(); }

  [[nodiscard]] Result<std::vector<std::optional<OracleAnswer>>> translate(
      std::uint64_t root, std::span<const std::uint64_t> addresses, Access wanted) override {
    hang_up(root);
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
  static constexpr std::uint64_t registers = 0xFED8'0000;
  static constexpr std::uint64_t commands = 0xA000;  // 256 of 16 bytes
  static constexpr std::uint64_t device_table = 0x1'0000;
  static constexpr std::uint64_t outer_tables = 0x2'0000;  // level 6, then 5, down to above ours
  static constexpr std::uint64_t table_size = 4096;
  static constexpr unsigned outer_levels = 6;
  static constexpr std::uint64_t beyond = std::uint64_t{1} << 57;  // index 1 at level 6
  static constexpr std::uint64_t read_and_write = std::uint64_t{3} << 61;

  /// One look-up of a DMA: where the leaf begins on the bus, and where the bus complained, if so.
  struct Step {
    std::uint64_t leaf_bus;
    std::optional<std::uint64_t> unbacked;
  };
  using Steps = std::vector<Step>;

  AmdIommuOracle(unsigned levels, DmaMachine machine)
      : levels_(levels), machine_(std::move(machine)) {}

  static std::uint64_t link(std::uint64_t table, std::uint64_t level) {
    return table | level << 9 | read_and_write | 1;
  }

  void enable() {
    const auto memory = machine_.memory();
    constexpr std::uint64_t invalidate_all = std::uint64_t{8} << 60;
    for (std::uint64_t at = 0; at < 4096; at += 16)
      store_word(memory, commands + at, invalidate_all);
    for (std::uint64_t device = 0; device < DmaMachine::devices; ++device) {
      const std::uint64_t entry = device_table + 32 * (DmaMachine::first_slot * 8 + device);
      constexpr std::uint64_t translation_valid = 2;
      store_word(memory, entry, link(outer_tables, outer_levels) | translation_valid);
      store_word(memory, entry + 8, 1);  // the domain
    }
    constexpr std::uint64_t pages_of_device_table = 0xF;  // less one
    constexpr std::uint64_t power_of_commands = 8;
    constexpr std::uint64_t enable_iommu_and_commands = 1 | 1 << 12;
    machine_.write_register(registers, device_table | pages_of_device_table);
    machine_.write_register(registers + 0x08, commands | power_of_commands << 56);
    machine_.write_register(registers + 0x18, enable_iommu_and_commands);
  }

  // The root below our tables: the second entry of the outermost, and the first of the others.
  void hang_up(std::uint64_t root) {
    std::uint64_t table = outer_tables;
    std::uint64_t entry = table + 8;
    for (unsigned below = outer_levels - 1; below > levels_; --below) {
      table += table_size;
      store_word(machine_.memory(), entry, link(table, below));
      entry = table;
    }
    store_word(machine_.memory(), entry, link(root, levels_));
  }

  // Has one more of the commands executed, which are all the same.
  void invalidate() {
    tail_ = (tail_ + 16) % 4096;
    machine_.write_register(registers + 0x2008, tail_);
  }

  [[nodiscard]] Result<std::vector<std::optional<OracleAnswer>>> translate(
      std::span<const std::uint64_t> addresses, DmaDirection direction) {
    std::vector<std::optional<OracleAnswer>> answers(addresses.size());
    std::vector<std::size_t> asked;
    for (std::size_t at = 0; at < addresses.size(); ++at)
      if (addresses[at] >> (12 + 9 * levels_) == 0) asked.push_back(at);
    std::vector<DmaMachine::Dma> dmas;
    for (const std::size_t at : asked) dmas.push_back({addresses[at] | beyond});
    const auto steps = run(dmas, direction);
    if (!steps) return fail(steps.error());
    std::vector<std::pair<std::size_t, LeafSearch>> searches;
    for (std::size_t at = 0; at < asked.size(); ++at) {
      const Step& step = (*steps)[at].front();
      if (step.unbacked == dmas[at].address) continue;  // refused
      searches.emplace_back(asked[at], LeafSearch(addresses[asked[at]], step.leaf_bus,
                                                  step.unbacked, 11 + 9 * levels_));
    }
    if (auto done = finish(searches, direction); !done) return fail(done.error());
    for (const auto& [at, search] : searches)
      answers[at] = OracleAnswer{search.bus_address(), search.size()};
    return answers;
  }

  // Asks for each leaf until its size is found.
  [[nodiscard]] Result<void> finish(std::vector<std::pair<std::size_t, LeafSearch>>& searches,
                                    DmaDirection direction) {
    while (true) {
      std::vector<LeafSearch*> open;
      std::vector<DmaMachine::Dma> dmas;
      for (auto& [at, search] : searches) {
        if (!search.possible()) return fail(Errc::io_error, "QEMU's log does not fit any leaf");
        if (search.found()) continue;
        open.push_back(&search);
        dmas.push_back({search.before_middle() | beyond, 2});
      }
      if (open.empty()) return {};
      const auto steps = run(dmas, direction);
      if (!steps) return fail(steps.error());
      for (std::size_t at = 0; at < open.size(); ++at)
        open[at]->learn(in_one_leaf((*steps)[at], open[at]->leaf_bus(), dmas[at].address));
    }
  }

  // Memory is read at once as far as one leaf goes, and elsewhere the bus is asked for each byte.
  [[nodiscard]] bool in_one_leaf(const Steps& steps, std::uint64_t leaf_bus,
                                 std::uint64_t address) const {
    for (std::size_t at = 0; at < steps.size(); ++at)
      if (steps[at].leaf_bus != leaf_bus || steps[at].unbacked == address + at) return false;
    const auto& before = steps.front().unbacked;
    if (steps.size() == 1) return !before;
    const auto& after = steps.back().unbacked;
    if (before && after) return *after == *before + 1;
    if (after) return *after != leaf_bus;
    return before && *before + 1 < machine_.memory().size();
  }

  // In batches in which no two devices share a place in QEMU's cache: its key is one word, in which
  // a device's number lies over the bits of an address from 48 on.
  [[nodiscard]] Result<std::vector<Steps>> run(std::span<const DmaMachine::Dma> dmas,
                                               DmaDirection direction) {
    std::vector<Steps> all;
    all.reserve(dmas.size());
    while (!dmas.empty()) {
      std::set<std::uint64_t> keys;
      std::size_t count = 0;
      for (; count < std::min(dmas.size(), DmaMachine::devices); ++count) {
        const std::uint64_t device = std::uint64_t{DmaMachine::first_slot * 8 + count} << 36;
        const std::uint64_t first = dmas[count].address >> 12 | device;
        const std::uint64_t last = (dmas[count].address + dmas[count].length - 1) >> 12 | device;
        if (keys.contains(first) || keys.contains(last)) break;
        keys.insert({first, last});
      }
      invalidate();
      const auto events = machine_.run(dmas.first(count), direction);
      if (!events) return fail(events.error());
      for (const DmaMachine::Events& of_one : *events) all.push_back(steps_of(of_one));
      dmas = dmas.subspan(count);
    }
    return all;
  }

  // "amdvi_translation_result devid: 00:02.0 gpa 0x40200123 hpa 0x100000000"
  static Steps steps_of(const DmaMachine::Events& events) {
    Steps steps;
    for (const DmaMachine::Event& event : events) {
      const std::size_t bus = event.trace.find(" hpa ");
      if (bus != std::string::npos)
        steps.push_back({parse_hex(std::string_view(event.trace).substr(bus + 5)), std::nullopt});
      else if (!steps.empty())
        steps.back().unbacked = event.unbacked;
    }
    return steps;
  }

  unsigned levels_;
  DmaMachine machine_;
  std::uint64_t tail_ = 0;
};

}  // namespace accelmm::test
