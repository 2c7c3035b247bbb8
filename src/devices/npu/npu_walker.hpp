// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/access.hpp>
#include <accelmm/bus.hpp>
#include <accelmm/sim/npu_model.hpp>
#include <accelmm/units.hpp>

#include <cstdint>
#include <expected>

namespace accelmm::sim {

/// A translation as the hardware latches it.
struct NpuLeaf {
  BusAddr memory;       ///< where the leaf's memory begins
  BusAddr entry;        ///< where the entry itself was read
  std::uint64_t size;   ///< 4 KiB or 2 MiB
  std::uint32_t level;  ///< hop of the entry
  bool readable;
  bool writable;
};

/// Where and why a walk ended without a leaf.
struct NpuWalkFault {
  std::uint32_t level;
  NpuFaultKind kind;
};

/// Walks NPU1 tables as the hardware does: one bus read of eight bytes for each hop.
///
/// The geometry is written here a second time on purpose, from the format's description and not
/// from the code that writes the tables, so that a mistake in either shows as a difference.
/// Threads   as its bus; holds no state but a count.
/// Source    docs/npu.md "Tables"; hops, shifts and LAST as in Gaudi's MMU (v1.1).
class NpuWalker {
 public:
  static constexpr std::uint64_t page_size = 4096;
  static constexpr std::uint64_t table_span = 2 << 20;  ///< what one last-level table maps
  static constexpr unsigned address_bits = 50;

  struct Walk {
    std::expected<NpuLeaf, NpuWalkFault> result;
    std::uint32_t reads;  ///< entries read
    bool has_last_table;  ///< whether it came through a last-level table
    BusAddr last_table;   ///< that table
  };

  explicit NpuWalker(BusPort& bus) : bus_(bus) {}

  /// Walks from the root. Pre: the address is canonical.
  [[nodiscard]] Walk walk(BusAddr root, DeviceAddr address) const;
  /// Reads only the last hop, of a table that is already known.
  [[nodiscard]] Walk walk_last(BusAddr last_table, DeviceAddr address) const;

 private:
  [[nodiscard]] Walk walk_from(std::uint32_t level, BusAddr table, DeviceAddr address) const;

  BusPort& bus_;
};

}  // namespace accelmm::sim
