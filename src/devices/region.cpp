// SPDX-License-Identifier: Apache-2.0
#include "devices/region.hpp"

#include "base/mapping.hpp"
#include "mm/backing/huge_pages.hpp"

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

constexpr Sealing sealing_of(Region::CpuView view) {
  return view == Region::CpuView::read_only ? Sealing::fixed_size_read_only : Sealing::fixed_size;
}

constexpr DeviceHeap::Layout layout_of(Region::Contiguity contiguity) {
  return contiguity == Region::Contiguity::scattered ? DeviceHeap::Layout::scattered
                                                     : DeviceHeap::Layout::contiguous;
}

Result<Charge> charge_lock(const std::shared_ptr<Account>& locked, ByteCount size) {
  if (locked == nullptr) return fail(Errc::over_quota, "nothing may be locked");
  return Charge::make(locked, size);
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
  return devices::slice(extents_, offset, length);
}

std::vector<Extent> slice(std::span<const Extent> extents, ByteCount offset, ByteCount length) {
  std::vector<Extent> pieces;
  for (const Extent& extent : extents) {
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
  ACCELMM_CHECK(length == ByteCount(0));
  return pieces;
}

Result<BackingReport> Allocation::backing() const {
  if (!backing_) return fail(Errc::not_supported, "device memory has no backing to report");
  BackingReport report = backing_->report(file());
  // The kernel counts no blocks for a dma-buf, all of whose memory is there.
  if (import_ && import_->pieces.front().file.kind() == dmabuf::DescriptorKind::dma_buf)
    report.populated = size();
  return report;
}

FdView Allocation::file() const {
  return import_ ? import_->pieces.front().file.fd() : memfd_->fd();
}

RegionOwner::~RegionOwner() {
  if (id_) ACCELMM_CHECK(region_->heap_.close_owner(*id_).has_value());
}

Region::Region(Options options, MemoryWindow window, DeviceHeap heap)
    : options_(std::move(options)),
      window_(std::move(window)),
      heap_(std::move(heap)),
      exports_(options_.sharing ? options_.sharing : dmabuf::BackEnds::memory_files()) {}

Result<std::shared_ptr<Region>> Region::create(Options options) {
  const auto defaults = complete_request(options.host.defaults, {});
  if (!defaults) return fail(defaults.error());
  options.host.defaults = *defaults;
  if (options.native_page == ByteCount(0)) options.native_page = host_page_size();
  auto heap = DeviceHeap::create({.size = options.size,
                                  .native_page = options.native_page,
                                  .thresholds = options.pressure,
                                  .listener = options.listener.get(),
                                  .evictor = options.evictor.get()});
  if (!heap) return fail(heap.error());
  if (options.reserved > ByteCount(0))
    if (auto taken = heap->reserve({RegionOffset(0), options.reserved}); !taken)
      return fail(taken.error());
  // Device memory exists from the start and reads zero; host memory is there when it is placed.
  auto window = MemoryWindow::create(
      options.size, options.domain == Domain::device ? Backdrop::zero : Backdrop::none);
  if (!window) return fail(window.error());
  std::shared_ptr<Region> region(
      new Region(std::move(options), std::move(*window), std::move(*heap)));
  if (region->domain() == Domain::host)
    region->prefaulter_.emplace(region->options_.host.policy.prefault_threads);
  return region;
}

Result<OwnerId> Region::owner_id(RegionOwner& owner) {
  if (!owner.id_) {
    const auto id = heap_.add_owner(owner.account_);
    if (!id) return id;
    owner.id_ = *id;
  }
  return *owner.id_;
}

Result<std::shared_ptr<Allocation>> Region::take_pages(const Taking& taking, RegionOwner& owner) {
  const ByteCount size = taking.size;
  if (size > capacity()) return fail(Errc::no_memory, "size exceeds the region");
  settle();
  const auto id = owner_id(owner);
  if (!id) return fail(id.error());
  // Made before it has pages, so that what fails from here on gives back exactly what it has.
  auto allocation = std::make_shared<Allocation>(shared_from_this(), *id);
  allocation->extents_.reserve(1);
  Allocations entry;
  entry.emplace(AllocationId{}, allocation.get());
  const auto taken = heap_.allocate(
      *id, {.size = size,
            .alignment = taking.alignment,
            .preferred = Alignment(std::bit_floor(std::min(size, large_leaf).value())),
            .lifetime = taking.lifetime,
            .layout = layout_of(taking.contiguity)});
  if (!taken) return fail(taken.error());
  allocation->id_ = taken->id;
  auto node = entry.extract(entry.begin());
  node.key() = taken->id;
  allocations_.insert(std::move(node));
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

Shortage Region::explain(const Request& request, OwnerId owner) const {
  const auto size = round_up(request.size, Alignment(host_page_size().value()));
  return heap_.explain(owner, {.size = std::min(size.value_or(capacity()), capacity()),
                               .layout = layout_of(request.contiguity)});
}

Result<std::shared_ptr<Allocation>> Region::allocate(const Request& request, RegionOwner& owner) {
  if (request.size == ByteCount(0)) return fail(Errc::invalid_argument, "size is zero");
  return domain() == Domain::host ? allocate_on_host(request, owner)
                                  : allocate_on_device(request, owner);
}

Result<std::shared_ptr<Allocation>> Region::allocate_on_device(const Request& request,
                                                               RegionOwner& owner) {
  const auto size = round_up(request.size, Alignment(host_page_size().value()));
  if (!size) return fail(size.error());
  // A CPU's mapping cannot be taken back, so that what CPUs see stays where it is.
  const bool hidden = request.cpu_view == CpuView::none;
  auto taken = take_pages(
      {*size, request.contiguity, Alignment(1), hidden ? Lifetime::short_lived : Lifetime::pinned},
      owner);
  if (!taken || hidden) return taken;

  auto memfd = SealedMemfd::create("accelmm-buffer", (*taken)->size());
  if (!memfd) return fail(memfd.error());
  if (auto placed = place_new(**taken, std::move(*memfd), request.cpu_view); !placed)
    return fail(placed.error());
  if (auto sealed = (*taken)->memfd_->seal(sealing_of(request.cpu_view)); !sealed)
    return fail(sealed.error());
  return taken;
}

// The largest pages first; what was refused stays in the report of what comes after.
Result<std::shared_ptr<Allocation>> Region::allocate_on_host(const Request& request,
                                                             RegionOwner& owner) {
  const auto backing = complete_request(request.backing, options_.host.defaults);
  if (!backing) return fail(backing.error());
  Try attempt{*backing, PageSize::base, {}};
  const auto candidates = page_candidates(backing->pages, backing->rule);
  for (const PageSize pages : candidates) {
    attempt.pages = pages;
    auto made = try_on_host(request, attempt, owner);
    if (made || pages == candidates.back()) return made;
    if (!attempt.refused.pages) attempt.refused.pages = made.error().code;
  }
  return fail(Errc::invalid_argument, "no kind of pages to try");
}

Result<std::shared_ptr<Allocation>> Region::try_on_host(const Request& request, Try attempt,
                                                        RegionOwner& owner) {
  const PageSize pages = attempt.pages;
  const Access outside = access_of(request.cpu_view);
  if (auto may = check_pages(pages, attempt.backing.importable, outside, options_.host.policy);
      !may)
    return fail(may.error());
  const bool pool = is_hugetlb(pages);
  const auto size =
      round_up(request.size, pool ? largest_page(pages) : largest_page(PageSize::base));
  if (!size) return fail(size.error());
  auto taken =
      take_pages({*size, Contiguity::contiguous, pool ? largest_page(pages) : Alignment(1)}, owner);
  if (!taken) return taken;
  Allocation& allocation = **taken;
  auto memfd = SealedMemfd::create("accelmm-buffer", *size, pages);
  if (!memfd) return fail(memfd.error());
  if (auto placed = place_new(allocation, std::move(*memfd), request.cpu_view); !placed)
    return fail(placed.error());
  if (auto settled = settle_backing(allocation, attempt, owner); !settled)
    return fail(settled.error());
  if (auto sealed = allocation.memfd_->seal(sealing_of(request.cpu_view)); !sealed)
    return fail(sealed.error());
  // Last, so that nothing that is given up has threads at work on it.
  if (attempt.backing.prefault == PrefaultPages::yes && !pool)
    if (auto begun = begin_prefault(allocation); !begun) return fail(begun.error());
  return taken;
}

Result<void> Region::settle_backing(Allocation& allocation, Try attempt, const RegionOwner& owner) {
  if (attempt.backing.lock == MemoryLock::locked) {
    auto charge = charge_lock(owner.locked_, allocation.size());
    if (charge) {
      allocation.lock_charge_.emplace(std::move(*charge));
    } else if (attempt.backing.rule == BackingRule::exact) {
      return fail(charge.error());
    } else {
      attempt.backing.lock = MemoryLock::none;
      attempt.refused.lock = charge.error().code;
    }
  }
  auto backing = HostBacking::settle(place_of(allocation), attempt.backing, attempt.pages,
                                     attempt.refused, *prefaulter_);
  if (!backing) return fail(backing.error());
  if (!backing->is_locked()) allocation.lock_charge_.reset();
  allocation.backing_.emplace(std::move(*backing));
  return {};
}

Result<void> Region::begin_prefault(Allocation& allocation) {
  auto timeline = std::make_shared<Timeline>();
  const std::uint64_t point = timeline->next();
  auto done = [timeline, point](Result<void> result) {
    result ? timeline->reach(point) : timeline->fail(point, result.error().code);
  };
  if (auto begun = allocation.backing_->prefault(*prefaulter_, std::move(done)); !begun)
    return begun;
  allocation.prefaulted_ = std::move(timeline);
  return {};
}

// Sealing comes later: sealing against new writable mappings spares the one that the window has.
Result<void> Region::place_new(Allocation& allocation, SealedMemfd memfd, CpuView view) {
  allocation.memfd_ = std::move(memfd);
  allocation.cpu_access_ = access_of(view);
  enter_file(allocation);
  return place(allocation, Access::read_write);
}

Result<void> Region::place(Allocation& allocation, Access window_access) {
  ByteCount offset;
  allocation.places_.reserve(allocation.extents_.size());
  for (const Extent& extent : allocation.extents_) {
    auto placed = window_.place(extent, allocation.memfd_->fd(), offset, window_access);
    if (!placed) return placed;
    allocation.places_.push_back(extent);
    offset += extent.length;
  }
  return {};
}

// Host memory is one extent.
std::span<std::byte> Region::place_of(const Allocation& allocation) const {
  ACCELMM_CHECK(allocation.extents_.size() == 1);
  const Extent& extent = allocation.extents_.front();
  return {window_.data(extent.offset), extent.length.value()};
}

void Region::give_back(Allocation& allocation) noexcept {
  allocations_.erase(allocation.id_);
  if (allocation.memfd_ || allocation.import_) forget_file(allocation);
  if (allocation.backing_) {
    // Nothing writes there any more; what was exported is still somebody's.
    if (allocation.exported_ == Allocation::Exported::no)
      allocation.backing_->clear(allocation.file());
    allocation.backing_.reset();
  }
  if (allocation.import_) return give_back_import(allocation);
  for (std::size_t i = 0; i < allocation.extents_.size(); ++i) {
    const Extent& extent = allocation.extents_[i];
    if (i < allocation.places_.size()) {
      // A place that could not be emptied now is not given out again before it is: see settle().
      if (window_.remove(extent) == Removal::pending) continue;
    } else if (allocation.memfd() == nullptr && domain() == Domain::device) {
      window_.clear(extent);  // what is free reads zero
    }
    ACCELMM_CHECK(heap_.free(allocation.owner_, extent).has_value());
  }
}

void Region::settle() noexcept {
  for (const Extent& extent : window_.settle()) {
    if (settle_import(extent)) continue;
    ACCELMM_CHECK(heap_.free(heap_.owner_of(extent).value(), extent).has_value());
  }
}

}  // namespace accelmm::devices
