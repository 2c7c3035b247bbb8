// SPDX-License-Identifier: Apache-2.0
#include "mm/page_leases.hpp"

#include <accelmm/check.hpp>

#include <bit>

namespace accelmm::mm {

PageLeases::PageLeases(ChunkMap& map)
    : map_(map),
      slots_(per_cpu::slots()),
      count_(std::size_t{slots_} * lifetimes),
      leases_(new Lease[count_]()) {
  for (std::size_t i = 0; i < count_; ++i)
    leases_[i].slot = static_cast<std::uint16_t>(i / lifetimes);
}

PageLeases::Lease* PageLeases::current(unsigned lifetime) {
  const unsigned slot = per_cpu::current();
  return slot < slots_ ? &leases_[std::size_t{slot} * lifetimes + lifetime] : nullptr;
}

std::uint64_t PageLeases::take(unsigned lifetime) {
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

// Points a lease at a word of its chunk that has a free page. Returns false if there is none.
bool PageLeases::find_word(Lease& lease, std::uint64_t first, unsigned hint) const {
  for (unsigned step = 1; step < chunk_words; ++step) {
    const unsigned w = (hint + step) % chunk_words;
    if (map_.free_word(first + w) == 0) continue;
    lease.word.store(w, std::memory_order_relaxed);
    return true;
  }
  return false;
}

PageLeases::Given PageLeases::give(std::uint64_t page) {
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

void PageLeases::count_allocation() {
  const unsigned slot = per_cpu::current();
  count_one(leases_[slot < slots_ ? std::size_t{slot} * lifetimes : 0].allocations);
}

void PageLeases::count_free() {
  const unsigned slot = per_cpu::current();
  count_one(leases_[slot < slots_ ? std::size_t{slot} * lifetimes : 0].frees);
}

std::uint64_t PageLeases::allocations() const {
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i < count_; ++i)
    sum += leases_[i].allocations.load(std::memory_order_relaxed);
  return sum;
}

std::uint64_t PageLeases::frees() const {
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i < count_; ++i) sum += leases_[i].frees.load(std::memory_order_relaxed);
  return sum;
}

void PageLeases::grant(Lease& lease, std::uint64_t c, unsigned lifetime) {
  ACCELMM_DCHECK(lease.chunk.load() == 0);
  ChunkMap::Chunk& chunk = map_.chunk(c);
  chunk.lifetime.store(static_cast<std::uint8_t>(lifetime), std::memory_order_relaxed);
  chunk.lease.store(static_cast<std::uint16_t>(lease.slot + 1U), std::memory_order_release);
  lease.word.store(0, std::memory_order_relaxed);
  lease.chunk.store(c + 1, std::memory_order_release);
}

std::uint64_t PageLeases::revoke(Lease& lease) {
  const std::uint64_t leased = lease.chunk.exchange(0, std::memory_order_seq_cst);
  if (leased == 0) return none;
  per_cpu::interrupt(lease.slot, lease.lock);
  map_.chunk(leased - 1).lease.store(0, std::memory_order_seq_cst);
  return leased - 1;
}

std::uint64_t PageLeases::release(Lease& lease) {
  const std::uint64_t leased = lease.chunk.load(std::memory_order_relaxed);
  if (leased == 0) return none;
  // What commits here leaves no section of this processor in progress: they were all preempted.
  if (!per_cpu::store_if(lease.slot, lease.lock, lease.chunk, leased, lease.chunk, leased, 0))
    return revoke(lease);
  map_.chunk(leased - 1).lease.store(0, std::memory_order_seq_cst);
  return leased - 1;
}

PageLeases::Lease& PageLeases::holder(std::uint64_t c) {
  const ChunkMap::Chunk& chunk = map_.chunk(c);
  return leases_[std::size_t{chunk.lease.load(std::memory_order_relaxed) - 1U} * lifetimes +
                 chunk.lifetime.load(std::memory_order_relaxed)];
}

}  // namespace accelmm::mm
