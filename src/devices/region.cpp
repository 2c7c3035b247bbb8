// SPDX-License-Identifier: Apache-2.0
#include "devices/region.hpp"

#include "base/mapping.hpp"

#include <algorithm>
#include <bit>
#include <new>
#include <utility>

namespace accelmm::devices {
namespace {

// The leaf above 4 KiB in every page-table format that accelmm knows (docs/mmu.md).
constexpr ByteCount large_leaf(std::uint64_t{2} << 20);

constexpr Access access_of(Region::CpuView view) {
  return view == Region::CpuView::read_only ? Access::read : Access::read_write;
}

}  // namespace

Allocation::~Allocation() {
  region_->give_back(*this);
}

Domain Allocation::domain() const {
  return region_->domain();
}

ByteCount Allocation::size() const {
  ByteCount total;
  for (const Extent& extent : extents_) total += extent.length;
  return total;
}

std::vector<Extent> Allocation::slice(ByteCount offset, ByteCount length) const {
  ACCELMM_CHECK(offset <= size() && length <= size() - offset);
  std::vector<Extent> pieces;
  for (const Extent& extent : extents_) {
    if (length == ByteCount(0)) break;
    if (offset >= extent.length) {
      offset -= extent.length;
      continue;
    }
    const ByteCount piece = std::min(length, extent.length - offset);
    pieces.push_back({extent.offset + offset, piece});
    length -= piece;
    offset = ByteCount(0);
  }
  return pieces;
}

RegionOwner::~RegionOwner() {
  if (id_) ACCELMM_CHECK(region_->heap_.close_owner(*id_).has_value());
}

Region::Region(Options options, MemoryWindow window, DeviceHeap heap)
    : options_(std::move(options)), window_(std::move(window)), heap_(std::move(heap)) {}

Result<std::shared_ptr<Region>> Region::create(Options options) {
  if (options.native_page == ByteCount(0)) options.native_page = host_page_size();
  auto heap = DeviceHeap::create(
      {.size = options.size, .native_page = options.native_page, .evictor = options.evictor.get()});
  if (!heap) return fail(heap.error());
  if (options.reserved > ByteCount(0))
    if (auto taken = heap->reserve({RegionOffset(0), options.reserved}); !taken)
      return fail(taken.error());
  // Device memory exists from the start and reads zero; host memory is there when it is placed.
  auto window = MemoryWindow::create(
      options.size, options.domain == Domain::device ? Backdrop::zero : Backdrop::none);
  if (!window) return fail(window.error());
  return std::shared_ptr<Region>(
      new Region(std::move(options), std::move(*window), std::move(*heap)));
}

Result<OwnerId> Region::owner_id(RegionOwner& owner) {
  if (!owner.id_) {
    const auto id = heap_.add_owner(owner.account_);
    if (!id) return id;
    owner.id_ = *id;
  }
  return *owner.id_;
}

Result<std::shared_ptr<Allocation>> Region::take_pages(ByteCount size, Contiguity contiguity,
                                                       RegionOwner& owner) {
  if (size > capacity()) return fail(Errc::no_memory, "size exceeds the region");
  settle();
  const auto id = owner_id(owner);
  if (!id) return fail(id.error());
  // Made before it has pages, so that what fails from here on gives back exactly what it has.
  auto allocation = std::make_shared<Allocation>(shared_from_this(), *id);
  allocation->extents_.reserve(1);
  const bool scattered = contiguity == Contiguity::scattered;
  const auto taken = heap_.allocate(
      *id, {.size = size,
            .preferred = Alignment(std::bit_floor(std::min(size, large_leaf).value())),
            .layout = scattered ? DeviceHeap::Layout::scattered : DeviceHeap::Layout::contiguous});
  if (!taken) return fail(taken.error());
  if (taken->extents == 1) {
    allocation->extents_.push_back(taken->extent);
    return allocation;
  }
  auto extents = heap_.extents(taken->id);
  if (!extents) {
    ACCELMM_CHECK(heap_.free(*id, taken->id).has_value());
    return fail(extents.error());
  }
  allocation->extents_ = std::move(*extents);
  return allocation;
}

Result<std::shared_ptr<Allocation>> Region::allocate(const Request& request, RegionOwner& owner) {
  if (request.size == ByteCount(0)) return fail(Errc::invalid_argument, "size is zero");
  const auto size = round_up(request.size, Alignment(host_page_size().value()));
  if (!size) return fail(size.error());
  auto taken = take_pages(*size, request.contiguity, owner);
  if (!taken || request.cpu_view == CpuView::none) return taken;

  Allocation& allocation = **taken;
  auto memfd = SealedMemfd::create("accelmm-buffer", allocation.size());
  if (!memfd) return fail(memfd.error());
  allocation.memfd_ = std::move(*memfd);
  allocation.cpu_access_ = access_of(request.cpu_view);
  if (auto placed = place(allocation, Access::read_write); !placed) return fail(placed.error());
  // Only now: sealing against new writable mappings spares the one that the window has.
  const auto sealing =
      request.cpu_view == CpuView::read_only ? Sealing::fixed_size_read_only : Sealing::fixed_size;
  if (auto sealed = allocation.memfd_->seal(sealing); !sealed) return fail(sealed.error());
  return taken;
}

Result<std::shared_ptr<Allocation>> Region::import(SealedMemfd memfd, RegionOwner& owner) {
  auto taken = take_pages(memfd.size(), Contiguity::contiguous, owner);
  if (!taken) return taken;
  Allocation& allocation = **taken;
  const Access access = memfd.access();
  allocation.memfd_ = std::move(memfd);
  allocation.cpu_access_ = access;
  allocation.device_access_ = access;
  if (auto placed = place(allocation, access); !placed) return fail(placed.error());
  return taken;
}

Result<void> Region::place(Allocation& allocation, Access window_access) {
  ByteCount offset;
  for (const Extent& extent : allocation.extents_) {
    auto placed = window_.place(extent, allocation.memfd_->fd(), offset, window_access);
    if (!placed) return placed;
    ++allocation.placed_;
    offset += extent.length;
  }
  return {};
}

void Region::give_back(Allocation& allocation) noexcept {
  for (std::size_t i = 0; i < allocation.extents_.size(); ++i) {
    const Extent& extent = allocation.extents_[i];
    if (i < allocation.placed_) {
      // A place that could not be emptied now is not given out again before it is: see settle().
      if (window_.remove(extent) == Removal::pending) continue;
    } else if (allocation.memfd() == nullptr && domain() == Domain::device) {
      window_.clear(extent);  // what is free reads zero
    }
    ACCELMM_CHECK(heap_.free(allocation.owner_, extent).has_value());
  }
}

void Region::settle() noexcept {
  for (const Extent& extent : window_.settle())
    ACCELMM_CHECK(heap_.free(heap_.owner_of(extent).value(), extent).has_value());
}

}  // namespace accelmm::devices
