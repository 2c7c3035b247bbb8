// SPDX-License-Identifier: Apache-2.0
//
// Theory. An id is the number of the event that made an allocation, so events are numbered in the
// order that a lock gives. An allocation is noted after the allocator gave it, and a free before the
// allocator has it back: whatever lies between two notes of the same place is then in that order in
// the trace too, and what the trace says is live never overlaps.
//
// Events are written into a ring of blocks. Who fills a block writes it to the sink, with no lock
// held, while others fill the next. Each block knows its place in the file, so that the order of the
// writes does not matter.
#include "base/mutex.hpp"

#include <accelmm/check.hpp>
#include <accelmm/trace_recorder.hpp>

#include <algorithm>
#include <iterator>
#include <limits>
#include <map>
#include <new>
#include <optional>
#include <span>
#include <thread>
#include <utility>
#include <vector>

namespace accelmm {

namespace {

constexpr std::uint64_t most_units = std::numeric_limits<std::uint32_t>::max();

// Events that one step adds at most: two splits and the end of what lies between them.
constexpr std::size_t step_events = 3;

struct Block {
  std::vector<std::byte> bytes{};
  std::size_t used = 0;     // bytes
  std::uint64_t first = 0;  // number of its first event
  bool being_written = false;

  [[nodiscard]] bool has_room() const {
    return bytes.size() - used >= step_events * trace_format::event_bytes;
  }
};

struct Live {
  std::uint64_t end;
  std::uint32_t id;
};

// Live allocations of one pool by offset.
using LiveMap = std::map<std::uint64_t, Live>;

TraceEvent event_of(const TraceLog::Wish& wish) {
  return {.align_log2 = static_cast<std::uint8_t>(wish.alignment.log2()),
          .lifetime = wish.lifetime,
          .placement = wish.placement,
          .contents = wish.contents,
          .shape = wish.shape};
}

}  // namespace

struct TraceLog::State {
  State(TraceSink& s, const Options& options)
      : sink(s), unit(options.unit), tick_ns(options.tick_ns), blocks(options.blocks) {
    header.unit = options.unit;
    header.tick_ns = options.tick_ns;
    for (Block& block : blocks)
      block.bytes.resize(options.block_events * trace_format::event_bytes);
  }

  [[nodiscard]] std::uint64_t units_of(std::uint64_t bytes) const {
    return bytes == 0 ? 0 : ((bytes - 1) >> unit.log2()) + 1;
  }
  [[nodiscard]] std::uint16_t thread_number() ACCELMM_REQUIRES(lock);
  [[nodiscard]] TraceEvent stamped(TraceEvent event, unsigned pool) ACCELMM_EXCLUDES(lock);

  /// Makes room for the events of a step, which may release the lock for a while. Returns whether
  /// they can be numbered and will be kept.
  [[nodiscard]] bool make_room() ACCELMM_REQUIRES(lock);
  /// Adds an event and returns its number. Pre: make_room() made room.
  std::uint32_t add(const TraceEvent& event) ACCELMM_REQUIRES(lock);
  void write(Block& block) ACCELMM_REQUIRES(lock);
  void note_live(unsigned pool, Extent extent, TraceEvent event) ACCELMM_REQUIRES(lock);
  /// Ends what is live of [begin, end) in the allocation that holds `begin`. Returns where it ended,
  /// or `begin` if nothing was live or nothing could be kept.
  [[nodiscard]] std::uint64_t end_live(unsigned pool, std::uint64_t begin, std::uint64_t end,
                                       TraceEvent event) ACCELMM_REQUIRES(lock);
  [[nodiscard]] bool all_live(unsigned pool, std::uint64_t begin, std::uint64_t end) const
      ACCELMM_REQUIRES(lock);

  TraceSink& sink;
  const Alignment unit;
  const std::uint32_t tick_ns;
  mutable Mutex lock;
  Condition written;
  TraceHeader header ACCELMM_GUARDED_BY(lock);
  std::vector<Block> blocks ACCELMM_GUARDED_BY(lock);
  std::size_t current ACCELMM_GUARDED_BY(lock) = 0;
  std::array<LiveMap, TraceHeader::most_pools> live ACCELMM_GUARDED_BY(lock);
  std::map<std::thread::id, std::uint16_t> threads ACCELMM_GUARDED_BY(lock);
  std::optional<Error> error ACCELMM_GUARDED_BY(lock);
  bool finished ACCELMM_GUARDED_BY(lock) = false;
};

std::uint16_t TraceLog::State::thread_number() {
  constexpr std::size_t most = 0xffff;  // also the number of those beyond
  const auto found = threads.find(std::this_thread::get_id());
  if (found != threads.end()) return found->second;
  if (threads.size() >= most) return most;
  try {
    const auto number = static_cast<std::uint16_t>(threads.size());
    threads.emplace(std::this_thread::get_id(), number);
    return number;
  } catch (const std::bad_alloc&) {
    return most;
  }
}

TraceEvent TraceLog::State::stamped(TraceEvent event, unsigned pool) {
  ACCELMM_CHECK(pool < TraceHeader::most_pools);
  event.pool = static_cast<std::uint8_t>(pool);
  event.time = sink.now_ns() / tick_ns;
  return event;
}

bool TraceLog::State::make_room() {
  while (true) {
    if (finished || error || header.events > trace_format::most_events - step_events) {
      ++header.lost;
      return false;
    }
    if (blocks[current].being_written) {
      written.wait(lock);
      continue;
    }
    if (blocks[current].has_room()) return true;
    Block& full = blocks[current];
    full.being_written = true;
    current = (current + 1) % blocks.size();
    write(full);
  }
}

// Others may fill other blocks meanwhile, but not this one.
void TraceLog::State::write(Block& block) {
  const std::uint64_t at = trace_format::header_bytes + block.first * trace_format::event_bytes;
  const std::span<const std::byte> bytes(block.bytes.data(), block.used);
  lock.unlock();
  const auto done = sink.write(at, bytes);
  lock.lock();
  if (!done && !error) error = done.error();
  block.used = 0;
  block.being_written = false;
  written.notify_all();
}

std::uint32_t TraceLog::State::add(const TraceEvent& event) {
  Block& block = blocks[current];
  if (block.used == 0) block.first = header.events;
  TraceEvent whole = event;
  whole.thread = thread_number();
  std::ranges::copy(trace_format::encode(whole),
                    block.bytes.begin() + static_cast<std::ptrdiff_t>(block.used));
  block.used += trace_format::event_bytes;
  return static_cast<std::uint32_t>(header.events++);
}

void TraceLog::State::note_live(unsigned pool, Extent extent, TraceEvent event) {
  const std::uint64_t units = units_of(extent.length.value());
  if (units == 0 || units > most_units) {
    ++header.lost;
    return;
  }
  if (!make_room()) return;
  event.op = TraceOp::allocate;
  event.size = static_cast<std::uint32_t>(units);
  try {
    const auto [at, is_new] =
        live[pool].emplace(extent.offset.value(), Live{extent.end().value(), 0});
    if (is_new)
      at->second.id = add(event);
    else
      ++header.lost;  // freed behind our back
  } catch (const std::bad_alloc&) {
    ++header.lost;
  }
}

bool TraceLog::State::all_live(unsigned pool, std::uint64_t begin, std::uint64_t end) const {
  const LiveMap& map = live[pool];
  auto at = map.upper_bound(begin);
  if (at == map.begin()) return false;
  --at;
  while (begin < end) {
    if (at == map.end() || at->first > begin || at->second.end <= begin) return false;
    begin = at->second.end;
    ++at;
  }
  return true;
}

std::uint64_t TraceLog::State::end_live(unsigned pool, std::uint64_t begin, std::uint64_t end,
                                        TraceEvent event) {
  if (!make_room()) return begin;
  LiveMap& map = live[pool];
  auto at = map.upper_bound(begin);
  if (at == map.begin() || std::prev(at)->second.end <= begin) return begin;
  --at;
  // Cuts off what lies in front of the part, then what lies behind it, then ends the part.
  const auto cut = [&](LiveMap::iterator piece, std::uint64_t where) ACCELMM_REQUIRES(lock) {
    const auto rest = map.emplace(where, Live{piece->second.end, 0}).first;
    event.op = TraceOp::split;
    event.subject = piece->second.id;
    event.size = static_cast<std::uint32_t>(units_of(where - piece->first));
    rest->second.id = add(event);
    piece->second.end = where;
    return rest;
  };
  if (((begin - at->first) & (unit.value() - 1)) != 0 ||
      (at->second.end > end && ((end - at->first) & (unit.value() - 1)) != 0)) {
    error = Error{Errc::invalid_argument, "a part was freed that is not whole units of the trace"};
    return begin;
  }
  try {
    if (at->first < begin) at = cut(at, begin);
    if (at->second.end > end) static_cast<void>(cut(at, end));
  } catch (const std::bad_alloc&) {
    error = Error{Errc::no_memory, "no room to note that a part was freed"};
    return begin;
  }
  end = at->second.end;
  event.op = TraceOp::free;
  event.subject = at->second.id;
  event.size = static_cast<std::uint32_t>(units_of(end - at->first));
  static_cast<void>(add(event));
  map.erase(at);
  return end;
}

TraceLog::TraceLog(std::unique_ptr<State> state) noexcept : state_(std::move(state)) {}
TraceLog::TraceLog(TraceLog&& other) noexcept = default;
TraceLog& TraceLog::operator=(TraceLog&& other) noexcept = default;
TraceLog::~TraceLog() = default;

Result<TraceLog> TraceLog::create(TraceSink& sink, const Options& options) {
  if (options.tick_ns == 0) return fail(Errc::invalid_argument, "a tick of 0 ns");
  if (options.unit.log2() > 31) return fail(Errc::invalid_argument, "a unit above 2 GiB");
  if (options.block_events < step_events || options.blocks < 2)
    return fail(Errc::invalid_argument, "fewer than 2 blocks of 3 events");
  if (options.block_events > std::numeric_limits<std::uint32_t>::max())
    return fail(Errc::invalid_argument, "blocks of more events than a trace has");
  try {
    return TraceLog(std::make_unique<State>(sink, options));
  } catch (const std::bad_alloc&) {
    return fail(Errc::no_memory, "no room for blocks of events");
  }
}

void TraceLog::set_pool_size(unsigned pool, ByteCount size) {
  ACCELMM_CHECK(pool < TraceHeader::most_pools);
  const MutexLock held(state_->lock);
  state_->header.pool_sizes[pool] = size;
}

void TraceLog::allocated(unsigned pool, std::span<const Extent> extents, const Wish& wish) {
  const TraceEvent event = state_->stamped(event_of(wish), pool);
  const MutexLock held(state_->lock);
  for (const Extent& extent : extents) state_->note_live(pool, extent, event);
}

void TraceLog::refused(unsigned pool, ByteCount size, const Wish& wish) {
  State& state = *state_;
  TraceEvent event = state.stamped(event_of(wish), pool);
  event.op = TraceOp::refused;
  // What cannot be had at all may be larger than can be written down.
  event.size = static_cast<std::uint32_t>(
      std::clamp<std::uint64_t>(state.units_of(size.value()), 1, most_units));
  const MutexLock held(state.lock);
  if (state.make_room()) static_cast<void>(state.add(event));
}

bool TraceLog::freeing(unsigned pool, Extent extent, Contents contents) {
  State& state = *state_;
  TraceEvent event = state.stamped({}, pool);
  event.contents = contents;
  std::uint64_t begin = extent.offset.value();
  if (extent.length.value() > std::numeric_limits<std::uint64_t>::max() - begin) return false;
  const std::uint64_t end = begin + extent.length.value();
  const MutexLock held(state.lock);
  if (begin == end || !state.all_live(pool, begin, end)) return false;
  while (begin < end) {
    const std::uint64_t ended = state.end_live(pool, begin, end, event);
    if (ended == begin) break;  // lost, or another thread frees the same
    begin = ended;
  }
  return true;
}

bool TraceLog::freeing(unsigned pool, RegionOffset offset) {
  State& state = *state_;
  const TraceEvent event = state.stamped({}, pool);
  const MutexLock held(state.lock);
  const auto found = state.live[pool].find(offset.value());
  if (found == state.live[pool].end()) return false;
  static_cast<void>(state.end_live(pool, offset.value(), found->second.end, event));
  return true;
}

void TraceLog::bad_free(unsigned pool, ByteCount size) {
  State& state = *state_;
  TraceEvent event = state.stamped({}, pool);
  event.op = TraceOp::bad_free;
  event.size = static_cast<std::uint32_t>(std::min(state.units_of(size.value()), most_units));
  const MutexLock held(state.lock);
  if (state.make_room()) static_cast<void>(state.add(event));
}

Result<void> TraceLog::finish() {
  State& state = *state_;
  trace_format::HeaderBytes header;
  {
    const MutexLock held(state.lock);
    if (state.finished) return fail(Errc::busy, "the trace was finished before");
    state.finished = true;
    // Blocks that other threads still write, then the one that was being filled.
    for (Block& block : state.blocks)
      while (block.being_written) state.written.wait(state.lock);
    if (state.blocks[state.current].used > 0) state.write(state.blocks[state.current]);
    if (state.error) return fail(*state.error);
    header = trace_format::encode(state.header);
  }
  return state.sink.write(0, header);
}

std::uint64_t TraceLog::lost() const {
  const MutexLock held(state_->lock);
  return state_->header.lost;
}

}  // namespace accelmm
