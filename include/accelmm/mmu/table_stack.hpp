// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <limits>

namespace accelmm::mmu {

/// A lock-free stack of numbered slots, each with a link of its own; chains go on and off whole.
///
/// The head holds a slot and a count of changes, so that a chain that was read while others took
/// and returned its slots is found out when it is taken off.
/// `Atomics` gives the words; another one lets a model checker run this.
template <class Atomics>
class TableStackOf {
 public:
  using Next = typename Atomics::Next;
  static constexpr std::uint32_t none = std::numeric_limits<std::uint32_t>::max();

  struct Chain {
    std::uint32_t head = none;
    std::uint32_t tail = none;
    std::uint32_t count = 0;
  };

  /// Takes `count` slots off, the last pushed first, or nothing: an empty chain.
  /// `next_of(slot)` is the slot's link. Pre: count > 0.
  template <class NextOf>
  [[nodiscard]] Chain pop(std::uint32_t count, NextOf next_of) {
    return pop_between(count, count, next_of);
  }
  /// The same where fewer are better than none.
  template <class NextOf>
  [[nodiscard]] Chain pop_up_to(std::uint32_t count, NextOf next_of) {
    return pop_between(1, count, next_of);
  }

  /// Puts a chain on; its links from head to tail are set already. Its count is not looked at.
  template <class NextOf>
  void push(Chain chain, NextOf next_of) {
    std::uint64_t seen = head_.load(std::memory_order_relaxed);
    do {
      next_of(chain.tail).store(slot_of(seen), std::memory_order_relaxed);
    } while (!head_.compare_exchange_strong(seen, changed(seen, chain.head),
                                            std::memory_order_release, std::memory_order_relaxed));
  }

  /// The slot on top, for a look at a stack that nobody changes.
  [[nodiscard]] std::uint32_t top() const { return slot_of(head_.load(std::memory_order_acquire)); }

 private:
  template <class NextOf>
  [[nodiscard]] Chain pop_between(std::uint32_t least, std::uint32_t most, NextOf next_of) {
    std::uint64_t seen = head_.load(std::memory_order_acquire);
    for (;;) {
      Chain chain{slot_of(seen), none, 0};
      std::uint32_t rest = chain.head;
      for (; chain.count < most && rest != none; ++chain.count) {
        chain.tail = rest;
        rest = next_of(rest).load(std::memory_order_relaxed);
      }
      if (chain.count < least) {
        // A link may have led astray while the chain changed: only an unchanged one is too short.
        const std::uint64_t again = head_.load(std::memory_order_acquire);
        if (again == seen) return {};
        seen = again;
        continue;
      }
      if (head_.compare_exchange_strong(seen, changed(seen, rest), std::memory_order_acquire,
                                        std::memory_order_acquire))
        return chain;
    }
  }

  [[nodiscard]] static std::uint32_t slot_of(std::uint64_t head) {
    return static_cast<std::uint32_t>(head);
  }
  [[nodiscard]] static std::uint64_t changed(std::uint64_t head, std::uint32_t slot) {
    return ((head >> 32) + 1) << 32 | slot;
  }

  typename Atomics::Head head_{std::uint64_t{none}};
};

}  // namespace accelmm::mmu
