// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "devices/account.hpp"
#include "mm/backing/memory_window.hpp"
#include "mm/backing/sealed_memfd.hpp"

#include <accelmm/access.hpp>
#include <accelmm/extent.hpp>
#include <accelmm/page_allocator.hpp>

#include <memory>
#include <optional>
#include <span>
#include <vector>

namespace accelmm::devices {

class Region;

/// Whose memory it is.
enum class Domain : std::uint8_t { host, device };

/// Extents of one region, with the memory behind them and whoever is charged for it. Shared by
/// views.
///
/// Lifetime  the last reference gives the memory back; it is dropped in the loop's thread, after
/// the device has been
///           invalidated for every mapping of it.
class Allocation {
 public:
  /// Without extents yet: Region gives it those.
  Allocation(std::shared_ptr<Region> region, Charge charge)
      : region_(std::move(region)), charge_(std::move(charge)) {}
  ~Allocation();
  Allocation(const Allocation&) = delete;
  Allocation& operator=(const Allocation&) = delete;

  [[nodiscard]] Domain domain() const;
  [[nodiscard]] std::span<const Extent> extents() const { return extents_; }
  [[nodiscard]] ByteCount size() const;
  /// The file that the extents lie in, one after the other from its beginning; null if no CPU
  /// outside can reach them.
  [[nodiscard]] const SealedMemfd* memfd() const { return memfd_ ? &*memfd_ : nullptr; }
  /// What the device may do with it: imports can be read-only.
  [[nodiscard]] Access device_access() const { return device_access_; }
  /// What CPUs outside the driver process may do with it.
  [[nodiscard]] Access cpu_access() const { return cpu_access_; }
  /// The extents of [offset, offset + length). Pre: the range lies inside, length > 0.
  [[nodiscard]] std::vector<Extent> slice(ByteCount offset, ByteCount length) const;

 private:
  friend class Region;
  std::shared_ptr<Region> region_;
  std::vector<Extent> extents_;
  Charge charge_;
  std::optional<SealedMemfd> memfd_;
  Access device_access_ = Access::read_write;
  Access cpu_access_ = Access::read_write;
  std::size_t placed_ =
      0;  // extents that the window shows; the rest was not placed when an error came
};

/// A piece of an allocation; holds a reference. Mappings, exports and imports refer to these.
struct View {
  std::shared_ptr<Allocation> allocation;
  ByteCount offset;
  ByteCount length;
};

/// A range of memory managed as a whole: the window of host buffers, or the memory of one device.
///
/// Threads   the loop's; the window itself is read and written by devices at any time.
class Region : public std::enable_shared_from_this<Region> {
 public:
  /// `reserved` bytes at the beginning are never allocated.
  [[nodiscard]] static Result<std::shared_ptr<Region>> create(Domain domain, ByteCount size,
                                                              ByteCount reserved);

  enum class Contiguity : std::uint8_t { contiguous, scattered };
  enum class CpuView : std::uint8_t { none, read_only, read_write };
  struct Request {
    ByteCount size;
    Contiguity contiguity;
    CpuView cpu_view;
  };
  /// Zeroed memory. Errors: invalid_argument (size 0), overflow, over_quota, no_memory, any of
  /// memfd_create(2), mmap(2).
  [[nodiscard]] Result<std::shared_ptr<Allocation>> allocate(
      const Request& request, const std::shared_ptr<Account>& account);
  /// Makes somebody's memory part of the region.
  [[nodiscard]] Result<std::shared_ptr<Allocation>> import(SealedMemfd memfd,
                                                           const std::shared_ptr<Account>& account);

  [[nodiscard]] Domain domain() const { return domain_; }
  [[nodiscard]] MemoryWindow& window() { return window_; }
  [[nodiscard]] ByteCount size() const { return size_; }
  /// Bytes that can be allocated in total, and what of them is taken.
  [[nodiscard]] ByteCount capacity() const { return size_ - reserved_; }
  [[nodiscard]] ByteCount used() const { return used_; }

 private:
  friend class Allocation;
  Region(Domain domain, MemoryWindow window, PageAllocator pages, ByteCount size,
         ByteCount reserved);
  [[nodiscard]] Result<std::shared_ptr<Allocation>> take_pages(
      ByteCount size, Contiguity contiguity, const std::shared_ptr<Account>& account);
  [[nodiscard]] Result<void> place(Allocation& allocation, Access window_access);
  void give_back(Allocation& allocation) noexcept;
  void settle() noexcept;

  Domain domain_;
  MemoryWindow window_;
  PageAllocator pages_;
  ByteCount size_;
  ByteCount reserved_;
  ByteCount used_;
};

}  // namespace accelmm::devices
