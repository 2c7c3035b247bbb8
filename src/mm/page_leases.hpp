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

  enum class Given { done, not_allocated, not_leased };
  /// Frees a page if this processor leases its chunk. `not_allocated`: the chunk is leased here, and
  /// the page is free.
  [[nodiscard]] Given give(std::uint64_t page);

  /// The lease of this processor, or null where it has none to give.
  struct alignas(64) Lease {
    per_cpu::Word chunk = 0;  // number + 1; 0: nothing is leased
    per_cpu::SlotLock lock;
    std::uint16_t slot = 0;
    std::atomic<std::uint32_t> word = 0;  // of the chunk: where to look first
    // Written with no atomic instruction: a preemption in between may lose a count.
    std::atomic<std::uint64_t> allocations = 0;
    std::atomic<std::uint64_t> frees = 0;
  };
  [[nodiscard]] Lease* current(unsigned lifetime);

  /// Counts what the caller did under the lock, or with free_page().
  void count_allocation();
  void count_free();
  [[nodiscard]] std::uint64_t allocations() const;
  [[nodiscard]] std::uint64_t frees() const;

  /// Leases a partial chunk that is in no bin. Pre: the lease holds nothing.
  void grant(Lease& lease, std::uint64_t c, unsigned lifetime);
  /// Ends a lease. When it returns, nobody changes the chunk any more without the lock. Returns the
  /// chunk, or none.
  [[nodiscard]] std::uint64_t revoke(Lease& lease);
  /// The same, without an interrupt where the caller is on the lease's processor.
  [[nodiscard]] std::uint64_t release(Lease& lease);
  /// The lease that holds a chunk. Pre: the chunk is leased.
  [[nodiscard]] Lease& holder(std::uint64_t c);
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

  [[nodiscard]] bool find_word(Lease& lease, std::uint64_t first, unsigned hint) const;

  ChunkMap& map_;
  unsigned slots_;
  std::size_t count_;
  std::unique_ptr<Lease[]> leases_;  // slot x lifetime
};

inline PageLeases::Lease* PageLeases::current(unsigned lifetime) {
  const unsigned slot = per_cpu::current();
  return slot < slots_ ? &leases_[std::size_t{slot} * lifetimes + lifetime] : nullptr;
}

// In the caller: a call more would be a tenth of what taking a page costs.
[[gnu::always_inline]] inline std::uint64_t PageLeases::take(unsigned lifetime) {
  while (true) {
    Lease* const lease = current(lifetime);
    if (lease == nullptr) return none;
    const std::uint64_t leased = lease->chunk.load(std::memory_order_acquire);
    if (leased == 0) return none;
    const std::uint64_t first = (leased - 1) * chunk_words;
    const unsigned hint = lease->word.load(std::memory_order_relaxed);
    const std::uint64_t w = first + hint;
    per_cpu::Word& word = map_.taken(w);
    const std::uint64_t taken = word.load(std::memory_order_relaxed);
    const std::uint64_t free = ~(taken ^ map_.given(w).load(std::memory_order_acquire));
    if (free == 0) [[unlikely]] {
      if (!find_word(*lease, first, hint)) return none;
      continue;
    }
    const std::uint64_t bit = free & (~free + 1);
    if (!per_cpu::store_if(lease->slot, lease->lock, lease->chunk, leased, word, taken,
                           taken ^ bit)) [[unlikely]]
      continue;
    count_one(lease->allocations);
    return w * 64 + static_cast<std::uint64_t>(std::countr_zero(bit));
  }
}

[[gnu::always_inline]] inline PageLeases::Given PageLeases::give(std::uint64_t page) {
  const std::uint64_t c = page >> chunk_order;
  const ChunkMap::Chunk& chunk = map_.chunk(c);
  const std::uint64_t bit = std::uint64_t{1} << (page & 63);
  while (true) {
    const unsigned leaser = chunk.lease.load(std::memory_order_acquire);
    if (leaser == 0 || leaser != per_cpu::current() + 1) return Given::not_leased;
    Lease& lease = leases_[std::size_t{leaser - 1} * lifetimes +
                           chunk.lifetime.load(std::memory_order_relaxed)];
    if (lease.chunk.load(std::memory_order_acquire) != c + 1) return Given::not_leased;
    per_cpu::Word& word = map_.taken(page >> 6);
    const std::uint64_t taken = word.load(std::memory_order_relaxed);
    if (((taken ^ map_.given(page >> 6).load(std::memory_order_acquire)) & bit) == 0)
      return Given::not_allocated;
    map_.soil_page(page);
    if (!per_cpu::store_if(leaser - 1, lease.lock, lease.chunk, c + 1, word, taken, taken ^ bit))
      continue;
    count_one(lease.frees);
    return Given::done;
  }
}

}  // namespace accelmm::mm
