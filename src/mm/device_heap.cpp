// SPDX-License-Identifier: Apache-2.0
//
// The lock of a heap, and what is called under none: the evictor, and who hears of pressure.
#include "base/mutex.hpp"
#include "mm/device_heap_book.hpp"

#include <accelmm/check.hpp>
#include <accelmm/device_heap.hpp>

#include <bit>
#include <new>
#include <utility>

namespace accelmm {

namespace {

// How many records are freed before others get the lock.
constexpr std::size_t batch = 64;

constexpr const char* no_allocation = "no such allocation";

}  // namespace

struct DeviceHeap::State {
  State(const Options& given, PageAllocator pages)
      : options(given), book(given, std::move(pages)) {}

  /// How short the heap is, given how short it was: it must recover by some more than it lacked.
  [[nodiscard]] Pressure judge(Pressure before) const ACCELMM_REQUIRES(lock) {
    const ByteCount available = book.available();
    const auto below = [&](ByteCount threshold, Pressure which) {
      const ByteCount relief = before >= which ? options.thresholds.relief : ByteCount(0);
      return threshold > ByteCount(0) && (available < threshold || available - threshold < relief);
    };
    if (below(options.thresholds.critical, Pressure::critical)) return Pressure::critical;
    if (below(options.thresholds.low, Pressure::low)) return Pressure::low;
    return Pressure::none;
  }

  [[nodiscard]] Result<Allocated> try_allocate(OwnerId owner, const Request& request,
                                               std::unique_ptr<mm::HeapRecord>& room)
      ACCELMM_EXCLUDES(lock) {
    const MutexLock held(lock);
    return book.allocate(owner, request, room);
  }
  /// Whether room or quota was missing, and something waits that may give some.
  [[nodiscard]] bool is_short(const Result<Allocated>& allocated) const ACCELMM_EXCLUDES(lock) {
    if (allocated ||
        (allocated.error().code != Errc::no_memory && allocated.error().code != Errc::over_quota))
      return false;
    const MutexLock held(lock);
    return book.statistics().pending_allocations > 0;
  }
  ByteCount retire(std::uint64_t point) ACCELMM_EXCLUDES(lock) {
    ByteCount retired;
    for (;;) {
      const MutexLock held(lock);
      const ByteCount some = book.retire(point, batch);
      if (some == ByteCount(0)) return retired;
      retired += some;
    }
  }
  /// Also of points that another thread is just retiring.
  ByteCount retire_reached() ACCELMM_EXCLUDES(lock) {
    return retire(options.progress == nullptr ? 0 : options.progress->reached());
  }
  void count(const Result<Allocated>& allocated) ACCELMM_EXCLUDES(lock) {
    const MutexLock held(lock);
    if (allocated)
      ++counters.allocated;
    else if (allocated.error().code == Errc::no_memory)
      ++counters.out_of_memory;
    else if (allocated.error().code == Errc::over_quota)
      ++counters.over_quota;
  }
  [[nodiscard]] ByteCount needed(const Request& request) ACCELMM_EXCLUDES(lock) {
    const MutexLock held(lock);
    ++counters.evictions;
    return book.rounded(request);
  }
  template <class F>
  [[nodiscard]] Result<void> freeing(F f) ACCELMM_EXCLUDES(lock) {
    const MutexLock held(lock);
    Result<void> freed = f(book);
    if (freed) ++counters.freed;
    return freed;
  }

  /// After every change of what is available.
  void tell_pressure() ACCELMM_EXCLUDES(lock) {
    if (options.thresholds.low == ByteCount(0) && options.thresholds.critical == ByteCount(0))
      return;
    lock.lock();
    level = judge(level);
    // Who finds another telling leaves it to him: he looks again.
    while (!telling && level != told) {
      telling = true;
      told = level;
      const Pressure pressure = level;
      const ByteCount available = book.available();
      lock.unlock();
      if (options.listener != nullptr) options.listener->on_pressure(pressure, available);
      lock.lock();
      telling = false;
      level = judge(level);
    }
    lock.unlock();
  }

  const Options options;
  mutable Mutex lock;
  mm::HeapBook book ACCELMM_GUARDED_BY(lock);
  Counters counters ACCELMM_GUARDED_BY(lock);
  Pressure level ACCELMM_GUARDED_BY(lock) = Pressure::none;
  Pressure told ACCELMM_GUARDED_BY(lock) = Pressure::none;
  bool telling ACCELMM_GUARDED_BY(lock) = false;
};

DeviceHeap::DeviceHeap(std::unique_ptr<State> state) noexcept : state_(std::move(state)) {}
DeviceHeap::DeviceHeap(DeviceHeap&& other) noexcept = default;
DeviceHeap& DeviceHeap::operator=(DeviceHeap&& other) noexcept = default;
DeviceHeap::~DeviceHeap() = default;

Result<DeviceHeap> DeviceHeap::create(const Options& options) {
  const std::uint64_t native = options.native_page.value();
  if (native == 0 || native % mm::HeapBook::granule.value() != 0)
    return fail(Errc::invalid_argument, "native page is no multiple of 4096 bytes");
  if (options.size.value() == 0 || options.size.value() % native != 0)
    return fail(Errc::invalid_argument, "heap is not a whole number of native pages");
  auto pages = PageAllocator::create({.size = options.size, .page = options.native_page});
  if (!pages) return fail(pages.error());
  try {
    return DeviceHeap(std::make_unique<State>(options, std::move(*pages)));
  } catch (const std::bad_alloc&) {
    return fail(Errc::no_memory, "no room for the heap's metadata");
  }
}

Result<OwnerId> DeviceHeap::add_owner(std::shared_ptr<Account> account) {
  if (!account) return fail(Errc::invalid_argument, "owner has no account");
  const MutexLock held(state_->lock);
  return state_->book.add_owner(std::move(account));
}

Result<void> DeviceHeap::close_owner(OwnerId owner) {
  const auto closed = [&] {
    const MutexLock held(state_->lock);
    return state_->book.close_owner(owner);
  }();
  state_->tell_pressure();
  return closed;
}

Result<DeviceHeap::Allocated> DeviceHeap::allocate(OwnerId owner, const Request& request) {
  State& state = *state_;
  std::unique_ptr<mm::HeapRecord> room(new (std::nothrow) mm::HeapRecord);
  if (!room) return fail(Errc::no_memory, "no room for a record");
  Evictor* evictor = state.options.evictor;
  for (std::uint32_t asked = 0;; ++asked) {
    auto allocated = state.try_allocate(owner, request, room);
    // What the device has reached goes before anything that somebody uses.
    if (state.is_short(allocated) && state.retire_reached() > ByteCount(0))
      allocated = state.try_allocate(owner, request, room);
    if (allocated || allocated.error().code != Errc::no_memory || evictor == nullptr ||
        asked == state.options.evictions) {
      state.count(allocated);
      state.tell_pressure();
      return allocated;
    }
    // Nothing freed: once more, since others may have freed meanwhile, and then it is final.
    if (evictor->evict(state.needed(request)) == ByteCount(0)) evictor = nullptr;
  }
}

Result<void> DeviceHeap::free(OwnerId owner, AllocationId allocation) {
  const auto freed =
      state_->freeing([&](mm::HeapBook& book) { return book.free(owner, allocation); });
  state_->tell_pressure();
  return freed;
}

Result<void> DeviceHeap::free(OwnerId owner, Extent extent) {
  const auto freed = state_->freeing([&](mm::HeapBook& book) { return book.free(owner, extent); });
  state_->tell_pressure();
  return freed;
}

Result<void> DeviceHeap::free_after(OwnerId owner, AllocationId allocation, std::uint64_t point) {
  const auto freed = state_->freeing(
      [&](mm::HeapBook& book) { return book.free_after(owner, allocation, point); });
  state_->tell_pressure();
  return freed;
}

ByteCount DeviceHeap::retire(std::uint64_t point) {
  const ByteCount retired = state_->retire(point);
  state_->tell_pressure();
  return retired;
}

ByteCount DeviceHeap::trim() {
  const MutexLock held(state_->lock);
  return state_->book.trim();
}

Result<void> DeviceHeap::reserve(Extent extent) {
  const auto reserved = [&] {
    const MutexLock held(state_->lock);
    return state_->book.reserve(extent);
  }();
  state_->tell_pressure();
  return reserved;
}

Result<OwnerId> DeviceHeap::owner_of(Extent extent) const {
  const MutexLock held(state_->lock);
  return state_->book.owner_of(extent);
}

Result<std::vector<Extent>> DeviceHeap::extents(AllocationId allocation) const try {
  const MutexLock held(state_->lock);
  mm::HeapRecord* const record = state_->book.live_record(allocation);
  if (record == nullptr) return fail(Errc::invalid_argument, no_allocation);
  std::vector<Extent> extents;
  extents.reserve(record->live);
  for (const mm::HeapPiece& piece : record->pieces())
    if (piece.is_linked()) extents.push_back(piece.extent);
  return extents;
} catch (const std::bad_alloc&) {
  return fail(Errc::no_memory, "no room for the list of extents");
}

Result<void> DeviceHeap::pin(AllocationId allocation) {
  const MutexLock held(state_->lock);
  mm::HeapRecord* const record = state_->book.live_record(allocation);
  if (record == nullptr) return fail(Errc::invalid_argument, no_allocation);
  if (record->moves > 0) return fail(Errc::busy, "allocation is being moved");
  ++record->pins;
  return {};
}

Result<void> DeviceHeap::unpin(AllocationId allocation) {
  const MutexLock held(state_->lock);
  mm::HeapRecord* const record = state_->book.live_record(allocation);
  if (record == nullptr || record->pins == 0)
    return fail(Errc::invalid_argument, "no such allocation is pinned");
  --record->pins;
  return {};
}

Result<std::vector<DeviceHeap::Move>> DeviceHeap::plan_moves(ByteCount budget,
                                                             const Goal& goal) const try {
  const MutexLock held(state_->lock);
  return state_->book.plan_moves(budget, goal);
} catch (const std::bad_alloc&) {
  return fail(Errc::no_memory, "no room for a plan");
}

Result<void> DeviceHeap::begin_move(const Move& move) {
  const auto begun = [&] {
    const MutexLock held(state_->lock);
    return state_->book.begin_move(move);
  }();
  state_->tell_pressure();
  return begun;
}

Result<void> DeviceHeap::commit_move(const Move& move) {
  const auto committed = [&] {
    const MutexLock held(state_->lock);
    auto result = state_->book.commit_move(move);
    if (result) ++state_->counters.moves;
    return result;
  }();
  state_->tell_pressure();
  return committed;
}

Result<void> DeviceHeap::abort_move(const Move& move) {
  const auto aborted = [&] {
    const MutexLock held(state_->lock);
    return state_->book.abort_move(move);
  }();
  state_->tell_pressure();
  return aborted;
}

Shortage DeviceHeap::explain(OwnerId owner, const Request& request) const {
  const MutexLock held(state_->lock);
  return state_->book.explain(owner, request);
}

Pressure DeviceHeap::pressure() const {
  const MutexLock held(state_->lock);
  return state_->level;
}

DeviceHeap::Statistics DeviceHeap::statistics() const {
  const MutexLock held(state_->lock);
  return state_->book.statistics();
}

DeviceHeap::Counters DeviceHeap::counters() const {
  const MutexLock held(state_->lock);
  return state_->counters;
}

DeviceHeap::Statistics DeviceHeap::recount() const {
  const MutexLock held(state_->lock);
  return state_->book.recount();
}

void DeviceHeap::validate() const {
  const MutexLock held(state_->lock);
  state_->book.validate();
}

}  // namespace accelmm
