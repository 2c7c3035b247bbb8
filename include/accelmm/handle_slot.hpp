// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

namespace accelmm::mm {

/// The atomics of lock-free code as it is shipped. Such code takes them as a template parameter, so
/// that a model checker runs the very same code on atomics of its own.
struct StdAtomics {
  template <class T>
  using Atomic = std::atomic<T>;
};

/// As what is aligned so that a slot of this many bytes, if a cache line can hold it, lies in one.
[[nodiscard]] constexpr std::size_t slot_alignment(std::size_t bytes) noexcept {
  return bytes < 64 ? std::bit_ceil(bytes) : 64;
}

/// One place of a handle table: a value, the handle that names it, and who still uses it.
///
/// Two words besides the value. The name is the raw handle while the value can be found; else it is
/// free for a link of the list of free slots. The state is what decides:
///
///   63        40 39   38 37          0
///   [generation] [phase] [references]      phase: closed 0, live 1, dying 2
///
///   closed --open--> live --close (no references)--------------------> closed
///                    live --condemn--> dying --uncount (the last)----> closed
///
/// Whoever brings a slot to closed owns it, and its value, until it opens it again or gives it away.
/// A lookup first counts itself, in whatever state the slot is, and then looks whether that was the
/// generation and phase it meant: so it never waits, and a value is never destroyed under a counted
/// reference. One that came too late uncounts itself like any other, and may be the last.
///
/// Threads   count, uncount, close, condemn and is_named: any, at any time. The rest: the owner.
template <class T, class Atomics = StdAtomics>
class alignas(slot_alignment(16 + sizeof(T))) HandleSlot {
 public:
  static constexpr std::uint32_t last_generation = 0xff'ffff;  // 24 bits

  enum class Closing { refused, in_use, closed };

  HandleSlot() noexcept {}  // not defaulted: the value begins later
  HandleSlot(const HandleSlot&) = delete;
  HandleSlot& operator=(const HandleSlot&) = delete;
  ~HandleSlot() {}

  /// Whether this raw handle names the value. True only while it can be found.
  [[nodiscard]] bool is_named(std::uint64_t raw) const noexcept {
    return name_.load(std::memory_order_acquire) == raw;
  }
  /// Pre     a counted reference, or word from its owner that the value stays.
  [[nodiscard]] T& value() noexcept { return value_; }

  /// Adds a reference, and says whether it is one to the live value of this generation. If not, it
  /// is to be dropped at once by uncount(), as any other.
  [[nodiscard]] bool count(std::uint32_t generation) noexcept {
    const std::uint64_t before = state_.fetch_add(1, std::memory_order_acquire);
    return before >> phase_shift == (generation << phase_bits | live);
  }

  /// Drops a reference. True if it was the last to a dying value: the slot is closed, the caller's.
  [[nodiscard]] bool uncount() noexcept {
    std::uint64_t left = state_.fetch_sub(1, std::memory_order_release) - 1;
    if ((left & (phase_mask | reference_mask)) != dying << phase_shift) return false;
    // A late lookup may count itself between: then it is the last. The generation is part of what
    // is compared, so none can close a later value for an earlier one.
    return state_.compare_exchange_strong(left, left & ~phase_mask, std::memory_order_acquire,
                                          std::memory_order_relaxed);
  }

  /// Closes the slot if it holds the live value of this generation and none counts on it.
  [[nodiscard]] Closing close(std::uint32_t generation) noexcept {
    const std::uint64_t idle = std::uint64_t{generation << phase_bits | live} << phase_shift;
    std::uint64_t seen = state_.load(std::memory_order_relaxed);
    do {
      if (seen >> phase_shift != idle >> phase_shift) return Closing::refused;
      if (seen != idle) return Closing::in_use;
    } while (!state_.compare_exchange_weak(seen, idle & ~phase_mask, std::memory_order_acquire,
                                           std::memory_order_relaxed));
    name_.store(0, std::memory_order_relaxed);
    return Closing::closed;
  }

  /// Makes a live value of this generation dying: no lookup finds it any more. On success the caller
  /// holds a reference, so that the value dies no sooner than the caller has dropped it.
  [[nodiscard]] bool condemn(std::uint32_t generation) noexcept {
    constexpr std::uint64_t to_dying = ((dying - live) << phase_shift) + 1;
    std::uint64_t seen = state_.load(std::memory_order_relaxed);
    do {
      if (seen >> phase_shift != (generation << phase_bits | live)) return false;
    } while (!state_.compare_exchange_weak(seen, seen + to_dying, std::memory_order_acq_rel,
                                           std::memory_order_relaxed));
    name_.store(0, std::memory_order_relaxed);
    return true;
  }

  /// The generation of the value that was here last; before the first, last_generation.
  [[nodiscard]] std::uint32_t generation() const noexcept {
    return static_cast<std::uint32_t>(state_.load(std::memory_order_relaxed) >> generation_shift);
  }
  [[nodiscard]] std::uint32_t next_generation() const noexcept {
    return (generation() + 1) & last_generation;
  }
  [[nodiscard]] bool is_live() const noexcept {
    return (state_.load(std::memory_order_acquire) & phase_mask) == live << phase_shift;
  }
  [[nodiscard]] bool is_closed() const noexcept {
    return (state_.load(std::memory_order_acquire) & phase_mask) == 0;
  }
  [[nodiscard]] bool is_counted() const noexcept {
    return (state_.load(std::memory_order_acquire) & reference_mask) != 0;
  }
  [[nodiscard]] std::uint64_t name() const noexcept {
    return name_.load(std::memory_order_acquire);
  }

  /// Gives a closed slot its next value, of next_generation(), and the handle that names it.
  void open(std::uint64_t raw, T value) noexcept {
    const std::uint64_t next = std::uint64_t{next_generation()} << generation_shift;
    const std::uint64_t last = std::uint64_t{generation()} << generation_shift;
    std::construct_at(std::addressof(value_), std::move(value));
    name_.store(raw, std::memory_order_release);
    // Added, not stored: lookups that came too late for the last value may still be counted.
    state_.fetch_add(next + (live << phase_shift) - last, std::memory_order_release);
  }
  /// Moves the value out of a closed slot.
  [[nodiscard]] T take_value() noexcept {
    T value(std::move(value_));
    std::destroy_at(std::addressof(value_));
    return value;
  }
  /// Destroys the value of a slot that no other thread reaches any more.
  void destroy_value() noexcept { std::destroy_at(std::addressof(value_)); }

  /// What a closed slot links to in a list of free ones. Any thread may read it, at any time: it is
  /// only right while the slot is in the list.
  void set_link(std::uint32_t link) noexcept { name_.store(link, std::memory_order_relaxed); }
  [[nodiscard]] std::uint32_t link() const noexcept {
    return static_cast<std::uint32_t>(name_.load(std::memory_order_relaxed));
  }

 private:
  // 38 bits of references: as many of the 16-byte pins would fill 4 TiB.
  static constexpr unsigned phase_shift = 38;
  static constexpr unsigned phase_bits = 2;
  static constexpr unsigned generation_shift = phase_shift + phase_bits;
  static constexpr std::uint64_t reference_mask = (std::uint64_t{1} << phase_shift) - 1;
  static constexpr std::uint64_t phase_mask = std::uint64_t{3} << phase_shift;
  static constexpr std::uint64_t live = 1;
  static constexpr std::uint64_t dying = 2;

  template <class Word>
  using Atomic = typename Atomics::template Atomic<Word>;

  Atomic<std::uint64_t> name_{0};
  Atomic<std::uint64_t> state_{std::uint64_t{last_generation} << generation_shift};
  union {
    T value_;
  };
};

}  // namespace accelmm::mm
