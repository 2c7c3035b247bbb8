// SPDX-License-Identifier: Apache-2.0
#include "base/clock.hpp"
#include "base/fork_mark.hpp"
#include "base/mutex.hpp"
#include "base/received_file.hpp"
#include "base/reserved_range.hpp"
#include "client/buffer_calls.hpp"
#include "client/link.hpp"

#include <accelmm/check.hpp>
#include <accelmm/client_heap.hpp>
#include <accelmm/page_allocator.hpp>

#include <algorithm>
#include <new>
#include <optional>
#include <unordered_map>
#include <utility>

namespace accelmm {

namespace {

constexpr Alignment unit = HeapSource::unit;
// Between two chunks nothing is mapped: they must not touch, and a pointer that runs out of one
// faults.
constexpr ByteCount gap(unit.value());
// How long a device may take to forget a mapping before nobody waits for it any more: many times
// what an invalidation takes, and little enough for a program that ends.
constexpr std::uint64_t patience_ns = 1'000'000'000;

}  // namespace

struct ClientHeapSource::State {
  // What a chunk holds of the driver process's and of our addresses, as far as it came.
  struct Held {
    std::optional<std::uint64_t> handle;
    std::optional<DeviceAddr> address;
    std::optional<Extent> place;  // with the gap
    Extent placed;                // what of it is mapped
  };
  // A piece of a buffer where it is aligned.
  struct Part {
    BufferRange range;
    std::optional<DeviceAddr> address;
  };

  State(std::shared_ptr<ClientLink> its_link, const Options& given, AllocationRequest how,
        ReservedRange&& its_range, PageAllocator&& its_places, ForkMark&& its_mark)
      : link(std::move(its_link)),
        options(given),
        request(how),
        range(std::move(its_range)),
        places(std::move(its_places)),
        mark(std::move(its_mark)) {}

  [[nodiscard]] Access cpu_access() const {
    return options.buffer.cpu == CpuVisibility::read_only ? Access::read : Access::read_write;
  }
  // What a chunk must hold at which alignment, and how much more the buffer is to have.
  struct Wish {
    ByteCount size;
    Alignment alignment;
    ByteCount spare = {};
  };
  [[nodiscard]] Result<HeapChunk> make(Held& held, const Wish& wish);
  [[nodiscard]] Result<Part> make_buffer(Held& held, const Wish& wish);
  [[nodiscard]] Result<void> place(Held& held, const Part& part, Alignment alignment);
  void undo(Held& held) noexcept;

  const std::shared_ptr<ClientLink> link;
  const Options options;
  const AllocationRequest request;  // but for the size
  ReservedRange range;
  PageAllocator places;
  ForkMark mark;
  Mutex mutex;
  std::unordered_map<const std::byte*, Held> chunks ACCELMM_GUARDED_BY(mutex);
};

ClientHeapSource::ClientHeapSource(std::unique_ptr<State> state) noexcept
    : state_(std::move(state)) {}

// As with the heap a child leaves its copy alone: a lock may be held for ever.
ClientHeapSource::~ClientHeapSource() {
  if (state_->mark.in_forked_child()) {
    static_cast<void>(state_.release());
    return;
  }
  const MutexLock lock(state_->mutex);
  for (auto& [pointer, held] : state_->chunks) state_->undo(held);
}

Result<std::unique_ptr<ClientHeapSource>> ClientHeapSource::create(const Client& client,
                                                                   const Options& options) try {
  if (client.link_ == nullptr) return fail(Errc::invalid_argument, "client was moved from");
  if (!is_valid(options.access)) return fail(Errc::invalid_argument, "no such access");
  if (options.range.value() < unit.value() || options.range.value() > std::uint64_t{1} << 44)
    return fail(Errc::invalid_argument, "addresses of a heap are 2 MiB to 16 TiB");
  const auto request = make_request(ByteCount(), options.buffer);
  if (!request) return fail(request.error());
  const ByteCount size(options.range.value() & ~(unit.value() - 1));
  auto range = ReservedRange::create(size, unit);
  if (!range) return fail(range.error());
  // The last chunk has its gap outside.
  auto places = PageAllocator::create({.size = size + gap, .page = ByteCount(unit.value())});
  if (!places) return fail(places.error());
  auto mark = ForkMark::create();
  if (!mark) return fail(mark.error());
  return std::unique_ptr<ClientHeapSource>(new ClientHeapSource(std::make_unique<State>(
      client.link_, options, *request, std::move(*range), std::move(*places), std::move(*mark))));
} catch (const std::bad_alloc&) {
  return fail(Errc::no_memory, "no memory for a heap's source");
}

HeapRange ClientHeapSource::range() const noexcept {
  return {
      .base = state_->range.base(), .size = state_->range.size(), .present = &state_->mark.word()};
}

Result<HeapChunk> ClientHeapSource::grow(ByteCount size, Alignment alignment) {
  State& state = *state_;
  if (state.mark.in_forked_child())
    return fail(Errc::no_device, "a forked child has no part in the session");
  const Alignment wanted = std::max(alignment, unit);
  if (size.value() > state.range.size().value() || wanted.value() > state.range.size().value())
    return fail(Errc::no_memory, "larger than the heap's addresses");
  State::Held held;
  auto chunk = state.make(held, {.size = size, .alignment = wanted});
  if (chunk && chunk->pointer == nullptr) {
    // The device has it at another phase, for its bus or its address space is cut up: as much more
    // holds an aligned part.
    state.undo(held);
    chunk =
        state.make(held, {.size = size, .alignment = wanted, .spare = ByteCount(wanted.value())});
  }
  if (!chunk) {
    state.undo(held);
    return chunk;
  }
  if (chunk->pointer == nullptr) {
    state.undo(held);
    return fail(Errc::protocol_error, "the device's addresses are parts of pages");
  }
  try {
    const MutexLock lock(state.mutex);
    state.chunks.emplace(chunk->pointer, held);
  } catch (const std::bad_alloc&) {
    state.undo(held);
    return fail(Errc::no_memory, "no memory to note a chunk");
  }
  return chunk;
}

void ClientHeapSource::give_back(const HeapChunk& chunk) {
  State& state = *state_;
  if (state.mark.in_forked_child()) return;
  State::Held held;
  {
    const MutexLock lock(state.mutex);
    const auto found = state.chunks.find(chunk.pointer);
    ACCELMM_CHECK(found != state.chunks.end());
    held = found->second;
    state.chunks.erase(found);
  }
  state.undo(held);
}

// A chunk of a new buffer; one without a pointer if too little of the buffer is aligned.
Result<HeapChunk> ClientHeapSource::State::make(Held& held, const Wish& wish) {
  const auto part = make_buffer(held, wish);
  if (!part) return fail(part.error());
  if (part->range.empty()) return HeapChunk{};
  if (const auto done = place(held, *part, wish.alignment); !done) return fail(done.error());
  return HeapChunk{.pointer = range.base() + held.placed.offset.value(),
                   .size = held.placed.length,
                   .address = part->address,
                   .contents = Contents::zeros};
}

Result<ClientHeapSource::State::Part> ClientHeapSource::State::make_buffer(Held& held,
                                                                           const Wish& wish) {
  AllocationRequest how = request;
  how.size = wish.size + wish.spare;
  const auto buffer = allocate_buffer(*link, how);
  if (!buffer) return fail(buffer.error());
  held.handle = buffer->handle;
  const BufferRange all{BufferOffset(), BufferOffset() + buffer->size};
  if (options.device == DeviceUse::none) return Part{.range = all, .address = {}};
  const auto mapped =
      map_device(*link, {buffer->handle, all}, options.access, DevicePlacement::anywhere());
  if (!mapped) return fail(mapped.error());
  held.address = mapped->address;
  if (const auto reached = wait_for(*link, mapped->point, no_deadline); !reached)
    return fail(reached.error());
  const std::uint64_t skip = (0 - mapped->address.value()) & (wish.alignment.value() - 1);
  if (skip != 0 &&
      (skip >= buffer->size.value() || buffer->size.value() - skip < wish.size.value()))
    return Part{};
  return Part{.range = {BufferOffset(skip), all.end}, .address = mapped->address + ByteCount(skip)};
}

Result<void> ClientHeapSource::State::place(Held& held, const Part& part, Alignment alignment) {
  const auto piece = request_cpu_map(*link, {*held.handle, part.range}, cpu_access());
  if (!piece) return fail(piece.error());
  const ByteCount length = part.range.size();
  if (const auto checked = check_received_piece({piece->fd.view(), piece->offset, length});
      !checked)
    return checked;
  if (!Alignment(host_page_size().value()).divides(piece->offset | length.value()))
    return fail(Errc::protocol_error, "MAP_CPU answered with parts of pages");
  const auto place = places.allocate(length + gap, alignment);
  if (!place) return fail(Errc::no_memory, "the heap's addresses are in use");
  held.place = *place;
  held.placed = {.offset = place->offset, .length = length};
  return range.place(held.placed, piece->fd.view(), piece->offset, cpu_access());
}

// Ends what there is of a chunk. The driver process may be gone, and with it what it had.
void ClientHeapSource::State::undo(Held& held) noexcept {
  std::optional<Point> unmapped;
  if (held.address) {
    if (const auto point = unmap_device(*link, *held.address)) unmapped = *point;
  }
  // Where the system cannot take it away, the place is not used again.
  if (held.place && range.remove(held.placed)) ACCELMM_CHECK(places.free(*held.place));
  if (held.handle) static_cast<void>(free_buffer(*link, *held.handle));
  // Until the device is known not to use it, the memory counts against the session's quota, and
  // another chunk might be refused for it.
  if (unmapped) static_cast<void>(wait_for(*link, *unmapped, monotonic_ns() + patience_ns));
  held = Held{};
}

Result<ClientHeap> ClientHeap::create(const Client& client, const Options& options) {
  auto source = ClientHeapSource::create(client, options.memory);
  if (!source) return fail(source.error());
  Heap::Options how = options.heap;
  how.source = source->get();
  auto heap = Heap::create(how);
  if (!heap) return fail(heap.error());
  return ClientHeap(std::move(*source), std::move(*heap));
}

}  // namespace accelmm
