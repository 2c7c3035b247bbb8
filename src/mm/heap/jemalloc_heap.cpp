// SPDX-License-Identifier: Apache-2.0
//
// Theory. jemalloc asks its arena's hooks for extents of whole pages and gives them back, whole, in
// parts, or several together: which is what HeapChunks does. So the hooks are thin, chunks come and
// go as in Heap, and no extent reaches from one chunk into another, for merging is refused there.
#include "mm/heap/heap_chunks.hpp"
#include "mm/heap/jemalloc.hpp"

#include <accelmm/check.hpp>
#include <accelmm/jemalloc_heap.hpp>

#include <array>
#include <cstdio>
#include <cstring>
#include <new>
#include <utility>

// Not retained: extents come back to the chunks when they decay. One arena beside those of the
// heaps, for jemalloc's own use.
const char* accelmm_jemalloc_malloc_conf = "retain:false,narenas:1";

namespace accelmm {

namespace {

constexpr const char* in_child = "a forked child does not have the memory of this heap";

// What the source said when jemalloc last asked for an extent in this thread, and got none.
thread_local Error refusal{Errc::no_memory, nullptr};

// jemalloc gives each hook the address of the table of hooks.
struct Hooks : accelmm_jemalloc_hooks {
  mm::HeapChunks* chunks = nullptr;
};

mm::HeapChunks& chunks_of(accelmm_jemalloc_hooks* hooks) {
  return *static_cast<Hooks*>(hooks)->chunks;
}

Extent extent_of(const mm::HeapChunks& chunks, void* begin, std::size_t size) {
  return {.offset = RegionOffset(chunks.offset_of(begin)), .length = ByteCount(size)};
}

// NOLINTBEGIN(readability-function-size): the parameters are jemalloc's.
void* alloc(accelmm_jemalloc_hooks* hooks, void* wanted, std::size_t size, std::size_t alignment,
            bool* zero, bool* commit, unsigned /*arena*/) {
  mm::HeapChunks& chunks = chunks_of(hooks);
  if (wanted != nullptr || alignment > HeapSource::unit.value()) return nullptr;
  const auto extent = chunks.take(ByteCount(size), Alignment(alignment));
  if (!extent) {
    refusal = extent.error();
    return nullptr;
  }
  if (*zero) {
    const Extent dirty = chunks.dirty_part(*extent);
    if (dirty.length.value() != 0)
      std::memset(chunks.pointer(dirty.offset.value()), 0, dirty.length.value());
  }
  *commit = true;
  return chunks.pointer(extent->offset.value());
}

bool dalloc(accelmm_jemalloc_hooks* hooks, void* begin, std::size_t size, bool /*committed*/,
            unsigned /*arena*/) {
  mm::HeapChunks& chunks = chunks_of(hooks);
  chunks.give(extent_of(chunks, begin, size));
  return false;
}

void destroy(accelmm_jemalloc_hooks* hooks, void* begin, std::size_t size, bool committed,
             unsigned arena) {
  static_cast<void>(dalloc(hooks, begin, size, committed, arena));
}

// The memory is always there, and cannot be given up page by page.
bool always(accelmm_jemalloc_hooks* /*hooks*/, void* /*begin*/, std::size_t /*size*/,
            std::size_t /*offset*/, std::size_t /*length*/, unsigned /*arena*/) {
  return false;
}
bool never(accelmm_jemalloc_hooks* /*hooks*/, void* /*begin*/, std::size_t /*size*/,
           std::size_t /*offset*/, std::size_t /*length*/, unsigned /*arena*/) {
  return true;
}

bool split(accelmm_jemalloc_hooks* /*hooks*/, void* /*begin*/, std::size_t /*size*/,
           std::size_t /*first*/, std::size_t /*second*/, bool /*committed*/, unsigned /*arena*/) {
  return false;
}

bool merge(accelmm_jemalloc_hooks* hooks, void* first, std::size_t /*first_size*/, void* second,
           std::size_t /*second_size*/, bool /*committed*/, unsigned /*arena*/) {
  const mm::HeapChunks& chunks = chunks_of(hooks);
  return !chunks.same_chunk(chunks.offset_of(first), chunks.offset_of(second));
}
// NOLINTEND(readability-function-size)

constexpr accelmm_jemalloc_hooks our_hooks{.alloc = alloc,
                                           .dalloc = dalloc,
                                           .destroy = destroy,
                                           .commit = always,
                                           .decommit = never,
                                           .purge_lazy = never,
                                           .purge_forced = never,
                                           .split = split,
                                           .merge = merge};

}  // namespace

struct JemallocHeap::State {
  explicit State(std::unique_ptr<mm::HeapChunks> its_chunks)
      : chunks(std::move(its_chunks)), hooks{our_hooks, chunks.get()} {}
  ~State() {
    if (has_arena) tell_arena("destroy");
  }
  State(const State&) = delete;
  State& operator=(const State&) = delete;

  [[nodiscard]] Result<void> make_arena();
  // Does something to the arena by name.
  void tell_arena(const char* verb) const;
  [[nodiscard]] int flags() const {
    return mm::jemalloc_arena(arena) | mm::jemalloc_no_thread_cache;
  }
  // What jemalloc answers, asked once more after it gave up what it keeps.
  template <class F>
  [[nodiscard]] Result<HeapPiece> ask(F f) const;
  // Whether the pointer may be of this heap.
  [[nodiscard]] Result<void> check(const void* pointer) const;

  std::unique_ptr<mm::HeapChunks> chunks;
  Hooks hooks;
  unsigned arena = 0;
  bool has_arena = false;
};

Result<void> JemallocHeap::State::make_arena() {
  accelmm_jemalloc_arena config{.hooks = &hooks, .metadata_use_hooks = false};
  std::size_t size = sizeof arena;
  if (accelmm_jemalloc_mallctl("experimental.arenas_create_ext", &arena, &size, &config,
                               sizeof config) != 0)
    return fail(Errc::not_supported, "jemalloc makes no arena with hooks");
  has_arena = true;
  return {};
}

void JemallocHeap::State::tell_arena(const char* verb) const {
  std::array<char, 64> name;
  std::snprintf(name.data(), name.size(), "arena.%u.%s", arena, verb);
  const int error = accelmm_jemalloc_mallctl(name.data(), nullptr, nullptr, nullptr, 0);
  ACCELMM_CHECK(error == 0);
}

template <class F>
Result<HeapPiece> JemallocHeap::State::ask(F f) const {
  refusal = Error{Errc::no_memory, "jemalloc has no room"};
  void* pointer = f();
  if (pointer == nullptr) {
    tell_arena("purge");
    static_cast<void>(chunks->trim());
    pointer = f();
  }
  if (pointer == nullptr) return fail(refusal);
  return HeapPiece{.pointer = pointer,
                   .address = chunks->address(chunks->offset_of(pointer)),
                   .size = ByteCount(accelmm_jemalloc_sallocx(pointer, flags()))};
}

Result<void> JemallocHeap::State::check(const void* pointer) const {
  if (!chunks->present()) return fail(Errc::no_device, in_child);
  if (!chunks->contains(chunks->offset_of(pointer)))
    return fail(Errc::invalid_argument, "the pointer is in no chunk");
  return {};
}

JemallocHeap::JemallocHeap(std::unique_ptr<State> state) noexcept : state_(std::move(state)) {}
JemallocHeap::JemallocHeap(JemallocHeap&& other) noexcept = default;

JemallocHeap& JemallocHeap::operator=(JemallocHeap&& other) noexcept {
  if (this == &other) return *this;
  const JemallocHeap ended(std::move(state_));
  state_ = std::move(other.state_);
  return *this;
}

// As with Heap a child leaves its copy alone.
JemallocHeap::~JemallocHeap() {
  if (state_ != nullptr && !state_->chunks->present()) static_cast<void>(state_.release());
}

Result<JemallocHeap> JemallocHeap::create(const Options& options) try {
  auto chunks = mm::HeapChunks::create({.source = options.source,
                                        .chunk = options.chunk,
                                        .spare = options.spare_chunks,
                                        .watched = mm::Watched::no});
  if (!chunks) return fail(chunks.error());
  auto state = std::make_unique<State>(std::move(*chunks));
  if (const auto made = state->make_arena(); !made) return fail(made.error());
  return JemallocHeap(std::move(state));
} catch (const std::bad_alloc&) {
  return fail(Errc::no_memory, "no room for a heap's metadata");
}

Result<HeapPiece> JemallocHeap::allocate(ByteCount size, Alignment alignment, ZeroFill zero) {
  const State& state = *state_;
  if (!state.chunks->present()) return fail(Errc::no_device, in_child);
  if (size.value() == 0) return fail(Errc::invalid_argument, "piece of no bytes");
  if (alignment > HeapSource::unit)
    return fail(Errc::invalid_argument, "jemalloc's pieces are aligned to 2 MiB at most");
  const int flags = state.flags() | static_cast<int>(alignment.log2()) |
                    (zero == ZeroFill::yes ? mm::jemalloc_zero : 0);
  return state.ask([&] { return accelmm_jemalloc_mallocx(size.value(), flags); });
}

Result<void> JemallocHeap::free(void* pointer) {
  if (const auto ours = state_->check(pointer); !ours) return ours;
  accelmm_jemalloc_dallocx(pointer, state_->flags());
  return {};
}

Result<HeapPiece> JemallocHeap::reallocate(void* pointer, ByteCount size) {
  const State& state = *state_;
  if (const auto ours = state.check(pointer); !ours) return fail(ours.error());
  if (size.value() == 0) return fail(Errc::invalid_argument, "piece of no bytes");
  return state.ask([&] { return accelmm_jemalloc_rallocx(pointer, size.value(), state.flags()); });
}

Result<ByteCount> JemallocHeap::usable_size(const void* pointer) const {
  if (const auto ours = state_->check(pointer); !ours) return fail(ours.error());
  return ByteCount(accelmm_jemalloc_sallocx(pointer, state_->flags()));
}

void JemallocHeap::trim() {
  if (!state_->chunks->present()) return;
  state_->tell_arena("purge");
  static_cast<void>(state_->chunks->trim());
}

JemallocHeap::Statistics JemallocHeap::statistics() const {
  if (!state_->chunks->present()) return {};
  const auto chunks = state_->chunks->statistics();
  return {.chunks = chunks.chunks, .from_source = chunks.bytes, .free = chunks.free};
}

}  // namespace accelmm
