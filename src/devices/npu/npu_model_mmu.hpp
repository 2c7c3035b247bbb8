// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "npu_model_tlb.hpp"
#include "npu_walker.hpp"

#include <accelmm/access.hpp>
#include <accelmm/bus.hpp>
#include <accelmm/sim/npu_model.hpp>
#include <accelmm/units.hpp>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <expected>
#include <memory>
#include <span>

namespace accelmm::sim {

/// The MMU of the NPU: root registers, TLB, walker, and the way to the bus behind them.
///
/// Threads   the engine's thread, but set_root(), clear_root(), find_entry() and counters(): any.
class NpuMmu {
 public:
  struct Counters {
    std::atomic<std::uint64_t> tlb_hits{0};
    std::atomic<std::uint64_t> tlb_misses{0};
    std::atomic<std::uint64_t> table_reads{0};
    std::atomic<std::uint64_t> bytes_read{0};
    std::atomic<std::uint64_t> bytes_written{0};
  };

  NpuMmu(BusPort& bus, const NpuModelOptions& options);

  /// Pre: the ASID exists and the root is a multiple of 4096.
  void set_root(std::uint32_t asid, BusAddr root);
  void clear_root(std::uint32_t asid);

  /// Moves bytes that lie within one 4 KiB page.
  [[nodiscard]] std::expected<void, NpuFault> read(std::uint32_t asid, DeviceAddr address,
                                                   std::span<std::byte> into);
  [[nodiscard]] std::expected<void, NpuFault> write(std::uint32_t asid, DeviceAddr address,
                                                    std::span<const std::byte> from);

  /// Moves bytes past the translation, through `via`.
  [[nodiscard]] std::expected<void, NpuFault> move(BusAddr from, BusAddr to,
                                                   std::span<std::byte> via);

  void invalidate(std::uint32_t asid, Range<DeviceAddr> range);
  [[nodiscard]] Result<BusAddr> find_entry(std::uint32_t asid, DeviceAddr address) const;
  [[nodiscard]] const Counters& counters() const { return counters_; }

 private:
  static constexpr std::uint32_t root_count = NpuModel::address_spaces + 1;
  static constexpr std::uint64_t root_valid = 1;  // in bit 0, which an aligned root leaves free

  struct Target {
    BusAddr address;
    std::uint32_t level;
  };
  [[nodiscard]] std::expected<Target, NpuFault> translate(std::uint32_t asid, DeviceAddr address,
                                                          Access access);
  [[nodiscard]] const NpuLeaf* look_up(std::uint32_t asid, DeviceAddr address) const;
  [[nodiscard]] std::expected<NpuLeaf, NpuWalkFault> walk(std::uint32_t asid, DeviceAddr address);

  BusPort& bus_;
  NpuWalker walker_;
  std::array<std::atomic<std::uint64_t>, root_count> roots_{};
  NpuTlbArray<NpuLeaf> small_leaves_;  // by number of the 4 KiB page
  NpuTlbArray<NpuLeaf> big_leaves_;    // by number of the 2 MiB page
  NpuTlbArray<BusAddr> last_tables_;   // by number of the 2 MiB that the table maps
  NpuTlbArray<NpuWalkFault> faults_;   // by number of the 4 KiB page; used if they are cached
  NpuModelOptions::NegativeEntries negative_entries_;
  Counters counters_;
};

}  // namespace accelmm::sim
