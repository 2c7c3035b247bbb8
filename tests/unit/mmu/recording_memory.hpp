// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "unit/mmu/forwarding_memory.hpp"

#include <cstdint>
#include <vector>

namespace accelmm::mmu::test {

/// A pool that writes down each store, in order.
class RecordingMemory : public ForwardingMemory {
 public:
  struct Store {
    enum class Kind { fill, link, clear } kind;
    std::uint64_t table;
    std::uint32_t first;
    std::uint32_t count;
    std::uint64_t entry;
    Reach reach;
  };

  using ForwardingMemory::ForwardingMemory;

  std::vector<Store> stores;

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
};

static_assert(TableMemory<RecordingMemory>);

}  // namespace accelmm::mmu::test
