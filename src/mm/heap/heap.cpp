// SPDX-License-Identifier: Apache-2.0
#include "mm/heap/heap_state.hpp"

#include <accelmm/check.hpp>
#include <accelmm/heap.hpp>

#include <algorithm>
#include <cstring>
#include <new>
#include <utility>

namespace accelmm {

namespace {

constexpr const char* not_live = "no live piece begins there";
constexpr const char* in_child = "a forked child does not have the memory of this heap";
constexpr const char* no_bytes = "piece of no bytes";

// The finaliser of SplitMix64: canaries differ from heap to heap.
std::uint64_t mix(std::uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58'476d'1ce4'e5b9;
  x = (x ^ (x >> 27)) * 0x94d0'49bb'1331'11eb;
  return x ^ (x >> 31);
}

const char* flaw_of(const Heap::Options& options) {
  if (!mm::heap_page.divides(options.guard) || options.guard.value() > mm::heap_largest_range)
    return "guard of a heap is whole pages of 4 KiB";
  if (options.dedicated_from <= Slab::largest) return "a small piece cannot be a chunk of its own";
  return nullptr;
}

}  // namespace

Heap::State::State(const Options& given, std::unique_ptr<mm::HeapChunks> its_chunks,
                   Slab&& its_slab)
    : options(given),
      chunks(std::move(its_chunks)),
      large(chunks->size()),
      slab(std::move(its_slab)) {
  if (!large.exists()) throw std::bad_alloc();
  const mm::Watched watched = mm::somebody_watches() ? mm::Watched::yes : mm::Watched::no;
  if (options.canaries == Canaries::yes || options.scrub == Scrub::yes ||
      watched == mm::Watched::yes)
    watch.emplace(
        mm::PieceWatch::Options{
            .canaries = options.canaries, .scrub = options.scrub, .watched = watched},
        mix(reinterpret_cast<std::uintptr_t>(this)));
}

Heap::Heap(std::unique_ptr<State> state) noexcept : state_(std::move(state)) {}
Heap::Heap(Heap&& other) noexcept = default;

Heap& Heap::operator=(Heap&& other) noexcept {
  if (this == &other) return *this;
  const Heap ended(std::move(state_));
  state_ = std::move(other.state_);
  return *this;
}

// In a child another thread of the parent may hold a lock for ever, and there is nothing to give
// back: the child's copy of the metadata is left alone.
Heap::~Heap() {
  if (state_ != nullptr && !state_->chunks->present()) static_cast<void>(state_.release());
}

Result<Heap> Heap::create(const Options& options) try {
  if (const char* flaw = flaw_of(options); flaw != nullptr)
    return fail(Errc::invalid_argument, flaw);
  auto chunks = mm::HeapChunks::create(
      {.source = options.source,
       .chunk = options.chunk,
       .spare = options.spare_chunks,
       .watched = mm::somebody_watches() ? mm::Watched::yes : mm::Watched::no});
  if (!chunks) return fail(chunks.error());
  auto slab = Slab::create({.source = chunks->get(),
                            .region = (*chunks)->size(),
                            .spacing = options.spacing,
                            .order = options.order,
                            .quarantine = options.quarantine});
  if (!slab) return fail(slab.error());
  return Heap(std::make_unique<State>(options, std::move(*chunks), std::move(*slab)));
} catch (const std::bad_alloc&) {
  return fail(Errc::no_memory, "no room for a heap's metadata");
}

Result<HeapPiece> Heap::allocate(ByteCount size) {
  State& state = *state_;
  if (state.watch || size.value() - 1 >= Slab::largest.value() || !state.chunks->present())
      [[unlikely]]
    return state.allocate({.size = size});
  const auto object = state.slab.allocate(size);
  if (!object) [[unlikely]]
    return fail(object.error());
  return state.piece_at(object->offset.value(), object->length);
}

Result<HeapPiece> Heap::allocate(ByteCount size, Alignment alignment, ZeroFill zero) {
  return state_->allocate({.size = size, .alignment = alignment, .zero = zero});
}

Result<HeapPiece> Heap::State::allocate(const Request& request) {
  if (!chunks->present()) return fail(Errc::no_device, in_child);
  if (request.size.value() == 0) return fail(Errc::invalid_argument, no_bytes);
  if (watch) return allocate_watched(request);
  const auto extent = take(request.size, request.alignment);
  if (!extent) return fail(extent.error());
  if (request.zero == ZeroFill::yes) clear(*extent, request.size);
  return piece_at(extent->offset.value(), extent->length);
}

Result<HeapPiece> Heap::State::allocate_watched(const Request& request) {
  if (request.size.value() > mm::heap_largest_range)
    return fail(Errc::no_memory, "piece larger than any range");
  const auto extent = take(request.size + mm::PieceWatch::behind, request.alignment);
  if (!extent) return fail(extent.error());
  const HeapPiece piece = piece_at(extent->offset.value(), request.size);
  const auto noted = watch->enter({.pointer = static_cast<std::byte*>(piece.pointer),
                                   .requested = request.size,
                                   .granted = extent->length});
  if (!noted) {
    ACCELMM_CHECK(give(extent->offset.value()));
    return fail(noted.error());
  }
  if (request.zero == ZeroFill::yes) std::memset(piece.pointer, 0, request.size.value());
  return piece;
}

Result<Extent> Heap::State::take(ByteCount size, Alignment alignment) {
  const auto rounded = round_up(size, alignment);
  if (!rounded) return fail(Errc::no_memory, "piece larger than any range");
  // A class that holds a multiple of a power of two is one itself.
  if (*rounded <= Slab::largest) return slab.allocate(*rounded);
  return take_large(size, alignment);
}

Result<Extent> Heap::State::take_large(ByteCount size, Alignment alignment) {
  if (size.value() > mm::heap_largest_range)
    return fail(Errc::no_memory, "piece larger than any range");
  const ByteCount usable = *round_up(size, mm::heap_page);
  const ByteCount whole = usable + options.guard;
  const bool dedicated = whole >= options.dedicated_from || alignment > HeapSource::unit;
  auto extent = dedicated ? chunks->take_whole(whole, alignment) : chunks->take(whole, alignment);
  if (!extent && extent.error().code != Errc::fault) {
    // What the slabs hold back may serve, or make the source able to.
    slab.trim();
    chunks->trim();
    extent = dedicated ? chunks->take_whole(whole, alignment) : chunks->take(whole, alignment);
  }
  if (!extent) return extent;
  large.enter(*extent);
  large_pieces.fetch_add(1, std::memory_order_relaxed);
  large_bytes.fetch_add(whole.value(), std::memory_order_relaxed);
  return Extent{.offset = extent->offset, .length = usable};
}

// Makes the first bytes of a piece just taken read zero. Pages that are known to are left alone.
void Heap::State::clear(Extent extent, ByteCount size) const {
  if (extent.length > Slab::largest) {
    const Extent dirty = chunks->dirty_part(extent);
    if (dirty.length.value() == 0) return;
    std::memset(chunks->pointer(dirty.offset.value()), 0, dirty.length.value());
  } else {
    std::memset(chunks->pointer(extent.offset.value()), 0, size.value());
  }
}

Result<void> Heap::free(void* pointer) {
  State& state = *state_;
  if (state.watch || !state.chunks->present()) [[unlikely]]
    return state.free(pointer);
  const std::uint64_t offset = state.chunks->offset_of(pointer);
  if (state.slab.free(RegionOffset(offset))) [[likely]]
    return {};
  return state.give(offset);
}

Result<void> Heap::free(void* pointer, ByteCount size) {
  const auto usable = state_->usable_size(pointer);
  if (!usable) return fail(usable.error());
  if (size > *usable) return fail(Errc::invalid_argument, "the piece is not that large");
  return state_->free(pointer);
}

Result<void> Heap::State::free(void* pointer) {
  if (!chunks->present()) return fail(Errc::no_device, in_child);
  const std::uint64_t offset = chunks->offset_of(pointer);
  if (!watch) return give(offset);
  const auto left = watch->leave(static_cast<const std::byte*>(pointer));
  if (!left) return left;
  ACCELMM_CHECK(give(offset));
  return {};
}

Result<void> Heap::State::give(std::uint64_t offset) {
  if (slab.free(RegionOffset(offset))) return {};
  const ByteCount length = large.leave(offset);
  if (length.value() == 0) return fail(Errc::invalid_argument, not_live);
  const Extent extent{.offset = RegionOffset(offset), .length = length};
  large_pieces.fetch_sub(1, std::memory_order_relaxed);
  large_bytes.fetch_sub(length.value(), std::memory_order_relaxed);
  if (chunks->is_whole(offset))
    chunks->give_whole(extent);
  else
    chunks->give(extent);
  return {};
}

Result<ByteCount> Heap::State::granted(std::uint64_t offset) const {
  const ByteCount length = large.find(offset);
  if (length.value() != 0) return length - options.guard;
  if (const auto size = slab.usable_size(RegionOffset(offset))) return *size;
  return fail(Errc::invalid_argument, not_live);
}

Result<ByteCount> Heap::State::usable_size(const void* pointer) const {
  if (!chunks->present()) return fail(Errc::no_device, in_child);
  if (!watch) return granted(chunks->offset_of(pointer));
  const auto requested = watch->find(pointer);
  if (!requested) return fail(Errc::invalid_argument, not_live);
  return *requested;
}

Result<ByteCount> Heap::usable_size(const void* pointer) const {
  return state_->usable_size(pointer);
}

Result<HeapPiece> Heap::reallocate(void* pointer, ByteCount size) {
  State& state = *state_;
  const auto before = state.usable_size(pointer);
  if (!before) return fail(before.error());
  if (size.value() == 0) return fail(Errc::invalid_argument, no_bytes);
  const std::uint64_t offset = state.chunks->offset_of(pointer);
  if (!state.watch)
    if (const auto usable = state.resize(offset, size)) return state.piece_at(offset, *usable);
  auto moved = allocate(size);
  if (!moved) return moved;
  std::memcpy(moved->pointer, pointer, std::min(*before, size).value());
  if (const auto freed = state.free(pointer); !freed) {
    ACCELMM_CHECK(state.free(moved->pointer));
    return fail(freed.error());
  }
  return moved;
}

std::optional<ByteCount> Heap::State::resize(std::uint64_t offset, ByteCount size) {
  if (const ByteCount length = large.find(offset); length.value() != 0)
    return resize_large(offset, length, size);
  const auto usable = slab.usable_size(RegionOffset(offset));
  // What would waste half of it goes elsewhere.
  if (!usable || size > *usable || size.value() <= usable->value() / 2) return {};
  return *usable;
}

std::optional<ByteCount> Heap::State::resize_large(std::uint64_t offset, ByteCount before,
                                                   ByteCount size) {
  if (size <= Slab::largest || size.value() > mm::heap_largest_range) return {};
  const ByteCount after = *round_up(size, mm::heap_page) + options.guard;
  const bool dedicated = chunks->is_whole(offset);
  if (after == before) return after - options.guard;
  if (dedicated) {
    if (after > before || after.value() <= before.value() / 2) return {};
    return before - options.guard;
  }
  const RegionOffset begin(offset);
  if (after < before) {
    if (!large.change(offset, before, after)) return {};
    chunks->give({.offset = begin + after, .length = before - after});
    large_bytes.fetch_sub((before - after).value(), std::memory_order_relaxed);
    return after - options.guard;
  }
  const Extent following{.offset = begin + before, .length = after - before};
  if (!chunks->extend(following)) return {};
  if (!large.change(offset, before, after)) {
    chunks->give(following);
    return {};
  }
  large_bytes.fetch_add(following.length.value(), std::memory_order_relaxed);
  return after - options.guard;
}

}  // namespace accelmm
