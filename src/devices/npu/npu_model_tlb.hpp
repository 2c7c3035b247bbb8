// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <map>
#include <new>
#include <utility>

namespace accelmm::sim {

/// One array of the TLB: values by ASID and number of the piece of address space that they
/// describe.
///
/// Keeps what it is given until it is erased or, when it is full, the oldest goes.
/// Threads   externally synchronised.
/// Cost      O(log entries); erase also O(entries erased).
template <class Value>
class NpuTlbArray {
 public:
  explicit NpuTlbArray(std::size_t capacity) : capacity_(capacity) {}

  /// Returns the value, or null.
  [[nodiscard]] const Value* find(std::uint32_t asid, std::uint64_t number) const {
    const auto found = slots_.find({asid, number});
    return found == slots_.end() ? nullptr : &found->second.value;
  }

  /// Keeps a value; a host that has no memory for it keeps none, as a smaller TLB would.
  void insert(std::uint32_t asid, std::uint64_t number, const Value& value) {
    try {
      std::list<Key> place{{asid, number}};
      const auto [slot, added] = slots_.try_emplace({asid, number}, Slot{value, place.begin()});
      if (added)
        age_.splice(age_.end(), place);
      else
        slot->second.value = value;
    } catch (const std::bad_alloc&) {
      return;
    }
    if (slots_.size() > capacity_) {
      slots_.erase(age_.front());
      age_.pop_front();
    }
  }

  /// Erases the numbers [first, last] of an ASID.
  void erase(std::uint32_t asid, std::uint64_t first, std::uint64_t last) {
    const auto end = slots_.upper_bound({asid, last});
    for (auto slot = slots_.lower_bound({asid, first}); slot != end; slot = slots_.erase(slot))
      age_.erase(slot->second.place);
  }

 private:
  using Key = std::pair<std::uint32_t, std::uint64_t>;
  struct Slot {
    Value value;
    typename std::list<Key>::iterator place;
  };

  std::size_t capacity_;
  std::map<Key, Slot> slots_;
  std::list<Key> age_;  // oldest first
};

}  // namespace accelmm::sim
