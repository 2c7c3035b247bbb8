// SPDX-License-Identifier: Apache-2.0
#include "bus/vfio_bus.hpp"

#include "base/mapping.hpp"

#include <accelmm/check.hpp>

#include <algorithm>
#include <bit>
#include <new>
#include <utility>

namespace accelmm {
namespace {

// What a leaf above 4 KiB has in every IOMMU that Linux drives on x86-64.
constexpr std::uint64_t large_page = std::uint64_t{2} << 20;

// The smallest page of the IOMMU, or the host's, whichever is larger: both sides want whole ones.
Alignment page_of(const VfioIommuInfo& info) {
  const std::uint64_t smallest = std::uint64_t{1} << std::countr_zero(info.page_sizes);
  return Alignment(std::max(smallest, host_page_size().value()));
}

}  // namespace

VfioBus::VfioBus(std::shared_ptr<VfioContainer> container, std::span<const std::byte> host_window,
                 IovaBook book)
    : container_(std::move(container)), host_window_(host_window), book_(std::move(book)) {}

VfioBus::~VfioBus() {
  const MutexLock lock(mutex_);
  ACCELMM_CHECK(book_.empty());
}

Result<std::unique_ptr<VfioBus>> VfioBus::create(std::shared_ptr<VfioContainer> container,
                                                 std::span<const std::byte> host_window,
                                                 unsigned address_bits) try {
  const VfioIommuInfo& info = container->info();
  const Alignment page = page_of(info);
  const Alignment large(std::max(large_page, page.value()));
  auto book = IovaBook::create(info.ranges, {page, large, address_bits});
  if (!book) return fail(book.error());
  return std::unique_ptr<VfioBus>(new VfioBus(std::move(container), host_window, std::move(*book)));
} catch (const std::bad_alloc&) {
  return fail(Errc::no_memory, "no memory for a bus");
}

Result<void> VfioBus::check_extents(std::span<const Extent> host_extents) const {
  const Alignment page(host_page_size().value());
  const std::uint64_t size = host_window_.size();
  for (const auto& [offset, length] : host_extents) {
    if (length == ByteCount() || !page.divides(offset) || !page.divides(length))
      return fail(Errc::invalid_argument, "attached memory is not whole pages");
    if (offset.value() > size || length.value() > size - offset.value())
      return fail(Errc::invalid_argument, "attached memory is outside the window");
  }
  return {};
}

Result<std::vector<Run>> VfioBus::attach(std::span<const Extent> host_extents, Access access) {
  if (const auto valid = check_extents(host_extents); !valid) return fail(valid.error());
  std::vector<Run> runs;
  try {
    runs.reserve(host_extents.size());
  } catch (const std::bad_alloc&) {
    return fail(Errc::no_memory, "no memory for bus addresses");
  }
  const MutexLock lock(mutex_);
  for (const Extent& extent : host_extents) {
    const auto run = attach_one(host_window_.data() + extent.offset.value(), extent, access,
                                IovaBook::Entry::shared);
    if (!run) {
      for (const Run& attached : runs) detach_one(attached);
      return fail(run.error());
    }
    runs.push_back(*run);
  }
  return runs;
}

Result<std::vector<Run>> VfioBus::attach_memory(std::span<std::byte> memory, Access access) {
  if (!is_whole_pages(memory))
    return fail(Errc::invalid_argument, "attached memory is not whole pages");
  try {
    std::vector<Run> runs(1);
    // Extents of the window may have the same numbers, but are entered to be shared.
    const Extent extent{RegionOffset(reinterpret_cast<std::uintptr_t>(memory.data())),
                        ByteCount(memory.size())};
    const MutexLock lock(mutex_);
    const auto run = attach_one(memory.data(), extent, access, IovaBook::Entry::own);
    if (!run) return fail(run.error());
    runs.front() = *run;
    return runs;
  } catch (const std::bad_alloc&) {
    return fail(Errc::no_memory, "no memory for bus addresses");
  }
}

Result<Run> VfioBus::attach_one(const std::byte* memory, Extent extent, Access access,
                                IovaBook::Entry entry) {
  const ByteCount phase(reinterpret_cast<std::uintptr_t>(memory) & (large_page - 1));
  const auto entered = book_.enter(extent, access, phase, entry);
  if (!entered) return fail(entered.error());
  if (entered->sharing == IovaBook::Sharing::shared) return entered->run;
  if (const auto mapped = container_->map(entered->run, memory, access); !mapped) {
    book_.leave(entered->run);
    return fail(mapped.error());
  }
  return entered->run;
}

void VfioBus::detach_one(Run run) noexcept {
  if (book_.sharing(run) == IovaBook::Sharing::alone) container_->unmap(run);
  book_.leave(run);
}

void VfioBus::detach(std::span<const Run> runs) noexcept {
  const MutexLock lock(mutex_);
  for (const Run& run : runs) detach_one(run);
}

VfioBus::Statistics VfioBus::statistics() const {
  const MutexLock lock(mutex_);
  return {book_.mappings(), book_.mapped_bytes()};
}

void VfioBus::validate() const {
  const MutexLock lock(mutex_);
  book_.validate();
}

}  // namespace accelmm
