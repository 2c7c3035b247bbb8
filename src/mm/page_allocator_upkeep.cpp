// SPDX-License-Identifier: Apache-2.0
//
// What is done to a page allocator besides taking and freeing.
#include "mm/chunk_survey.hpp"
#include "mm/page_allocator_state.hpp"

#include <new>

namespace accelmm {

using mm::ChunkMap;
using mm::PageRun;

Result<void> PageAllocator::reserve(Extent extent) {
  State& state = *state_;
  if (const char* flaw = state.flaw_of(extent)) return fail(Errc::invalid_argument, flaw);
  const PageRun run = state.run_of(extent);
  const MutexLock held(state.lock);
  state.space.gather();
  if (!state.space.all_free(run))
    return fail(Errc::address_in_use, "a page of the extent is allocated");
  state.space.take_run(run, static_cast<unsigned>(Lifetime::pinned));
  ++state.allocations;
  return {};
}

Result<void> PageAllocator::poison(Extent extent) {
  State& state = *state_;
  if (const char* flaw = state.flaw_of(extent)) return fail(Errc::invalid_argument, flaw);
  const PageRun run = state.run_of(extent);
  const MutexLock held(state.lock);
  try {
    state.poisoned.reserve(run);
  } catch (const std::bad_alloc&) {
    return fail(Errc::no_memory, "no room to note bad pages");
  }
  state.quick_pages.store(0, std::memory_order_seq_cst);
  state.space.gather();
  for (std::uint64_t page = run.begin; page < run.end; ++page) {
    if (state.poisoned.contains(page)) continue;
    const bool in_use = !state.space.all_free({page, page + 1});
    if (!in_use) state.space.take_run({page, page + 1}, static_cast<unsigned>(Lifetime::pinned));
    state.poisoned.add({page, in_use});
  }
  return {};
}

Result<Extent> PageAllocator::first_dirty(Extent extent) const {
  const State& state = *state_;
  if (const char* flaw = state.flaw_of(extent)) return fail(Errc::invalid_argument, flaw);
  const ChunkMap& map = state.space.map();
  PageRun run = state.run_of(extent);
  while (!run.empty() && map.is_zero(run.begin)) ++run.begin;
  std::uint64_t end = run.begin;
  while (end < run.end && !map.is_zero(end)) ++end;
  return state.extent({run.begin, end});
}

PageAllocator::Statistics PageAllocator::statistics() const {
  const State& state = *state_;
  const MutexLock held(state.lock);
  return {.total = state.bytes(state.pages),
          .free = state.bytes(state.space.free_pages()),
          .largest_free = state.bytes(state.space.longest_run()),
          .whole_chunks = state.bytes(state.space.whole_chunk_pages()),
          .metadata = ByteCount(state.space.metadata_bytes() + sizeof(State)),
          .poisoned = state.bytes(state.poisoned.count()),
          .allocations = state.space.leases().allocations() + state.allocations,
          .frees = state.space.leases().frees() + state.frees};
}

Fragmentation PageAllocator::fragmentation() const {
  const State& state = *state_;
  const MutexLock held(state.lock);
  return mm::survey(state.space.map(), ByteCount(state.unit.bytes()));
}

std::uint64_t PageAllocator::recount() {
  const MutexLock held(state_->lock);
  return state_->space.recount();
}

void PageAllocator::validate() const {
  const MutexLock held(state_->lock);
  state_->space.validate();
}

}  // namespace accelmm
