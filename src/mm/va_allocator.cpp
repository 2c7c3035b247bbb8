// SPDX-License-Identifier: Apache-2.0
//
// Theory. VaSpace keeps the intervals; here requests become wishes, and intervals in use get their
// meaning: taken (with pages of guard at the end), reserved (an allocator of its own stands behind
// it), or in quarantine (freed, and in the ring until its turn comes).
#include "mm/va_quarantine.hpp"
#include "mm/va_space.hpp"

#include <accelmm/check.hpp>
#include <accelmm/va_allocator.hpp>

#include <new>
#include <utility>

#include <boost/intrusive/set.hpp>

namespace accelmm {

namespace {

namespace intrusive = boost::intrusive;
using mm::VaInterval;
using mm::VaUse;

// A best fit within bounds looks at so many holes that fit: two leaves of the tree or fewer.
constexpr unsigned bounded_look_on = 8;

struct Reservation : intrusive::set_base_hook<intrusive::optimize_size<true>> {
  Reservation(std::uint64_t from, VaAllocator allocator)
      : begin(from), space(std::move(allocator)) {}
  std::uint64_t begin;
  VaAllocator space;
};
struct KeyBegin {
  using type = std::uint64_t;
  type operator()(const Reservation& reservation) const { return reservation.begin; }
};
using Reservations = intrusive::set<Reservation, intrusive::key_of_value<KeyBegin>>;

bool is(const mm::VaTree::Spot& spot, DeviceAddr begin, VaUse::Kind kind) {
  return spot.begin() == begin.value() && spot.use().kind() == kind;
}

std::uint64_t bytes_in_use(const mm::VaSpace::Counts& counts) {
  std::uint64_t bytes = 0;
  for (std::size_t kind = 1; kind < counts.of_kind.size(); ++kind)
    bytes += counts.of_kind[kind].bytes;
  return bytes;
}

}  // namespace

struct VaAllocator::State {
  State(Range<DeviceAddr> whole, Alignment page_size, const mm::OpenParts& parts,
        const Options& wanted)
      : range(whole),
        page(page_size),
        large(parts.large()),
        guard(wanted.guard),
        quarantine_bytes(wanted.quarantine.bytes.value()),
        space({whole.begin.value(), whole.end.value()}, page_size.value(), parts),
        ring(wanted.quarantine.ranges) {}
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  ~State() {
    reservations.clear_and_dispose([](Reservation* reservation) { delete reservation; });
  }

  struct Fit {
    VaInterval piece;
    VaUse use;
  };
  [[nodiscard]] Result<Fit> fit(const Request& request, VaUse::Kind kind);
  [[nodiscard]] Result<ByteCount> rounded_guard(ByteCount wanted) const;
  /// Pre: rounded_guard() made it.
  [[nodiscard]] VaUse taken_with(ByteCount behind) const {
    return {VaUse::Kind::taken, static_cast<std::uint32_t>(behind.value() >> page.log2())};
  }
  [[nodiscard]] std::optional<std::uint64_t> find_place(const mm::Wish& wish,
                                                        const Request& request);
  [[nodiscard]] std::optional<std::uint64_t> follow_hint(const mm::Wish& wish, DeviceAddr hint);
  /// Whether all of it is free, or in quarantine and then ends that.
  [[nodiscard]] Result<void> vacate(Range<DeviceAddr> wanted);
  [[nodiscard]] bool end_quarantine();
  void quarantine(const mm::VaTree::Spot& spot);
  void retire_oldest() {
    mm::VaTree::Spot spot = space.find(ring.pop());
    space.give(spot);
  }
  [[nodiscard]] Result<Range<DeviceAddr>> take(VaInterval piece, VaUse use);
  [[nodiscard]] Result<Range<DeviceAddr>> reserve(VaInterval piece);
  [[nodiscard]] Statistics statistics_of(const mm::VaSpace::Counts& counts) const;

  Range<DeviceAddr> range;
  Alignment page;
  Alignment large;
  ByteCount guard;
  std::uint64_t quarantine_bytes;
  mm::VaSpace space;
  mm::VaQuarantine ring;
  Reservations reservations;
};

// ---- from a request to a place ----

std::optional<std::uint64_t> VaAllocator::State::follow_hint(const mm::Wish& wish,
                                                             DeviceAddr hint) {
  const std::uint64_t begin = hint.value();
  if (begin == 0 || begin < wish.low || wish.high <= begin || wish.high - begin < wish.length)
    return std::nullopt;
  if ((begin & (wish.alignment - 1)) != wish.phase) return std::nullopt;
  const mm::VaTree::Spot spot = space.find(begin);
  if (!spot.use().is_hole() || space.end_of(spot) - begin < wish.length) return std::nullopt;
  return begin;
}

std::optional<std::uint64_t> VaAllocator::State::find_place(const mm::Wish& wish,
                                                            const Request& request) {
  if (request.placement != Placement::best_fit) return space.find_nearest(wish, 1);
  if (request.within) return space.find_nearest(wish, bounded_look_on);
  return space.find_best(wish);
}

Result<ByteCount> VaAllocator::State::rounded_guard(ByteCount wanted) const {
  const auto behind = round_up(wanted, page);
  if (!behind || behind->value() >> page.log2() > VaUse::max_detail)
    return fail(Errc::invalid_argument, "guard is too long");
  return behind;
}

Result<VaAllocator::State::Fit> VaAllocator::State::fit(const Request& request, VaUse::Kind kind) {
  if (request.size.value() == 0) return fail(Errc::invalid_argument, "size is 0");
  if (request.phase >= ByteCount(request.alignment.value()) || !page.divides(request.phase))
    return fail(Errc::invalid_argument, "phase is not a page below the alignment");
  const Range<DeviceAddr> within = request.within.value_or(range);
  if (within.empty() || !range.contains(within) || !page.divides(within.begin) ||
      !page.divides(within.end))
    return fail(Errc::invalid_argument, "no pages of the range to look in");
  const auto size = round_up(request.size, page);
  const ByteCount least = kind == VaUse::Kind::taken ? guard : ByteCount(0);
  const auto behind = rounded_guard(std::max(request.guard, least));
  if (!behind) return fail(behind.error());
  if (!size || size->value() > ~std::uint64_t{0} - behind->value())
    return fail(Errc::no_memory, "fewer bytes are free");
  const mm::Wish wish{.length = size->value() + behind->value(),
                      .alignment = std::max(request.alignment, page).value(),
                      .phase = request.phase.value(),
                      .low = within.begin.value(),
                      .high = within.end.value(),
                      .from_the_top = request.placement == Placement::top_down};
  std::optional<std::uint64_t> begin;
  if (request.hint) begin = follow_hint(wish, *request.hint);
  if (!begin) begin = find_place(wish, request);
  if (!begin && end_quarantine()) begin = find_place(wish, request);
  if (!begin) return fail(Errc::no_memory, "no hole fits");
  return Fit{.piece = {*begin, *begin + wish.length},
             .use = kind == VaUse::Kind::taken ? taken_with(*behind) : VaUse(kind, 0)};
}

Result<void> VaAllocator::State::vacate(Range<DeviceAddr> wanted) {
  if (wanted.empty()) return fail(Errc::invalid_argument, "interval is empty");
  if (!page.divides(wanted.begin) || !page.divides(wanted.end))
    return fail(Errc::invalid_argument, "interval is not page-aligned");
  if (!range.contains(wanted))
    return fail(Errc::invalid_argument, "interval lies outside the range");
  bool quarantined = false;
  for (std::uint64_t at = wanted.begin.value(); at < wanted.end.value();) {
    const mm::VaTree::Spot spot = space.find(at);
    const VaUse::Kind kind = spot.use().kind();
    if (kind != VaUse::Kind::hole && kind != VaUse::Kind::quarantined)
      return fail(Errc::address_in_use, "the address is taken");
    quarantined = quarantined || kind == VaUse::Kind::quarantined;
    at = space.end_of(spot);
  }
  if (quarantined) ACCELMM_CHECK(end_quarantine());
  return {};
}

/// Pre: the ring has a capacity; the interval is taken.
void VaAllocator::State::quarantine(const mm::VaTree::Spot& spot) {
  const std::uint64_t begin = spot.begin();
  space.change(spot, VaUse(VaUse::Kind::quarantined, 0));
  if (ring.size() == ring.capacity()) retire_oldest();
  ring.push(begin);
  while (space.counts()[VaUse::Kind::quarantined].bytes > quarantine_bytes) retire_oldest();
}

/// Whether there was any.
bool VaAllocator::State::end_quarantine() {
  if (ring.size() == 0) return false;
  while (ring.size() > 0) retire_oldest();
  return true;
}

Result<Range<DeviceAddr>> VaAllocator::State::take(VaInterval piece, VaUse use) {
  mm::VaTree::Spot spot = space.find(piece.begin);
  if (const auto taken = space.take(spot, piece, use); !taken) return fail(taken.error());
  const std::uint64_t behind = std::uint64_t{use.detail()} << page.log2();
  return Range<DeviceAddr>{DeviceAddr(piece.begin), DeviceAddr(piece.end - behind)};
}

Result<Range<DeviceAddr>> VaAllocator::State::reserve(VaInterval piece) {
  const Range<DeviceAddr> whole{DeviceAddr(piece.begin), DeviceAddr(piece.end)};
  auto pieces = VaAllocator::create(whole, page, {.large = large});
  if (!pieces) return fail(pieces.error());
  std::unique_ptr<Reservation> reservation(new (std::nothrow)
                                               Reservation(piece.begin, std::move(*pieces)));
  if (reservation == nullptr) return fail(Errc::no_memory, "no room for a reservation");
  const auto taken = take(piece, VaUse(VaUse::Kind::reserved, 0));
  if (taken) reservations.insert(*reservation.release());
  return taken;
}

VaAllocator::Statistics VaAllocator::State::statistics_of(const mm::VaSpace::Counts& counts) const {
  const mm::VaSpace::Count& taken = counts[VaUse::Kind::taken];
  const mm::Room longest = space.longest();
  return {.free = ByteCount(counts[VaUse::Kind::hole].bytes),
          .taken = ByteCount(taken.bytes - counts.guard_bytes),
          .guard = ByteCount(counts.guard_bytes),
          .reserved = ByteCount(counts[VaUse::Kind::reserved].bytes),
          .quarantined = ByteCount(counts[VaUse::Kind::quarantined].bytes),
          .holes = counts[VaUse::Kind::hole].intervals,
          .intervals = taken.intervals,
          .reservations = counts[VaUse::Kind::reserved].intervals,
          .quarantined_ranges = counts[VaUse::Kind::quarantined].intervals,
          .longest = ByteCount(longest.whole),
          .longest_large = ByteCount(longest.large)};
}

// ---- the public operations ----

VaAllocator::VaAllocator(std::unique_ptr<State> state) noexcept : state_(std::move(state)) {}
VaAllocator::VaAllocator(VaAllocator&& other) noexcept = default;
VaAllocator& VaAllocator::operator=(VaAllocator&& other) noexcept = default;
VaAllocator::~VaAllocator() = default;

Result<VaAllocator> VaAllocator::create(Range<DeviceAddr> range, Alignment page) {
  return create(range, page, Options{});
}

Result<VaAllocator> VaAllocator::create(Range<DeviceAddr> range, Alignment page,
                                        const Options& options) {
  if (range.empty()) return fail(Errc::invalid_argument, "range is empty");
  if (!page.divides(range.begin) || !page.divides(range.end))
    return fail(Errc::invalid_argument, "range is not page-aligned");
  if (options.hint_ranges.size() >= mm::OpenParts::max_closed)
    return fail(Errc::invalid_argument, "too many hint ranges");
  mm::OpenParts parts(std::max(options.large, page).value());
  std::uint64_t closed_to = 0;
  const bool with_null = range.begin.value() == 0;
  for (const Range<DeviceAddr>& hints : options.hint_ranges) {
    if (hints.empty() || hints.begin.value() < closed_to || !page.divides(hints.begin) ||
        !page.divides(hints.end))
      return fail(Errc::invalid_argument, "hint ranges overlap or are not page-aligned");
    if (with_null && closed_to == 0 && hints.begin.value() > 0) parts.close({0, page.value()});
    parts.close({hints.begin.value(), hints.end.value()});
    closed_to = hints.end.value();
  }
  if (with_null && closed_to == 0) parts.close({0, page.value()});
  std::unique_ptr<State> state(new (std::nothrow) State(range, page, parts, options));
  if (state == nullptr || !state->ring.ok() || !state->space.start())
    return fail(Errc::no_memory, "no room for a VA allocator");
  return VaAllocator(std::move(state));
}

Result<Range<DeviceAddr>> VaAllocator::allocate(ByteCount size, Alignment alignment,
                                                ByteCount phase) {
  Request request;
  request.size = size;
  request.alignment = alignment;
  request.phase = phase;
  return allocate(request);
}

Result<Range<DeviceAddr>> VaAllocator::allocate(const Request& request) {
  const auto fit = state_->fit(request, VaUse::Kind::taken);
  if (!fit) return fail(fit.error());
  return state_->take(fit->piece, fit->use);
}

Result<Range<DeviceAddr>> VaAllocator::allocate_at(Range<DeviceAddr> wanted, ByteCount guard) {
  State& state = *state_;
  const auto behind = state.rounded_guard(guard);
  if (!behind) return fail(behind.error());
  Range<DeviceAddr> whole = wanted;
  if (!wanted.empty() && state.range.contains(wanted)) {
    if (*behind > state.range.end - wanted.end)
      return fail(Errc::invalid_argument, "guard lies outside the range");
    whole.end += *behind;
  }
  if (const auto vacant = state.vacate(whole); !vacant) return fail(vacant.error());
  return state.take({whole.begin.value(), whole.end.value()}, state.taken_with(*behind));
}

Result<void> VaAllocator::free(DeviceAddr begin) {
  State& state = *state_;
  if (!state.range.contains(begin))
    return fail(Errc::invalid_argument, "no taken interval begins here");
  mm::VaTree::Spot spot = state.space.find(begin.value());
  if (!is(spot, begin, VaUse::Kind::taken))
    return fail(Errc::invalid_argument, "no taken interval begins here");
  if (state.ring.capacity() == 0)
    state.space.give(spot);
  else
    state.quarantine(spot);
  return {};
}

Result<Range<DeviceAddr>> VaAllocator::reserve(const Request& request) {
  if (request.guard.value() != 0) return fail(Errc::invalid_argument, "a reservation has no guard");
  const auto fit = state_->fit(request, VaUse::Kind::reserved);
  if (!fit) return fail(fit.error());
  return state_->reserve(fit->piece);
}

Result<Range<DeviceAddr>> VaAllocator::reserve_at(Range<DeviceAddr> wanted) {
  if (const auto vacant = state_->vacate(wanted); !vacant) return fail(vacant.error());
  return state_->reserve({wanted.begin.value(), wanted.end.value()});
}

VaAllocator* VaAllocator::reservation(DeviceAddr begin) const {
  const auto found = state_->reservations.find(begin.value());
  return found == state_->reservations.end() ? nullptr : &found->space;
}

Result<void> VaAllocator::release(DeviceAddr begin) {
  State& state = *state_;
  const auto found = state.reservations.find(begin.value());
  if (found == state.reservations.end())
    return fail(Errc::invalid_argument, "no reservation begins here");
  if (bytes_in_use(found->space.state_->space.counts()) != 0)
    return fail(Errc::busy, "a piece of the reservation is in use");
  state.reservations.erase_and_dispose(found, [](Reservation* gone) { delete gone; });
  mm::VaTree::Spot spot = state.space.find(begin.value());
  ACCELMM_CHECK(is(spot, begin, VaUse::Kind::reserved));
  state.space.give(spot);
  return {};
}

void VaAllocator::drain_quarantine() {
  static_cast<void>(state_->end_quarantine());
}

Range<DeviceAddr> VaAllocator::range() const {
  return state_->range;
}
ByteCount VaAllocator::free_bytes() const {
  return ByteCount(state_->space.counts()[VaUse::Kind::hole].bytes);
}
std::size_t VaAllocator::holes() const {
  return state_->space.counts()[VaUse::Kind::hole].intervals;
}
VaAllocator::Statistics VaAllocator::statistics() const {
  return state_->statistics_of(state_->space.counts());
}
VaAllocator::Statistics VaAllocator::recount() const {
  return state_->statistics_of(state_->space.recount());
}
ByteCount VaAllocator::metadata() const {
  const State& state = *state_;
  const std::size_t others = state.reservations.size() * sizeof(Reservation) +
                             state.ring.capacity() * sizeof(std::uint64_t);
  return ByteCount(sizeof(State) - sizeof(mm::VaSpace) + state.space.bytes() + others);
}
std::uint64_t VaAllocator::holes_looked_at() const {
  return state_->space.looked_at();
}

void VaAllocator::validate() const {
  const State& state = *state_;
  state.space.validate();
  const mm::VaSpace::Counts& counts = state.space.counts();
  ACCELMM_CHECK(counts[VaUse::Kind::hole].bytes + bytes_in_use(counts) ==
                state.range.size().value());
  ACCELMM_CHECK(counts[VaUse::Kind::quarantined].intervals == state.ring.size());
  ACCELMM_CHECK(counts[VaUse::Kind::reserved].intervals == state.reservations.size());
  for (const Reservation& reservation : state.reservations) {
    const mm::VaTree::Spot spot = state.space.find(reservation.begin);
    ACCELMM_CHECK(is(spot, DeviceAddr(reservation.begin), VaUse::Kind::reserved));
    ACCELMM_CHECK(reservation.space.range().end.value() == state.space.end_of(spot));
    reservation.space.validate();
  }
}

}  // namespace accelmm
