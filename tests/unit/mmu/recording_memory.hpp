// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/mmu/table_pool.hpp>

#include <cstdint>
#include <utility>
#include <vector>

namespace accelmm::mmu::test {

/// A pool that writes down each store, in order.
class RecordingMemory {
 public:
  struct Store {
    enum class Kind { fill, link, clear } kind;
    std::uint64_t table;
    std::uint32_t first;
    std::uint32_t count;
    std::uint64_t entry;
    Reach reach;
  };

  explicit RecordingMemory(TablePool& pool) : pool_(&pool) {}

  std::vector<Store> stores;

  Result<TableList> take(std::uint32_t count) { return pool_->take(count); }
  Table pop(TableList& list) { return pool_->pop(list); }
  void push(TableList& list, Table table) { pool_->push(list, table); }
  void give_back(TableList&& list) { pool_->give_back(std::move(list)); }
  Table at(BusAddr address) { return pool_->at(address); }
  std::uint32_t& live(Table table) { return pool_->live(table); }
  void fill(Table table, std::uint32_t first, std::uint32_t count, std::uint64_t entry,
            std::uint64_t step, Reach reach) {
    stores.push_back({Store::Kind::fill, table.address.value(), first, count, entry, reach});
    pool_->fill(table, first, count, entry, step, reach);
  }
  void link(Table table, std::uint32_t index, std::uint64_t entry) {
    stores.push_back({Store::Kind::link, table.address.value(), index, 1, entry, Reach::live});
    pool_->link(table, index, entry);
  }
  void clear(Table table, std::uint32_t first, std::uint32_t count) {
    stores.push_back({Store::Kind::clear, table.address.value(), first, count, 0, Reach::live});
    pool_->clear(table, first, count);
  }

 private:
  TablePool* pool_;
};

static_assert(TableMemory<RecordingMemory>);

}  // namespace accelmm::mmu::test
