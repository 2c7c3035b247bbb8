// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "mm/chunk_bins.hpp"
#include "mm/chunk_map.hpp"

#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>

namespace accelmm::mm {

/// The chunks that processors allocate single pages from, each by plain stores: one a processor and
/// lifetime.
///
/// take() and give() take no lock and no atomic instruction; what they cannot do, the caller does
/// under the allocator's lock. A leased chunk is in no bin.
///
/// Owns      a cache line for each processor and lifetime.
/// Threads   take() and give() any; grant() and revoke() with the allocator's lock held.
/// Source    restartable sequences, base/per_cpu.hpp; the idea that a processor reserves what it
///           allocates from: LLFree (Wrenger et al., USENIX ATC 2023).
class PageLeases {
 public:
  static constexpr std::uint64_t none = ~std::uint64_t{0};

  /// Throws std::bad_alloc. `map` outlives this.
  explicit PageLeases(ChunkMap& map);

  /// A free page of the chunk that this processor leases for `lifetime`, allocated now; or none.
  [[nodiscard]] std::uint64_t take(unsigned lifetime);

  /// Whether this processor leases a chunk, at this moment.
  [[nodiscard]] bool is_leased_here(std::uint64_t c) const {
    const unsigned leaser = map_.chunk(c).lease.load(std::memory_order_acquire);
    return leaser != 0 && leaser == per_cpu::current() + 1;
  }
  enum class Given { done, not_allocated, not_leased, disturbed };
  /// Frees a page, which holds no zeros, if this processor leases its chunk. `not_allocated`: the
  /// chunk is leased here, and the page is free.
  [[nodiscard]] Given give(std::uint64_t page);

  /// take() and give() for what happens nearly always, to be inlined; the latter for short-lived
  /// pages. They may return none, or `disturbed`, for no reason that lasts; they do where sections
  /// are not restartable.
  [[nodiscard]] std::uint64_t take_quickly(unsigned lifetime);
  [[nodiscard]] Given give_quickly(std::uint64_t page);

  /// The lease of this processor, or null where it has none to give.
  struct alignas(64) Lease {
    per_cpu::Word chunk = 0;  // number + 1; 0: nothing is leased
    per_cpu::SlotLock lock;
    std::uint16_t slot = 0;
    std::atomic<std::uint32_t> hint = 0;  // a page of the chunk that is probably free
    // Written with no atomic instruction: a preemption in between may lose a count.
    std::atomic<std::uint64_t> allocations = 0;
    std::atomic<std::uint64_t> frees = 0;
    // Number + 1 of the chunk that this processor freed into last. Of the first lifetime only.
    std::atomic<std::uint64_t> freed_into = 0;
  };
  [[nodiscard]] Lease* current(unsigned lifetime);

  /// Counts what the caller did under the lock, or with free_page().
  void count_allocation();
  void count_free();
  /// The same for a page that was freed with free_page(), and notes its chunk as one that this
  /// processor frees into.
  void count_free_into(std::uint64_t c);
  [[nodiscard]] std::uint64_t allocations() const;
  [[nodiscard]] std::uint64_t frees() const;

  /// Whether another processor noted, since the last forget_freers(), that it frees into this chunk
  /// now: both would write the same lines of marks. Not exact.
  [[nodiscard]] bool is_freed_into(std::uint64_t c) const;
  /// Only who frees on is known again.
  void forget_freers();

  /// Leases a partial chunk that is in no bin. Pre: the lease holds nothing.
  void grant(Lease& lease, std::uint64_t c, unsigned lifetime);
  /// Ends a lease. When it returns, nobody changes the chunk any more without the lock. Returns the
  /// chunk, or none.
  [[nodiscard]] std::uint64_t revoke(Lease& lease);
  /// The same, without an interrupt where the caller is on the lease's processor.
  [[nodiscard]] std::uint64_t release(Lease& lease);
  /// Calls f(lease) for each.
  template <class F>
  void each(F f) {
    for (std::size_t i = 0; i < count_; ++i) f(leases_[i]);
  }
  [[nodiscard]] std::size_t metadata_bytes() const { return count_ * sizeof(Lease); }

 private:
  static void count_one(std::atomic<std::uint64_t>& counter) {
    counter.store(counter.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
  }

  [[nodiscard]] bool find_word(Lease& lease, std::uint64_t first) const;
  [[nodiscard]] std::uint64_t take(per_cpu::Place place, Lease& lease);
  [[nodiscard]] Given give(std::uint64_t page, per_cpu::Place place, Lease& lease);

  ChunkMap& map_;
  PageMarks* marks_;  // of map_, one load nearer
  unsigned slots_;
  std::size_t count_;
  std::unique_ptr<Lease[]> leases_;  // slot x lifetime
  // A bit for slots of that number modulo 64: whether freed_into is of now. On a line of its own,
  // since it is written where the members above are read.
  alignas(64) std::atomic<std::uint64_t> freers_ = 0;
};

inline PageLeases::Lease* PageLeases::current(unsigned lifetime) {
  const unsigned slot = per_cpu::current();
  return slot < slots_ ? &leases_[std::size_t{slot} * lifetimes + lifetime] : nullptr;
}

// The page that was freed last is the one to take, if it is still free: its number comes from the
// hint and not from the marks, so that the marks' last store need not have arrived before the
// caller can go on with it.
[[gnu::always_inline]] inline std::uint64_t PageLeases::take(per_cpu::Place place, Lease& lease) {
  const std::uint64_t leased = lease.chunk.load(std::memory_order_acquire);
  if (leased == 0) [[unlikely]]
    return none;
  std::uint64_t page = (leased - 1) * chunk_pages + lease.hint.load(std::memory_order_relaxed);
  PageMarks& marks = marks_[page >> 6];
  const std::uint64_t taken = marks.taken.load(std::memory_order_relaxed);
  const std::uint64_t used = taken ^ marks.given.load(std::memory_order_acquire);
  if ((used >> (page & 63) & 1) != 0) {
    if (used == ~std::uint64_t{0}) [[unlikely]]
      return none;
    page = (page & ~std::uint64_t{63}) | static_cast<std::uint64_t>(std::countr_one(used));
    lease.hint.store(page & (chunk_pages - 1), std::memory_order_relaxed);
  }
  if (!per_cpu::flip_if(place, lease.lock, lease.chunk, leased, marks.taken, taken, page))
      [[unlikely]]
    return none;
  count_one(lease.allocations);
  return page;
}

[[gnu::always_inline]] inline std::uint64_t PageLeases::take_quickly(unsigned lifetime) {
  const per_cpu::Place place = per_cpu::quick_here();
  if (place.area == nullptr || place.slot >= slots_) [[unlikely]]
    return none;
  return take(place, leases_[std::size_t{place.slot} * lifetimes + lifetime]);
}

[[gnu::always_inline]] inline PageLeases::Given PageLeases::give(std::uint64_t page,
                                                                 per_cpu::Place place,
                                                                 Lease& lease) {
  const std::uint64_t c = page >> chunk_order;
  if (lease.chunk.load(std::memory_order_acquire) != c + 1) return Given::not_leased;
  if (map_.is_clean(page)) [[unlikely]]
    return Given::disturbed;
  PageMarks& marks = marks_[page >> 6];
  const std::uint64_t taken = marks.taken.load(std::memory_order_relaxed);
  if (((taken ^ marks.given.load(std::memory_order_acquire)) >> (page & 63) & 1) == 0) [[unlikely]]
    return Given::not_allocated;
  if (!per_cpu::flip_if(place, lease.lock, lease.chunk, c + 1, marks.taken, taken, page))
      [[unlikely]]
    return Given::disturbed;
  const std::uint32_t hint = page & (chunk_pages - 1);
  if (lease.hint.load(std::memory_order_relaxed) != hint)
    lease.hint.store(hint, std::memory_order_relaxed);
  count_one(lease.frees);
  return Given::done;
}

[[gnu::always_inline]] inline PageLeases::Given PageLeases::give_quickly(std::uint64_t page) {
  const per_cpu::Place place = per_cpu::quick_here();
  if (place.area == nullptr || place.slot >= slots_) [[unlikely]]
    return Given::disturbed;
  return give(page, place, leases_[std::size_t{place.slot} * lifetimes]);
}

inline void PageLeases::count_free_into(std::uint64_t c) {
  const unsigned slot = per_cpu::current();
  Lease& own = leases_[slot < slots_ ? std::size_t{slot} * lifetimes : 0];
  count_one(own.frees);
  if (own.freed_into.load(std::memory_order_relaxed) != c + 1)
    own.freed_into.store(c + 1, std::memory_order_relaxed);
  const std::uint64_t bit = std::uint64_t{1} << (slot % 64);
  if ((freers_.load(std::memory_order_relaxed) & bit) == 0)
    freers_.fetch_or(bit, std::memory_order_relaxed);
}

}  // namespace accelmm::mm
