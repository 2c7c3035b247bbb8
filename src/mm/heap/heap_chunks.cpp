// SPDX-License-Identifier: Apache-2.0
#include "mm/heap/heap_chunks.hpp"

#include <accelmm/check.hpp>

#include <algorithm>
#include <new>
#include <utility>

namespace accelmm::mm {

namespace {

constexpr Alignment unit = HeapSource::unit;
constexpr std::atomic<std::uint64_t> always = 1;

constexpr std::uint64_t pages_of(ByteCount size) {
  return size.value() >> heap_page.log2();
}

// A caller that takes what another's chunk brought lets that one ask again: not for ever.
constexpr int most_attempts = 64;

}  // namespace

HeapChunks::HeapChunks(const Options& options, const HeapRange& range, PageAllocator&& pages)
    : options_(options),
      range_(range),
      present_(range.present == nullptr ? &always : range.present),
      pages_(std::move(pages)),
      units_(static_cast<Unit*>(std::calloc(unit_count(), sizeof(Unit)))) {
  if (units_ == nullptr) throw std::bad_alloc();
}

Result<std::unique_ptr<HeapChunks>> HeapChunks::create(const Options& options) try {
  if (options.source == nullptr) return fail(Errc::invalid_argument, "heap without a source");
  HeapRange range = options.source->range();
  range.size = ByteCount(range.size.value() & ~(heap_page.value() - 1));
  if (range.size.value() == 0 || range.size.value() > heap_largest_range ||
      !unit.divides(reinterpret_cast<std::uintptr_t>(range.base)))
    return fail(Errc::invalid_argument, "range of a heap is aligned to 2 MiB and 2^44 bytes long");
  if (options.chunk.value() == 0 || !unit.divides(options.chunk))
    return fail(Errc::invalid_argument, "chunks of a heap are multiples of 2 MiB");
  auto pages = PageAllocator::create({.size = range.size, .page = ByteCount(heap_page.value())});
  if (!pages) return fail(pages.error());
  // Until chunks come there is nothing to have.
  ACCELMM_CHECK(pages->reserve({.offset = RegionOffset(), .length = range.size}));
  return std::unique_ptr<HeapChunks>(new HeapChunks(options, range, std::move(*pages)));
} catch (const std::bad_alloc&) {
  return fail(Errc::no_memory, "no room for a heap's metadata");
}

HeapChunks::~HeapChunks() {
  for (const auto& chunk : chunks_) {
    if (chunk->use == Use::none) continue;
    if (options_.watched == Watched::yes) open_memory(chunk->memory.pointer, chunk->memory.size);
    options_.source->give_back(chunk->memory);
  }
}

void HeapChunks::count(Extent extent) {
  Chunk& chunk = *chunk_at(extent.offset.value());
  if (chunk.taken.fetch_add(pages_of(extent.length)) == 0) empty_.fetch_sub(1);
}

Result<Extent> HeapChunks::take(ByteCount size, Alignment alignment) {
  ACCELMM_DCHECK(alignment <= unit && heap_page.divides(size));
  for (int attempt = 0; attempt < most_attempts; ++attempt) {
    const auto extent = pages_.allocate(size, alignment);
    if (extent) {
      count(*extent);
      return *extent;
    }
    const auto grown = grow_by(size, alignment, Use::pooled);
    if (!grown) return fail(grown.error());
  }
  return fail(Errc::no_memory, "others took what the source gave");
}

// The pages are counted down before they are free, and the count is looked at after: of all who
// empty a chunk the last sees it empty. The chunk may have gone by then, and its record serve
// another; claim_empty() looks.
void HeapChunks::give(Extent extent) {
  Chunk& chunk = *chunk_at(extent.offset.value());
  const std::uint64_t pages = pages_of(extent.length);
  if (chunk.taken.fetch_sub(pages) == pages) empty_.fetch_add(1);
  ACCELMM_CHECK(pages_.free(extent));
  if (chunk.taken.load() == 0 && empty_.load() > options_.spare) release_spare(chunk);
}

bool HeapChunks::extend(Extent following) {
  const std::uint64_t before = following.offset.value() - 1;
  const Chunk& chunk = *chunk_at(before);
  if (following.length > chunk.extent.end() - following.offset) return false;
  if (!pages_.reserve(following)) return false;
  count(following);
  return true;
}

Result<Extent> HeapChunks::take_whole(ByteCount size, Alignment alignment) {
  if (alignment <= unit)
    if (const auto extent = pages_.allocate(size, alignment)) {
      count(*extent);
      return *extent;
    }
  const auto chunk = grow_by(size, alignment, Use::dedicated);
  if (!chunk) return fail(chunk.error());
  if (*chunk == nullptr) return take(size, alignment);
  const auto skip = aligned_place((*chunk)->memory, size, alignment);
  return Extent{.offset = (*chunk)->extent.offset + ByteCount(*skip), .length = size};
}

void HeapChunks::give_whole(Extent extent) {
  Chunk& chunk = *chunk_at(extent.offset.value());
  ACCELMM_CHECK(chunk.use == Use::dedicated);
  {
    const MutexLock lock(mutex_);
    leave(chunk);
  }
  retire(chunk);
}

const char* HeapChunks::flaw_of(const HeapChunk& chunk, ByteCount size, Alignment alignment) const {
  const std::uint64_t offset = offset_of(chunk.pointer);
  if (offset > range_.size.value() || chunk.size.value() > range_.size.value() - offset)
    return "source gave a chunk outside its range";
  if (!heap_page.divides(offset) || !heap_page.divides(chunk.size))
    return "source gave a chunk that is not whole pages";
  if (!aligned_place(chunk, size, alignment)) return "source gave a chunk without the room";
  const auto pointer = reinterpret_cast<std::uintptr_t>(chunk.pointer);
  if (chunk.address && !std::max(alignment, unit).divides(chunk.address->value() - pointer))
    return "source gave a chunk whose device address is not congruent";
  if (chunk.address && !make_range(*chunk.address, chunk.size))
    return "source gave a chunk beyond all device addresses";
  return nullptr;
}

// Null where the chunk is pooled: it may be gone again.
Result<HeapChunks::Chunk*> HeapChunks::grow_by(ByteCount size, Alignment alignment, Use use) {
  ByteCount wanted = size;
  if (use == Use::pooled) {
    const auto rounded = round_up(std::max(size, options_.chunk), unit);
    if (!rounded) return fail(rounded.error());
    wanted = *rounded;
  }
  const auto memory = options_.source->grow(wanted, std::max(alignment, unit));
  // A source that has one chunk has no more than that.
  const auto smaller = !memory && wanted != size ? options_.source->grow(size, alignment) : memory;
  if (!smaller) return fail(memory.error());
  if (const char* flaw = flaw_of(*smaller, size, alignment); flaw != nullptr) {
    options_.source->give_back(*smaller);
    return fail(Errc::fault, flaw);
  }
  // One that has room for others, all that there is perhaps, is for all.
  if (smaller->size - size >= ByteCount(unit.value()) && alignment <= unit) use = Use::pooled;
  const auto chunk = enter(*smaller, use);
  if (!chunk) {
    options_.source->give_back(*smaller);
    return chunk;
  }
  if (use == Use::dedicated) return chunk;
  ACCELMM_CHECK(pages_.free((*chunk)->extent, (*chunk)->memory.contents));
  return nullptr;
}

// Whether a chunk touches the extent or shares a unit with it.
bool HeapChunks::has_neighbour(Extent extent) const {
  const std::uint64_t first = extent.offset.value() >> heap_unit_log2;
  const std::uint64_t last = (extent.end().value() - 1) >> heap_unit_log2;
  for (std::uint64_t at = first; at <= last; ++at)
    if (units_[at].chunk.load() != nullptr) return true;
  if (first > 0) {
    const Chunk* before = units_[first - 1].chunk.load();
    if (before != nullptr && before->extent.end() == extent.offset) return true;
  }
  if (last + 1 < unit_count()) {
    const Chunk* after = units_[last + 1].chunk.load();
    if (after != nullptr && after->extent.offset == extent.end()) return true;
  }
  return false;
}

Result<void> HeapChunks::make_record() try {
  if (unused_ != nullptr) return {};
  chunks_.reserve(chunks_.size() + 1);
  chunks_.push_back(std::make_unique<Chunk>());
  unused_ = chunks_.back().get();
  return {};
} catch (const std::bad_alloc&) {
  return fail(Errc::no_memory, "no room to note a chunk");
}

// All units of a chunk's device addresses, or none of them.
Result<void> HeapChunks::note_addresses(const HeapChunk& memory, Extent extent) {
  if (!memory.address) return {};
  const std::uint64_t shift = memory.address->value() - extent.offset.value();
  const std::uint64_t first = extent.offset.value() & ~(unit.value() - 1);
  std::uint64_t at = first;
  bool taken = false;
  try {
    for (; at < extent.end().value() && !taken; at += unit.value())
      taken = !by_address_.emplace((at + shift) >> heap_unit_log2, at).second;
    if (!taken) return {};
    at -= unit.value();
  } catch (const std::bad_alloc&) {
    taken = false;  // what was noted so far is taken back below
  }
  for (; at > first; at -= unit.value())
    by_address_.erase((at - unit.value() + shift) >> heap_unit_log2);
  if (taken) return fail(Errc::fault, "source gave one device address twice");
  return fail(Errc::no_memory, "no room to note a chunk's device addresses");
}

Result<HeapChunks::Chunk*> HeapChunks::enter(const HeapChunk& memory, Use use) {
  const Extent extent{.offset = RegionOffset(offset_of(memory.pointer)), .length = memory.size};
  const std::uint64_t first = extent.offset.value() >> heap_unit_log2;
  const std::uint64_t last = (extent.end().value() - 1) >> heap_unit_log2;
  const MutexLock lock(mutex_);
  if (has_neighbour(extent)) return fail(Errc::fault, "source gave chunks that touch");
  if (any_chunk_yet_ && memory.address.has_value() != has_addresses_.load())
    return fail(Errc::fault, "source gave chunks with and without device addresses");
  if (const auto made = make_record(); !made) return fail(made.error());
  if (const auto noted = note_addresses(memory, extent); !noted) return fail(noted.error());
  Chunk& chunk = *std::exchange(unused_, unused_->next);
  chunk.memory = memory;
  chunk.extent = extent;
  chunk.taken = 0;
  chunk.use = use;
  if (options_.watched == Watched::yes) close_memory(memory.pointer, memory.size);
  for (std::uint64_t at = first; at <= last; ++at) {
    if (memory.address) units_[at].shift = memory.address->value() - extent.offset.value();
    units_[at].chunk.store(&chunk, std::memory_order_release);
  }
  any_chunk_yet_ = true;
  has_addresses_ = memory.address.has_value();
  if (use == Use::pooled) empty_.fetch_add(1);
  return &chunk;
}

// Takes a chunk out of the tables. Its pages are nobody's.
void HeapChunks::leave(Chunk& chunk) {
  const std::uint64_t first = chunk.extent.offset.value() >> heap_unit_log2;
  const std::uint64_t last = (chunk.extent.end().value() - 1) >> heap_unit_log2;
  for (std::uint64_t at = first; at <= last; ++at) {
    if (chunk.memory.address) {
      const std::uint64_t address = (at << heap_unit_log2) + units_[at].shift.load();
      by_address_.erase(address >> heap_unit_log2);
    }
    units_[at].chunk = nullptr;
  }
  if (options_.watched == Watched::yes) open_memory(chunk.memory.pointer, chunk.memory.size);
}

// Gives the memory of a chunk that left back, and its record.
void HeapChunks::retire(Chunk& chunk) {
  options_.source->give_back(chunk.memory);
  const MutexLock lock(mutex_);
  chunk.use = Use::none;
  chunk.next = std::exchange(unused_, &chunk);
}

// Takes all pages of a chunk out if all are free, and then the chunk.
bool HeapChunks::claim_empty(Chunk& chunk) {
  if (chunk.use != Use::pooled || chunk.taken != 0 ||
      chunk_at(chunk.extent.offset.value()) != &chunk)
    return false;
  if (!pages_.reserve(chunk.extent)) return false;
  empty_.fetch_sub(1);
  leave(chunk);
  return true;
}

void HeapChunks::release_spare(Chunk& chunk) {
  {
    const MutexLock lock(mutex_);
    if (empty_.load() <= options_.spare || !claim_empty(chunk)) return;
  }
  retire(chunk);
}

ByteCount HeapChunks::trim() {
  ByteCount bytes;
  Chunk* first = nullptr;
  {
    const MutexLock lock(mutex_);
    for (const auto& chunk : chunks_)
      if (claim_empty(*chunk)) {
        bytes += chunk->memory.size;
        chunk->next = std::exchange(first, chunk.get());
      }
  }
  while (first != nullptr) retire(*std::exchange(first, first->next));
  return bytes;
}

bool HeapChunks::contains(std::uint64_t offset) const {
  if (offset >= range_.size.value()) return false;
  const MutexLock lock(mutex_);
  const Chunk* chunk = chunk_at(offset);
  return chunk != nullptr && RegionOffset(offset) >= chunk->extent.offset &&
         RegionOffset(offset) < chunk->extent.end();
}

Result<std::uint64_t> HeapChunks::offset_at(DeviceAddr address) const {
  std::optional<std::uint64_t> offset;
  {
    const MutexLock lock(mutex_);
    const auto found = by_address_.find(address.value() >> heap_unit_log2);
    if (found != by_address_.end()) offset = found->second + (address.value() & (unit.value() - 1));
  }
  if (!offset || !contains(*offset))
    return fail(Errc::invalid_argument, "no chunk has that device address");
  return *offset;
}

Extent HeapChunks::dirty_part(Extent extent) const {
  const Chunk& chunk = *chunk_at(extent.offset.value());
  if (chunk.use == Use::dedicated)
    return {.offset = extent.offset,
            .length = chunk.memory.contents == Contents::zeros ? ByteCount() : extent.length};
  const auto dirty = pages_.first_dirty(extent);
  ACCELMM_CHECK(dirty);
  // What follows the first part may be clean in places, and is cleared all the same.
  if (dirty->length.value() == 0) return *dirty;
  return {.offset = dirty->offset, .length = extent.end() - dirty->offset};
}

HeapChunks::Statistics HeapChunks::statistics() const {
  Statistics all;
  const auto pages = pages_.statistics();
  const MutexLock lock(mutex_);
  for (const auto& chunk : chunks_) {
    if (chunk->use == Use::none) continue;
    ++all.chunks;
    if (chunk->use == Use::dedicated) ++all.dedicated;
    all.bytes += chunk->memory.size;
  }
  all.free = pages.free;
  all.metadata = pages.metadata + ByteCount(sizeof(*this) + unit_count() * sizeof(Unit) +
                                            chunks_.size() * sizeof(Chunk));
  return all;
}

ByteCount HeapChunks::taken_bytes() const {
  const MutexLock lock(mutex_);
  std::uint64_t pages = 0;
  for (const auto& chunk : chunks_)
    if (chunk->use == Use::pooled) pages += chunk->taken;
  return ByteCount(pages << heap_page.log2());
}

void HeapChunks::validate() const {
  pages_.validate();
  const ByteCount free = pages_.statistics().free;
  const MutexLock lock(mutex_);
  std::uint64_t should_be_free = 0;
  std::uint64_t units_used = 0;
  std::int64_t empty = 0;
  for (const auto& chunk : chunks_) {
    if (chunk->use == Use::none) continue;
    const std::uint64_t first = chunk->extent.offset.value() >> heap_unit_log2;
    const std::uint64_t last = (chunk->extent.end().value() - 1) >> heap_unit_log2;
    for (std::uint64_t at = first; at <= last; ++at) ACCELMM_CHECK(units_[at].chunk == chunk.get());
    units_used += last - first + 1;
    if (chunk->use == Use::dedicated) continue;
    ACCELMM_CHECK(chunk->taken <= pages_of(chunk->extent.length));
    should_be_free += pages_of(chunk->extent.length) - chunk->taken;
    if (chunk->taken == 0) ++empty;
  }
  ACCELMM_CHECK(pages_of(free) == should_be_free);
  ACCELMM_CHECK(empty_ == empty);
  ACCELMM_CHECK(by_address_.size() == (has_addresses_ ? units_used : 0));
}

}  // namespace accelmm::mm
