// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "mmu/store_loop.hpp"

#include <accelmm/mmu/npu1.hpp>
#include <accelmm/mmu/page_table.hpp>
#include <accelmm/mmu/table_pool.hpp>
#include <accelmm/units.hpp>

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

namespace accelmm::bench {

inline constexpr std::uint64_t page = 4096;
inline constexpr std::uint64_t large = std::uint64_t{2} << 20;

using Clock = std::chrono::steady_clock;

inline double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// An empty tree in a pool of so many tables, whose memory has been touched.
class Tree {
 public:
  using Table = mmu::PageTable<mmu::Npu1, mmu::TablePool>;

  /// `sink` may be null; it outlives this.
  explicit Tree(std::uint32_t tables, mmu::TableSink* sink = nullptr)
      : memory_(zeroed((tables * page + large - 1) / large * large)),
        pool_(*mmu::TablePool::create({.begin = BusAddr(page),
                                       .size = ByteCount(tables * page),
                                       .cpu_view = memory_.get(),
                                       .sink = sink})),
        table_(*Table::create(pool_)) {}
  Tree(const Tree&) = delete;
  Tree& operator=(const Tree&) = delete;
  ~Tree() { table_.detach_all().release(mmu::InvalidationDone::never_shown()); }

  [[nodiscard]] Table& table() { return table_; }
  [[nodiscard]] mmu::TablePool& pool() { return pool_; }

  [[nodiscard]] bool map(std::uint64_t va, std::uint64_t bus, std::uint64_t length) {
    const Run run{BusAddr(bus), ByteCount(length)};
    return table_.map(DeviceAddr(va), std::span(&run, 1), Access::read_write).has_value();
  }
  [[nodiscard]] bool unmap(std::uint64_t va, std::uint64_t length) {
    auto gone = table_.unmap({DeviceAddr(va), DeviceAddr(va + length)});
    if (!gone) return false;
    std::move(*gone).release(mmu::InvalidationDone::never_shown());
    return true;
  }
  [[nodiscard]] bool leads_to(std::uint64_t va, std::uint64_t bus) const {
    const auto meaning = table_.translate(DeviceAddr(va));
    return meaning && meaning->address == BusAddr(bus);
  }

 private:
  Memory memory_;
  mmu::TablePool pool_;
  Table table_;
};

}  // namespace accelmm::bench
