// SPDX-License-Identifier: Apache-2.0
#include "bus/attached_ranges.hpp"

#include <accelmm/check.hpp>

#include <iterator>
#include <new>

namespace accelmm {

// Finds or makes a boundary. A new one counts no end yet and covers what its predecessor covers, so
// it changes nothing.
AttachedRanges::Boundaries::iterator AttachedRanges::boundary_at(RegionOffset offset) {
  const auto next = boundaries_.lower_bound(offset);
  if (next != boundaries_.end() && next->first == offset) return next;
  const std::uint64_t cover = next == boundaries_.begin() ? 0 : std::prev(next)->second.cover;
  return boundaries_.emplace_hint(next, offset, Boundary{.ends = 0, .cover = cover});
}

// Where no extent begins or ends, the cover is that of the bytes before: the boundary says nothing.
void AttachedRanges::drop_end(Boundaries::iterator boundary) noexcept {
  ACCELMM_CHECK(boundary->second.ends > 0);
  if (--boundary->second.ends == 0) boundaries_.erase(boundary);
}

Result<void> AttachedRanges::add(Extent extent) {
  ACCELMM_CHECK(extent.length != ByteCount());
  auto first = boundaries_.end();
  auto last = boundaries_.end();
  try {
    first = boundary_at(extent.offset);
    last = boundary_at(extent.end());
  } catch (const std::bad_alloc&) {
    if (first != boundaries_.end() && first->second.ends == 0) boundaries_.erase(first);
    return fail(Errc::no_memory, "no memory to note attached memory");
  }
  ++first->second.ends;
  ++last->second.ends;
  for (auto each = first; each != last; ++each) ++each->second.cover;
  return {};
}

void AttachedRanges::remove(Extent extent) noexcept {
  const auto first = boundaries_.find(extent.offset);
  const auto last = boundaries_.find(extent.end());
  ACCELMM_CHECK(first != boundaries_.end());
  ACCELMM_CHECK(last != boundaries_.end());
  for (auto each = first; each != last; ++each) {
    ACCELMM_CHECK(each->second.cover > 0);
    --each->second.cover;
  }
  drop_end(first);
  drop_end(last);
}

bool AttachedRanges::covers(RegionOffset offset, ByteCount length) const noexcept {
  if (length == ByteCount()) return true;
  auto next = boundaries_.upper_bound(offset);
  if (next == boundaries_.begin()) return false;
  // The boundary at or below the range, then each inside it. After the last one nothing is covered.
  for (auto each = std::prev(next); each->second.cover > 0; ++each) {
    const auto following = std::next(each);
    ACCELMM_CHECK(following != boundaries_.end());
    if (following->first >= offset && following->first - offset >= length) return true;
  }
  return false;
}

}  // namespace accelmm
