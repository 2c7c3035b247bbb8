// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/mmu/table_pool.hpp>

#include <cstdint>
#include <utility>

namespace accelmm::mmu::test {

/// Passes everything on to a pool. A test derives from it and hides what it wants to see.
class ForwardingMemory {
 public:
  explicit ForwardingMemory(TablePool& pool) : pool_(&pool) {}

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
    pool_->fill(table, first, count, entry, step, reach);
  }
  template <class Word>
  void store(Table table, std::uint32_t index, Word entry) {
    pool_->store(table, index, entry);
  }
  template <class Word>
  bool link(Table table, std::uint32_t index, Word entry) {
    return pool_->link(table, index, entry);
  }
  template <class Word>
  bool replace(Table table, std::uint32_t index, Word old, Word entry) {
    return pool_->replace(table, index, old, entry);
  }
  template <class Word>
  void clear(Table table, std::uint32_t first, std::uint32_t count, Reach reach) {
    pool_->clear<Word>(table, first, count, reach);
  }
  void sync() { pool_->sync(); }

 protected:
  TablePool* pool_;
};

static_assert(TableMemory<ForwardingMemory>);

}  // namespace accelmm::mmu::test
