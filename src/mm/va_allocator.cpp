// SPDX-License-Identifier: Apache-2.0
//
// Theory. The range is tiled by intervals, each a node: taken, or a hole. All nodes are in a tree
// by address, in which neighbours are one step apart, and the holes also in a tree by (size,
// address). Taking a piece out of a hole leaves the hole's node with the taken piece and needs a
// node for what remains on each side: both are made before anything changes. Freeing turns the node
// into a hole and swallows holes on either side, which only deletes nodes.
#include <accelmm/check.hpp>
#include <accelmm/va_allocator.hpp>

#include <new>
#include <optional>
#include <utility>

#include <boost/intrusive/set.hpp>

namespace accelmm {

namespace {

namespace intrusive = boost::intrusive;

struct ByAddress;
struct BySize;
using AddressHook =
    intrusive::set_base_hook<intrusive::tag<ByAddress>, intrusive::link_mode<intrusive::safe_link>,
                             intrusive::optimize_size<true>>;
using SizeHook =
    intrusive::set_base_hook<intrusive::tag<BySize>, intrusive::link_mode<intrusive::safe_link>,
                             intrusive::optimize_size<true>>;

struct Interval : AddressHook, SizeHook {
  Interval(std::uint64_t from, std::uint64_t to) : begin(from), end(to) {}
  [[nodiscard]] std::uint64_t size() const { return end - begin; }

  std::uint64_t begin;
  std::uint64_t end;
  bool taken = false;
};

struct KeyAddress {
  using type = std::uint64_t;
  type operator()(const Interval& interval) const { return interval.begin; }
};
struct KeySize {
  using type = std::pair<std::uint64_t, std::uint64_t>;
  type operator()(const Interval& interval) const { return {interval.size(), interval.begin}; }
};

using AddressTree = intrusive::set<Interval, intrusive::base_hook<AddressHook>,
                                   intrusive::key_of_value<KeyAddress>>;
using SizeTree =
    intrusive::set<Interval, intrusive::base_hook<SizeHook>, intrusive::key_of_value<KeySize>>;

using Node = std::unique_ptr<Interval>;

// Holes that allocate() looks at, best fit first, before it takes one that is large enough for any
// alignment. With 16, an aligned 2 MiB request among random holes seldom wastes a large hole.
constexpr int max_probes = 16;

/// What allocate() looks for.
struct Request {
  std::uint64_t size;
  std::uint64_t alignment;
  std::uint64_t phase;
  std::uint64_t page;

  /// Where it would begin in this hole.
  [[nodiscard]] std::optional<std::uint64_t> place_in(const Interval& hole) const {
    const std::uint64_t lowest = hole.begin == 0 ? page : hole.begin;
    if (lowest >= hole.end) return std::nullopt;
    const std::uint64_t gap = (phase - lowest) & (alignment - 1);
    const std::uint64_t room = hole.end - lowest;
    if (gap > room || size > room - gap) return std::nullopt;
    return lowest + gap;
  }
};

}  // namespace

struct VaAllocator::State {
  State(Range<DeviceAddr> whole, Alignment page_size) : range(whole), page(page_size) {}
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  ~State() {
    by_size.clear();
    by_address.clear_and_dispose([](Interval* interval) { delete interval; });
  }

  [[nodiscard]] std::pair<Interval*, std::uint64_t> find_place(const Request& request);
  [[nodiscard]] Result<Range<DeviceAddr>> take(Interval& hole, std::uint64_t begin,
                                               std::uint64_t end);
  [[nodiscard]] bool is_hole(AddressTree::iterator position) const {
    return position != by_address.end() && !position->taken;
  }
  /// Removes a hole from both trees, for its neighbour to take its place.
  void swallow(Interval& hole);

  Range<DeviceAddr> range;
  Alignment page;
  std::uint64_t free_bytes = 0;
  AddressTree by_address;
  SizeTree by_size;
};

/// The hole to use and where in it; no hole if none fits.
std::pair<Interval*, std::uint64_t> VaAllocator::State::find_place(const Request& request) {
  auto hole = by_size.lower_bound({request.size, 0});
  for (int probe = 0; hole != by_size.end() && probe < max_probes; ++hole, ++probe)
    if (const auto begin = request.place_in(*hole)) return {&*hole, *begin};
  const auto rest = hole;
  // Any hole of size + alignment - page fits; of the one at address 0 the first page is lost.
  const std::uint64_t slack = request.alignment - request.page;
  if (request.size <= ~std::uint64_t{0} - slack) {
    hole = by_size.lower_bound({request.size + slack, 0});
    for (; hole != by_size.end(); ++hole)
      if (const auto begin = request.place_in(*hole)) return {&*hole, *begin};
  }
  for (hole = rest; hole != by_size.end() && hole->size() - request.size < slack; ++hole)
    if (const auto begin = request.place_in(*hole)) return {&*hole, *begin};
  return {nullptr, 0};
}

/// Takes [begin, end) out of a hole. Pre: it lies in the hole.
Result<Range<DeviceAddr>> VaAllocator::State::take(Interval& hole, std::uint64_t begin,
                                                   std::uint64_t end) {
  ACCELMM_CHECK(!hole.taken && hole.begin <= begin && begin < end && end <= hole.end);
  Node before;
  Node after;
  if (hole.begin < begin) {
    before.reset(new (std::nothrow) Interval(hole.begin, begin));
    if (before == nullptr) return fail(Errc::no_memory, "no room for a node");
  }
  if (end < hole.end) {
    after.reset(new (std::nothrow) Interval(end, hole.end));
    if (after == nullptr) return fail(Errc::no_memory, "no room for a node");
  }
  const auto position = by_address.iterator_to(hole);
  by_size.erase(by_size.iterator_to(hole));
  hole.begin = begin;  // still behind its neighbour below: the order of the tree holds
  hole.end = end;
  hole.taken = true;
  if (before != nullptr) {
    by_size.insert(*before);
    by_address.insert_before(position, *before.release());
  }
  if (after != nullptr) {
    by_size.insert(*after);
    by_address.insert_before(std::next(position), *after.release());
  }
  free_bytes -= end - begin;
  return Range<DeviceAddr>{DeviceAddr(begin), DeviceAddr(end)};
}

void VaAllocator::State::swallow(Interval& hole) {
  by_size.erase(by_size.iterator_to(hole));
  by_address.erase_and_dispose(by_address.iterator_to(hole), [](Interval* node) { delete node; });
}

VaAllocator::VaAllocator(std::unique_ptr<State> state) noexcept : state_(std::move(state)) {}
VaAllocator::VaAllocator(VaAllocator&& other) noexcept = default;
VaAllocator& VaAllocator::operator=(VaAllocator&& other) noexcept = default;
VaAllocator::~VaAllocator() = default;

Result<VaAllocator> VaAllocator::create(Range<DeviceAddr> range, Alignment page) {
  if (range.empty()) return fail(Errc::invalid_argument, "range is empty");
  if (!page.divides(range.begin) || !page.divides(range.end))
    return fail(Errc::invalid_argument, "range is not page-aligned");
  std::unique_ptr<State> state(new (std::nothrow) State(range, page));
  if (state == nullptr) return fail(Errc::no_memory, "no room for a VA allocator");
  Node whole(new (std::nothrow) Interval(range.begin.value(), range.end.value()));
  if (whole == nullptr) return fail(Errc::no_memory, "no room for a node");
  state->by_size.insert(*whole);
  state->by_address.insert(*whole.release());
  state->free_bytes = range.size().value();
  return VaAllocator(std::move(state));
}

Result<Range<DeviceAddr>> VaAllocator::allocate(ByteCount size, Alignment alignment,
                                                ByteCount phase) {
  State& state = *state_;
  if (size.value() == 0) return fail(Errc::invalid_argument, "size is 0");
  if (phase.value() >= alignment.value() || !state.page.divides(phase))
    return fail(Errc::invalid_argument, "phase is not a page below the alignment");
  if (size.value() > state.free_bytes) return fail(Errc::no_memory, "fewer bytes are free");
  const auto rounded = round_up(size, state.page);
  if (!rounded) return fail(Errc::no_memory, "fewer bytes are free");
  const Request request{.size = rounded->value(),
                        .alignment = std::max(alignment, state.page).value(),
                        .phase = phase.value(),
                        .page = state.page.value()};
  const auto [hole, begin] = state.find_place(request);
  if (hole == nullptr) return fail(Errc::no_memory, "no hole fits");
  return state.take(*hole, begin, begin + request.size);
}

Result<Range<DeviceAddr>> VaAllocator::allocate_at(Range<DeviceAddr> wanted) {
  State& state = *state_;
  if (wanted.empty()) return fail(Errc::invalid_argument, "interval is empty");
  if (!state.page.divides(wanted.begin) || !state.page.divides(wanted.end))
    return fail(Errc::invalid_argument, "interval is not page-aligned");
  if (!state.range.contains(wanted))
    return fail(Errc::invalid_argument, "interval lies outside the range");
  auto position = state.by_address.upper_bound(wanted.begin.value());
  --position;  // the interval that holds wanted.begin: they tile the range
  if (position->taken || position->end < wanted.end.value())
    return fail(Errc::address_in_use, "the address is taken");
  return state.take(*position, wanted.begin.value(), wanted.end.value());
}

Result<void> VaAllocator::free(DeviceAddr begin) {
  State& state = *state_;
  const auto position = state.by_address.find(begin.value());
  if (position == state.by_address.end() || !position->taken)
    return fail(Errc::invalid_argument, "no taken interval begins here");
  Interval& interval = *position;
  interval.taken = false;
  state.free_bytes += interval.size();
  if (const auto next = std::next(position); state.is_hole(next)) {
    interval.end = next->end;
    state.swallow(*next);
  }
  if (position != state.by_address.begin()) {
    if (const auto previous = std::prev(position); state.is_hole(previous)) {
      const std::uint64_t lowest = previous->begin;
      state.swallow(*previous);
      interval.begin = lowest;
    }
  }
  state.by_size.insert(interval);
  return {};
}

Range<DeviceAddr> VaAllocator::range() const {
  return state_->range;
}
ByteCount VaAllocator::free_bytes() const {
  return ByteCount(state_->free_bytes);
}
std::size_t VaAllocator::holes() const {
  return state_->by_size.size();
}

void VaAllocator::validate() const {
  const State& state = *state_;
  std::uint64_t expected_begin = state.range.begin.value();
  std::uint64_t free_bytes = 0;
  std::size_t holes = 0;
  bool previous_is_hole = false;
  for (const Interval& interval : state.by_address) {
    ACCELMM_CHECK(interval.begin == expected_begin);
    ACCELMM_CHECK(interval.begin < interval.end);
    ACCELMM_CHECK(state.page.divides(interval.end));
    ACCELMM_CHECK(interval.SizeHook::is_linked() == !interval.taken);
    ACCELMM_CHECK(interval.taken || !previous_is_hole);
    expected_begin = interval.end;
    previous_is_hole = !interval.taken;
    if (interval.taken) continue;
    free_bytes += interval.size();
    ++holes;
  }
  ACCELMM_CHECK(expected_begin == state.range.end.value());
  ACCELMM_CHECK(free_bytes == state.free_bytes);
  ACCELMM_CHECK(holes == state.by_size.size());
  std::pair<std::uint64_t, std::uint64_t> smaller{0, 0};
  for (const Interval& hole : state.by_size) {
    ACCELMM_CHECK(!hole.taken);
    ACCELMM_CHECK(smaller < KeySize{}(hole));
    smaller = KeySize{}(hole);
  }
}

}  // namespace accelmm
