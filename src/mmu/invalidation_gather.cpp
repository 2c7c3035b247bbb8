// SPDX-License-Identifier: Apache-2.0
#include <accelmm/check.hpp>
#include <accelmm/mmu/invalidation_gather.hpp>

#include <algorithm>
#include <limits>
#include <utility>

namespace accelmm::mmu {

namespace {

constexpr DeviceAddr last{std::numeric_limits<std::uint64_t>::max()};
constexpr Range<DeviceAddr> everything{DeviceAddr(0), last};

// To multiples of the granularity; the very last address is as far as it goes.
Range<DeviceAddr> grown(Range<DeviceAddr> range, Alignment granularity) {
  const std::uint64_t mask = granularity.value() - 1;
  const std::uint64_t end = range.end.value();
  return {DeviceAddr(range.begin.value() & ~mask),
          end > last.value() - mask ? last : DeviceAddr((end + mask) & ~mask)};
}

}  // namespace

InvalidationGather::InvalidationGather(std::uint32_t asid, const InvalidationPolicy& policy)
    : asid_(asid), policy_(policy) {
  policy_.most_ranges = std::min(policy_.most_ranges, InvalidationRanges::most);
}

void InvalidationGather::add(Unmapped&& gone) {
  if (!gone.is_empty())
    gone.for_each_range([&](Range<DeviceAddr> range) {
      note(range, gone.touched(),
           gone.is_whole()   ? Invalidation::Cause::close
           : gone.is_moved() ? Invalidation::Cause::move
                             : Invalidation::Cause::unmap);
    });
  if (!carried_) {
    carried_.emplace(std::move(gone));
    return;
  }
  carried_->absorb(std::move(gone));
  // Of mappings that moved only the range from the first to the last is remembered: all of it goes.
  if (carried_->is_moved()) note(carried_->range(), carried_->touched(), Invalidation::Cause::move);
}

void InvalidationGather::add(const Changed& changed) {
  note(changed.range, changed.touched, Invalidation::Cause::protect);
}

void InvalidationGather::add(const MappedRange& mapped) {
  if (policy_.negative_entries == InvalidationPolicy::NegativeEntries::cached)
    note(mapped.range, Touched{}, Invalidation::Cause::map);
}

void InvalidationGather::add(Replaced&& replaced) {
  add(replaced.mapped);
  add(std::move(replaced.gone));
}

void InvalidationGather::note(Range<DeviceAddr> range, const Touched& touched,
                              Invalidation::Cause cause) {
  ++changes_;
  touched_.add(touched);
  cause_ = std::max(cause_, cause);
  range = policy_.most_ranges == 0 ? everything : grown(range, policy_.granularity);
  const std::size_t limit = std::max<std::size_t>(policy_.most_ranges, 1);
  if (ranges_.add(range, limit)) return;
  const Range<DeviceAddr> hull = ranges_.hull();
  range = policy_.beyond == InvalidationPolicy::Beyond::everything
              ? everything
              : Range<DeviceAddr>{std::min(range.begin, hull.begin), std::max(range.end, hull.end)};
  ranges_.clear();
  const bool added = ranges_.add(range, 1);
  ACCELMM_CHECK(added);
}

Invalidation InvalidationGather::invalidation() const {
  ACCELMM_CHECK(is_needed());
  return {asid_, ranges_.hull(), cause_, touched_, ranges_};
}

void InvalidationGather::release(InvalidationDone done) && {
  ranges_.clear();
  if (!carried_) return;
  std::move(*carried_).release(done);
  carried_.reset();
}

}  // namespace accelmm::mmu
