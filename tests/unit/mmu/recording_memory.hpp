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

  std::uint64_t table_bytes() const { return pool_->table_bytes(); }
  BusAddr end() const { return pool_->end(); }
  Result<TableList> take(std::uint32_t count) { return pool_->take(count); }
  Table pop(TableList& list) { return pool_->pop(list); }
  void push(TableList& list, Table table, Contents contents) { pool_->push(list, table, contents); }
  void give_back(TableList&& list) { pool_->give_back(std::move(list)); }
  Table at(BusAddr address) { return pool_->at(address); }
  void begin_count(Table table, std::uint32_t count) { pool_->begin_count(table, count); }
  bool join(Table table, std::uint32_t count) { return pool_->join(table, count); }
  bool leave(Table table, std::uint32_t count) { return pool_->leave(table, count); }
  bool retire(Table table, std::uint32_t count) { return pool_->retire(table, count); }
  std::uint32_t live(Table table) { return pool_->live(table); }
  template <class Word>
  Word load(Table table, std::uint32_t index) {
    return pool_->load<Word>(table, index);
  }
  template <class Word>
  bool all_empty(Table table, std::uint32_t first, std::uint32_t count) {
    return pool_->all_empty<Word>(table, first, count);
  }
  template <class Word>
  bool any_empty(Table table, std::uint32_t first, std::uint32_t count) {
    return pool_->any_empty<Word>(table, first, count);
  }
  template <class Word>
  void fill(Table table, std::uint32_t first, std::uint32_t count, Word entry, Word step,
            Reach reach) {
    const bool is_link = reach == Reach::hidden && entry % table_bytes() == 1;
    stores.push_back({is_link ? Store::Kind::link : Store::Kind::fill, table.address.value(), first,
                      count, entry, reach});
    pool_->fill(table, first, count, entry, step, reach);
  }
  template <class Word>
  void store(Table table, std::uint32_t index, Word entry) {
    stores.push_back({Store::Kind::fill, table.address.value(), index, 1, entry, Reach::live});
    pool_->store(table, index, entry);
  }
  template <class Word>
  bool link(Table table, std::uint32_t index, Word entry) {
    if (!pool_->link(table, index, entry)) return false;
    stores.push_back({Store::Kind::link, table.address.value(), index, 1, entry, Reach::live});
    return true;
  }
  template <class Word>
  bool replace(Table table, std::uint32_t index, Word old, Word entry) {
    if (!pool_->replace(table, index, old, entry)) return false;
    stores.push_back({Store::Kind::fill, table.address.value(), index, 1, entry, Reach::live});
    return true;
  }
  template <class Word>
  void clear(Table table, std::uint32_t first, std::uint32_t count, Reach reach) {
    stores.push_back({Store::Kind::clear, table.address.value(), first, count, 0, reach});
    pool_->clear<Word>(table, first, count, reach);
  }
  void sync() { pool_->sync(); }

 private:
  TablePool* pool_;
};

static_assert(TableMemory<RecordingMemory>);

}  // namespace accelmm::mmu::test
