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
  };

  /// Takes `count` slots off, the last pushed first, or nothing: an empty chain.
  /// `next_of(slot)` is the slot's link. Pre: count > 0.
  template <class NextOf>
  [[nodiscard]] Chain pop(std::uint32_t count, NextOf next_of) {
    std::uint64_t seen = head_.load(std::memory_order_acquire);
    for (;;) {
      Chain chain{slot_of(seen), slot_of(seen)};
      for (std::uint32_t i = 1; i < count && chain.tail != none; ++i)
        chain.tail = next_of(chain.tail).load(std::memory_order_relaxed);
      if (chain.tail == none) {
        // A link may have led astray while the chain changed: only an unchanged one is too short.
        const std::uint64_t again = head_.load(std::memory_order_acquire);
        if (again == seen) return {};
        seen = again;
        continue;
      }
      const std::uint32_t rest = next_of(chain.tail).load(std::memory_order_relaxed);
      if (head_.compare_exchange_strong(seen, changed(seen, rest), std::memory_order_acquire,
                                        std::memory_order_acquire))
        return chain;
    }
  }

  /// Puts a chain on; its links from head to tail are set already.
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
  [[nodiscard]] static std::uint32_t slot_of(std::uint64_t head) {
    return static_cast<std::uint32_t>(head);
  }
  [[nodiscard]] static std::uint64_t changed(std::uint64_t head, std::uint32_t slot) {
    return ((head >> 32) + 1) << 32 | slot;
  }

  typename Atomics::Head head_{std::uint64_t{none}};
};

}  // namespace accelmm::mmu
