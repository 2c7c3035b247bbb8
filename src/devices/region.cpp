// SPDX-License-Identifier: Apache-2.0
#include "devices/region.hpp"

#include "base/mapping.hpp"

#include <algorithm>
#include <new>
#include <utility>

namespace accelmm::devices {
namespace {

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

Region::Region(Domain domain, MemoryWindow window, PageAllocator pages, ByteCount size,
               ByteCount reserved)
    : domain_(domain),
      window_(std::move(window)),
      pages_(std::move(pages)),
      size_(size),
      reserved_(reserved) {}

Result<std::shared_ptr<Region>> Region::create(Domain domain, ByteCount size, ByteCount reserved) {
  auto pages = PageAllocator::create({.size = size, .page = host_page_size()});
  if (!pages) return fail(pages.error());
  if (reserved > ByteCount(0))
    if (auto taken = pages->reserve({RegionOffset(0), reserved}); !taken)
      return fail(taken.error());
  // Device memory exists from the start and reads zero; host memory is there when it is placed.
  auto window =
      MemoryWindow::create(size, domain == Domain::device ? Backdrop::zero : Backdrop::none);
  if (!window) return fail(window.error());
  return std::shared_ptr<Region>(
      new Region(domain, std::move(*window), std::move(*pages), size, reserved));
}

Result<std::shared_ptr<Allocation>> Region::take_pages(ByteCount size, Contiguity contiguity,
                                                       const std::shared_ptr<Account>& account) {
  if (size > capacity()) return fail(Errc::no_memory, "size exceeds the region");
  settle();
  auto charge = Charge::make(account, size);
  if (!charge) return fail(charge.error());
  // Made before it has pages, so that what fails from here on gives back exactly what it has.
  auto allocation = std::make_shared<Allocation>(shared_from_this(), std::move(*charge));
  if (contiguity == Contiguity::scattered) {
    auto extents = pages_.allocate_scattered(size);
    if (!extents) return fail(extents.error());
    allocation->extents_ = std::move(*extents);
  } else {
    allocation->extents_.reserve(1);
    auto extent = pages_.allocate(size);
    if (!extent) return fail(extent.error());
    allocation->extents_.push_back(*extent);
  }
  used_ += size;
  return allocation;
}

Result<std::shared_ptr<Allocation>> Region::allocate(const Request& request,
                                                     const std::shared_ptr<Account>& account) {
  if (request.size == ByteCount(0)) return fail(Errc::invalid_argument, "size is zero");
  const auto size = round_up(request.size, Alignment(host_page_size().value()));
  if (!size) return fail(size.error());
  auto taken = take_pages(*size, request.contiguity, account);
  if (!taken || request.cpu_view == CpuView::none) return taken;

  Allocation& allocation = **taken;
  auto memfd = SealedMemfd::create("accelmm-buffer", *size);
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

Result<std::shared_ptr<Allocation>> Region::import(SealedMemfd memfd,
                                                   const std::shared_ptr<Account>& account) {
  auto taken = take_pages(memfd.size(), Contiguity::contiguous, account);
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
    used_ -= extent.length;
    if (i < allocation.placed_) {
      // A place that could not be emptied now is not given out again before it is: see settle().
      if (window_.remove(extent) == Removal::pending) continue;
    } else if (allocation.memfd() == nullptr && domain_ == Domain::device) {
      window_.clear(extent);  // what is free reads zero
    }
    ACCELMM_CHECK(pages_.free(extent).has_value());
  }
}

void Region::settle() noexcept {
  for (const Extent& extent : window_.settle()) ACCELMM_CHECK(pages_.free(extent).has_value());
}

}  // namespace accelmm::devices
