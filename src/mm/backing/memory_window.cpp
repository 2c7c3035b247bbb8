// SPDX-License-Identifier: Apache-2.0
#include "mm/backing/memory_window.hpp"

#include "base/system.hpp"
#include "mm/backing/huge_pages.hpp"
#include "mm/backing/word_copy.hpp"

#include <accelmm/check.hpp>

#include <algorithm>
#include <new>

#include <fcntl.h>
#include <sys/mman.h>

// How a place changes hands. Every change of an extent goes through three steps: under the lock the
// extent is entered in the map, or marked, so that accesses and other changes keep off; without the
// lock the system is called; under the lock the outcome is noted. An access holds the lock shared
// from its check to the end of its copy, so a removal, which marks under the exclusive lock, has
// waited for every copy that began before it.
//
// mmap(MAP_FIXED) replaces what is at the addresses at once: there is no moment in which another
// thread's mmap could take them. Only when it fails, kernels before 6.12 may have unmapped the old
// contents already; refilling the hole with MAP_FIXED_NOREPLACE at once keeps the addresses ours.

namespace accelmm {

namespace {

Alignment host_page() {
  return Alignment(host_page_size().value());
}

// Where a window begins: huge pages lie only at multiples of their size, so that extents aligned in
// the region must be so in memory. A larger window pays for it with addresses.
Alignment window_alignment(ByteCount size) {
  for (const PageSize pages : {PageSize::huge_1g, PageSize::huge_2m})
    if (size.value() >= largest_page(pages).value()) return largest_page(pages);
  return host_page();
}

int protection_for(Access access) {
  return allows(access, Access::write) ? PROT_READ | PROT_WRITE : PROT_READ;
}

// A regular file must hold the bytes for ever, or touching them would be a SIGBUS; and the kernel
// must not find out after it has unmapped the backdrop that writing is forbidden. Other kinds
// (dma-bufs) check the range in their mmap.
Result<void> check_file(FdView fd, ByteCount fd_offset, ByteCount length, Access access) {
  const auto status = sys::fstat(fd);
  if (!status) return fail(status.error());
  if (!S_ISREG(status->st_mode)) return {};
  const auto size = static_cast<std::uint64_t>(status->st_size);
  if (fd_offset.value() > size || length.value() > size - fd_offset.value())
    return fail(Errc::invalid_argument, "file is shorter than its place");
  const auto seals = sys::get_seals(fd);
  if (!seals) return fail(seals.error());
  if ((*seals & F_SEAL_SHRINK) == 0) return fail(Errc::invalid_argument, "file may shrink");
  const bool write_sealed = (*seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE)) != 0;
  if (write_sealed && allows(access, Access::write))
    return fail(Errc::not_permitted, "file is sealed against writing");
  return {};
}

}  // namespace

Result<MemoryWindow> MemoryWindow::create(ByteCount size, Backdrop backdrop) {
  if (size == ByteCount() || !host_page().divides(size))
    return fail(Errc::invalid_argument, "size of a window is not whole pages");
  const ByteCount guard = host_page_size();
  const Alignment alignment = window_alignment(size);
  const ByteCount around = guard + guard + ByteCount(alignment.value() - host_page().value());
  if (size.value() > UINT64_MAX - around.value())
    return fail(Errc::overflow, "window larger than 64 bits of addresses");
  std::unique_ptr<Places> places(new (std::nothrow) Places);
  if (!places) return fail(Errc::no_memory, "no memory for a window");
  auto addresses = Mapping::reserve(size + around);
  if (!addresses) return fail(addresses.error());
  std::byte* const lowest = addresses->bytes().data() + guard.value();
  const std::uint64_t misaligned =
      reinterpret_cast<std::uintptr_t>(lowest) & (alignment.value() - 1);
  std::byte* const base = lowest + (misaligned == 0 ? 0 : alignment.value() - misaligned);
  MemoryWindow window(std::move(*addresses), base, size, backdrop, std::move(places));
  if (backdrop == Backdrop::zero) {
    const Extent all{RegionOffset(), size};
    if (const auto made = window.make_backdrop(all, MAP_FIXED); !made) return fail(made.error());
  }
  return window;
}

bool MemoryWindow::is_inside(Extent extent) const {
  return extent.length != ByteCount() && host_page().divides(extent.offset) &&
         host_page().divides(extent.length) && extent.offset.value() <= size_.value() &&
         extent.length.value() <= size_.value() - extent.offset.value();
}

// Children of fork(2) need none of it, and a child that holds a buffer's memory would keep it from
// being freed. Where the system refuses, the worst is that: so the caller's work goes on.
void MemoryWindow::exclude_from_fork(Extent extent) noexcept {
  static_cast<void>(sys::madvise(base_ + extent.offset.value(), extent.length, MADV_DONTFORK));
}

Result<void> MemoryWindow::make_backdrop(Extent extent, int how_fixed) noexcept {
  const int prot = backdrop_ == Backdrop::zero ? PROT_READ | PROT_WRITE : PROT_NONE;
  const auto made = sys::mmap(base_ + extent.offset.value(), extent.length, prot,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | how_fixed, FdView(), 0);
  if (!made) return fail(made.error());
  // Nothing to hide in a `none` backdrop, and left as it was it merges with its neighbours to one
  // area of the kernel's.
  if (backdrop_ == Backdrop::zero) exclude_from_fork(extent);
  return {};
}

bool MemoryWindow::overlaps_placement(Extent extent) const {
  const auto next = places_->placements.lower_bound(extent.offset);
  if (next != places_->placements.end() && next->first < extent.end()) return true;
  if (next == places_->placements.begin()) return false;
  const auto& [offset, previous] = *std::prev(next);
  return extent.offset < offset + previous.length;
}

Result<void> MemoryWindow::enter(Extent extent, Access access) {
  const WriterLock lock(places_->mutex);
  if (overlaps_placement(extent)) return fail(Errc::address_in_use, "something is placed there");
  try {
    places_->placements.emplace(extent.offset, Placement{extent.length, access, State::placing});
  } catch (const std::bad_alloc&) {
    return fail(Errc::no_memory, "no memory to note a placement");
  }
  return {};
}

Result<void> MemoryWindow::place(Extent extent, FdView fd, ByteCount fd_offset, Access access) {
  if (!is_inside(extent) || !host_page().divides(fd_offset) || !is_valid(access))
    return fail(Errc::invalid_argument, "not a place in this window");
  if (const auto fits = check_file(fd, fd_offset, extent.length, access); !fits) return fits;
  if (const auto entered = enter(extent, access); !entered) return entered;
  const auto placed =
      sys::mmap(base_ + extent.offset.value(), extent.length, protection_for(access),
                MAP_SHARED | MAP_FIXED, fd, fd_offset.value());
  if (placed) {
    exclude_from_fork(extent);
  } else {
    static_cast<void>(make_backdrop(extent, MAP_FIXED_NOREPLACE));
  }
  const WriterLock lock(places_->mutex);
  const auto entry = places_->placements.find(extent.offset);
  ACCELMM_CHECK(entry != places_->placements.end() && entry->second.state == State::placing);
  if (!placed) {
    places_->placements.erase(entry);
    return fail(placed.error());
  }
  entry->second.state = State::placed;
  return {};
}

Removal MemoryWindow::remove(Extent extent) noexcept {
  {
    const WriterLock lock(places_->mutex);
    const auto entry = places_->placements.find(extent.offset);
    ACCELMM_CHECK(entry != places_->placements.end());
    ACCELMM_CHECK(entry->second.length == extent.length);
    ACCELMM_CHECK(entry->second.state == State::placed);
    entry->second.state = State::removing;
  }
  return finish_removal(extent);
}

// The extent is marked as removing.
Removal MemoryWindow::finish_removal(Extent extent) noexcept {
  const bool restored = make_backdrop(extent, MAP_FIXED).has_value() ||
                        make_backdrop(extent, MAP_FIXED_NOREPLACE).has_value();
  const WriterLock lock(places_->mutex);
  const auto entry = places_->placements.find(extent.offset);
  ACCELMM_CHECK(entry != places_->placements.end() && entry->second.state == State::removing);
  if (restored) {
    places_->placements.erase(entry);
    return Removal::done;
  }
  entry->second.state = State::stuck;
  ++places_->stuck;
  return Removal::pending;
}

std::vector<Extent> MemoryWindow::settle() noexcept {
  std::vector<Extent> settled;
  try {
    settled.reserve(pending_removals());
  } catch (const std::bad_alloc&) {
    return settled;
  }
  RegionOffset position;
  while (settled.size() < settled.capacity()) {
    const auto extent = take_stuck(position);
    if (!extent) break;
    if (finish_removal(*extent) == Removal::done) settled.push_back(*extent);
    position = extent->end();
  }
  return settled;
}

// Marks the first stuck extent at or after a position as removing.
std::optional<Extent> MemoryWindow::take_stuck(RegionOffset position) noexcept {
  const WriterLock lock(places_->mutex);
  if (places_->stuck == 0) return std::nullopt;
  auto& placements = places_->placements;
  const auto entry =
      std::find_if(placements.lower_bound(position), placements.end(),
                   [](const auto& each) { return each.second.state == State::stuck; });
  if (entry == placements.end()) return std::nullopt;
  entry->second.state = State::removing;
  --places_->stuck;
  return Extent{entry->first, entry->second.length};
}

std::size_t MemoryWindow::pending_removals() const {
  const ReaderLock lock(places_->mutex);
  return places_->stuck;
}

std::size_t MemoryWindow::placements() const {
  const ReaderLock lock(places_->mutex);
  return places_->placements.size();
}

void MemoryWindow::clear(Extent extent) noexcept {
  ACCELMM_CHECK(backdrop_ == Backdrop::zero);
  ACCELMM_CHECK(is_inside(extent));
  {
    const ReaderLock lock(places_->mutex);
    ACCELMM_CHECK(!overlaps_placement(extent));
  }
  std::byte* const bytes = base_ + extent.offset.value();
  if (!sys::madvise(bytes, extent.length, MADV_DONTNEED)) zero_shared(bytes, extent.length.value());
}

bool MemoryWindow::reaches(RegionOffset offset, ByteCount length, Access wanted) const {
  if (offset.value() > size_.value() || length.value() > size_.value() - offset.value())
    return false;
  const RegionOffset end = offset + length;
  auto next = places_->placements.upper_bound(offset);
  if (next != places_->placements.begin()) {
    const auto previous = std::prev(next);
    if (offset < previous->first + previous->second.length) next = previous;
  }
  while (offset < end) {
    const bool at_placement = next != places_->placements.end() && next->first <= offset;
    if (!at_placement) {
      if (backdrop_ == Backdrop::none) return false;
      offset = next == places_->placements.end() ? end : next->first;
      continue;
    }
    const Placement& placement = next->second;
    if (placement.state != State::placed || !allows(placement.access, wanted)) return false;
    offset = next->first + placement.length;
    ++next;
  }
  return true;
}

Result<void> MemoryWindow::read(RegionOffset offset, std::span<std::byte> into) const {
  const ReaderLock lock(places_->mutex);
  if (!reaches(offset, ByteCount(into.size()), Access::read))
    return fail(Errc::fault, "read of memory that is not there");
  copy_from_shared(into.data(), base_ + offset.value(), into.size());
  return {};
}

Result<void> MemoryWindow::write(RegionOffset offset, std::span<const std::byte> from) {
  const ReaderLock lock(places_->mutex);
  if (!reaches(offset, ByteCount(from.size()), Access::write))
    return fail(Errc::fault, "write to memory that is not there or is read-only");
  copy_to_shared(base_ + offset.value(), from.data(), from.size());
  return {};
}

std::byte* MemoryWindow::data(RegionOffset offset) const {
  ACCELMM_CHECK(offset.value() < size_.value());
  return base_ + offset.value();
}

}  // namespace accelmm
