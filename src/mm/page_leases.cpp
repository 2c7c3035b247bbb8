// SPDX-License-Identifier: Apache-2.0
#include "mm/page_leases.hpp"

#include <accelmm/check.hpp>

namespace accelmm::mm {

PageLeases::PageLeases(ChunkMap& map)
    : map_(map),
      marks_(map.marks()),
      slots_(per_cpu::slots()),
      count_(std::size_t{slots_} * lifetimes),
      leases_(new Lease[count_]()) {
  for (std::size_t i = 0; i < count_; ++i)
    leases_[i].slot = static_cast<std::uint16_t>(i / lifetimes);
}

// Points a lease at a word of its chunk that has a free page. Returns false if there is none, or
// none ahead and another processor frees into the chunk: who would turn back there would follow it.
bool PageLeases::find_word(Lease& lease, std::uint64_t first) const {
  const unsigned start = lease.hint.load(std::memory_order_relaxed) / 64;
  for (unsigned step = 0; step < chunk_words; ++step) {
    const unsigned w = (start + step) % chunk_words;
    if (w == 0 && step != 0 && is_freed_into(first / chunk_words)) return false;
    if (map_.free_word(first + w) == 0) continue;
    lease.hint.store(w * 64, std::memory_order_relaxed);
    return true;
  }
  return false;
}

std::uint64_t PageLeases::take(unsigned lifetime) {
  while (true) {
    const per_cpu::Place place = per_cpu::here();
    if (place.slot >= slots_) return none;
    Lease& lease = leases_[std::size_t{place.slot} * lifetimes + lifetime];
    const std::uint64_t page = take(place, lease);
    if (page != none) return page;
    const std::uint64_t leased = lease.chunk.load(std::memory_order_acquire);
    if (leased == 0 || !find_word(lease, (leased - 1) * chunk_words)) return none;
  }
}

PageLeases::Given PageLeases::give(std::uint64_t page) {
  const ChunkMap::Chunk& chunk = map_.chunk(page >> chunk_order);
  while (true) {
    const unsigned leaser = chunk.lease.load(std::memory_order_acquire);
    const per_cpu::Place place = per_cpu::here();
    if (leaser == 0 || leaser != place.slot + 1) return Given::not_leased;
    Lease& lease = leases_[std::size_t{place.slot} * lifetimes +
                           chunk.lifetime.load(std::memory_order_relaxed)];
    const Given given = give(page, place, lease);
    if (given != Given::disturbed) return given;
    map_.soil_page(page);
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

bool PageLeases::is_freed_into(std::uint64_t c) const {
  const unsigned own = per_cpu::current();
  for (std::uint64_t bits = freers_.load(std::memory_order_relaxed); bits != 0; bits &= bits - 1)
    for (auto slot = static_cast<unsigned>(std::countr_zero(bits)); slot < slots_; slot += 64)
      if (slot != own && leases_[std::size_t{slot} * lifetimes].freed_into.load(
                             std::memory_order_relaxed) == c + 1)
        return true;
  return false;
}

void PageLeases::forget_freers() {
  if (freers_.load(std::memory_order_relaxed) != 0) freers_.store(0, std::memory_order_relaxed);
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
  lease.hint.store(0, std::memory_order_relaxed);
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

}  // namespace accelmm::mm
