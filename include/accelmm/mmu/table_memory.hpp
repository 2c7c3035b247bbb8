// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/check.hpp>
#include <accelmm/error.hpp>
#include <accelmm/units.hpp>

#include <concepts>
#include <cstdint>
#include <limits>
#include <utility>

namespace accelmm::mmu {

/// Every table is one 4096-byte page of 512 words, as the device reads it (Gaudi: hop tables of 4
/// KiB, hop 0 too).
inline constexpr std::uint64_t table_bytes = 4096;
inline constexpr std::uint32_t table_entries = table_bytes / sizeof(std::uint64_t);

/// One table: where the device finds it, where the CPU reads it, and its number in its memory.
struct Table {
  BusAddr address;
  std::uint64_t* entries = nullptr;
  std::uint32_t slot = 0;
};

/// A chain of tables that belong to no tree: taken for a map, or detached by an unmap.
///
/// The links lie in the metadata of the TableMemory, so a chain of any length needs no allocation.
/// Lifetime  move-only; must be empty when destroyed (checked): dropping it would leak its tables.
struct TableList {
  static constexpr std::uint32_t none = std::numeric_limits<std::uint32_t>::max();

  TableList() = default;
  TableList(TableList&& other) noexcept
      : head(std::exchange(other.head, none)), count(std::exchange(other.count, 0)) {}
  TableList& operator=(TableList&& other) noexcept {
    ACCELMM_CHECK(count == 0);
    head = std::exchange(other.head, none);
    count = std::exchange(other.count, 0);
    return *this;
  }
  TableList(const TableList&) = delete;
  TableList& operator=(const TableList&) = delete;
  ~TableList() { ACCELMM_CHECK(count == 0); }

  std::uint32_t head = none;
  std::uint32_t count = 0;
};

/// Whether a device can already reach the table that is being written.
enum class Reach : std::uint8_t {
  hidden,  ///< not linked yet: plain stores, the link publishes them
  live,    ///< linked: a device may read any word at any time, so each store is one whole word
};

/// Where tables live and how they are written: the engine touches table memory only through this.
///
///   take(n)              n zeroed tables, or no_memory and nothing taken
///   pop(list)            takes one table out of a chain
///   push(list, table)    puts an all-zero table into a chain; cannot fail
///   give_back(list)      makes the tables of a chain available again
///   at(address)          the table at an address that one of our links holds (checked)
///   live(table)          the number of entries that are not empty, as the engine counts them
///   fill(t, i, n, e, step, reach)    stores e, e + step, ... into n entries from i
///   link(t, i, e)        stores one entry, after everything stored before it (release)
///   clear(t, i, n)       stores zero into n entries
///
/// The engine reads entries through Table::entries and nowhere else: a memory whose tables are slow
/// to read points it at a copy that it keeps up to date.
template <class M>
concept TableMemory = requires(M& memory, TableList& list, Table table, BusAddr address,
                               std::uint32_t n, std::uint64_t entry, Reach reach) {
  { memory.take(n) } -> std::same_as<Result<TableList>>;
  { memory.pop(list) } -> std::same_as<Table>;
  { memory.push(list, table) } -> std::same_as<void>;
  { memory.give_back(std::move(list)) } -> std::same_as<void>;
  { memory.at(address) } -> std::same_as<Table>;
  { memory.live(table) } -> std::same_as<std::uint32_t&>;
  { memory.fill(table, n, n, entry, entry, reach) } -> std::same_as<void>;
  { memory.link(table, n, entry) } -> std::same_as<void>;
  { memory.clear(table, n, n) } -> std::same_as<void>;
};

}  // namespace accelmm::mmu
