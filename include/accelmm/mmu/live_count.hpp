// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/check.hpp>

#include <atomic>
#include <cstdint>
#include <limits>

namespace accelmm::mmu {

/// How many words of one table are in use, by any number of threads; with the last it is dead, and
/// nobody's from then on but of who took that one away.
///
/// `Word` is an atomic of 32 bits; another one lets a model checker run this.
/// Threads  begin() and kill(): who owns the table alone. The rest: any.
template <class Word>
class LiveCountOf {
 public:
  void begin(std::uint32_t count) { word_.store(count, std::memory_order_relaxed); }
  void kill() { word_.store(dead, std::memory_order_relaxed); }

  /// Adds `count`; answers no if the table is dead.
  [[nodiscard]] bool join(std::uint32_t count) {
    std::uint32_t seen = word_.load(std::memory_order_relaxed);
    do {
      if (seen == dead) return false;
    } while (!word_.compare_exchange_weak(seen, seen + count, std::memory_order_acq_rel,
                                          std::memory_order_relaxed));
    return true;
  }
  /// Takes `count` away; answers whether the table is dead by that.
  [[nodiscard]] bool leave(std::uint32_t count) {
    std::uint32_t seen = word_.load(std::memory_order_relaxed);
    std::uint32_t left = 0;
    do {
      ACCELMM_CHECK(seen != dead && seen >= count);
      left = seen == count ? dead : seen - count;
    } while (!word_.compare_exchange_weak(seen, left, std::memory_order_acq_rel,
                                          std::memory_order_relaxed));
    return left == dead;
  }
  /// Makes a table dead that counts exactly `count`, or answers no.
  [[nodiscard]] bool retire(std::uint32_t count) {
    return word_.compare_exchange_strong(count, dead, std::memory_order_acq_rel,
                                         std::memory_order_relaxed);
  }

  [[nodiscard]] std::uint32_t get() const { return word_.load(std::memory_order_relaxed); }
  [[nodiscard]] bool is_dead() const { return get() == dead; }

 private:
  static constexpr std::uint32_t dead = std::numeric_limits<std::uint32_t>::max();

  Word word_{dead};
};

}  // namespace accelmm::mmu
