// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "mm/backing/memory_window.hpp"
#include "mm/backing/sealed_memfd.hpp"

#include <accelmm/access.hpp>
#include <accelmm/account.hpp>
#include <accelmm/device_heap.hpp>
#include <accelmm/extent.hpp>

#include <memory>
#include <optional>
#include <span>
#include <vector>

namespace accelmm::devices {

class Region;

/// Whose memory it is.
enum class Domain : std::uint8_t { host, device };

/// What one account holds of a region: its owner in the region's heap. An allocation may outlive
/// it.
///
/// Threads  the loop's.
class RegionOwner {
 public:
  RegionOwner(std::shared_ptr<Region> region, std::shared_ptr<Account> account)
      : region_(std::move(region)), account_(std::move(account)) {}
  ~RegionOwner();
  RegionOwner(const RegionOwner&) = delete;
  RegionOwner& operator=(const RegionOwner&) = delete;

  [[nodiscard]] Region& region() const { return *region_; }

 private:
  friend class Region;
  std::shared_ptr<Region> region_;
  std::shared_ptr<Account> account_;
  std::optional<OwnerId> id_;  // from the first allocation on
};

/// Extents of one region, with the memory behind them and whoever is charged for it. Shared by
/// views.
///
/// Lifetime  the last reference gives the memory back; it is dropped in the loop's thread, after
/// the device has been
///           invalidated for every mapping of it.
class Allocation {
 public:
  /// Without extents yet: Region gives it those.
  Allocation(std::shared_ptr<Region> region, OwnerId owner)
      : region_(std::move(region)), owner_(owner) {}
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
  OwnerId owner_;
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
/// Small allocations share native pages of the device with others of their session only.
///
/// Threads   the loop's; the window itself is read and written by devices at any time.
class Region : public std::enable_shared_from_this<Region> {
 public:
  struct Options {
    Domain domain;
    ByteCount size;
    ByteCount reserved = {};     ///< at the beginning, never allocated
    ByteCount native_page = {};  ///< of the device's MMU; 0: the host's page
    std::shared_ptr<Evictor> evictor = nullptr;
  };
  /// Errors  those of DeviceHeap::create() and reserve(), of mmap(2).
  [[nodiscard]] static Result<std::shared_ptr<Region>> create(Options options);

  enum class Contiguity : std::uint8_t { contiguous, scattered };
  enum class CpuView : std::uint8_t { none, read_only, read_write };
  struct Request {
    ByteCount size;
    Contiguity contiguity;
    CpuView cpu_view;
  };
  /// Zeroed memory. Errors: invalid_argument (size 0), overflow, over_quota, no_memory, any of
  /// memfd_create(2), mmap(2).
  [[nodiscard]] Result<std::shared_ptr<Allocation>> allocate(const Request& request,
                                                             RegionOwner& owner);
  /// Makes somebody's memory part of the region.
  [[nodiscard]] Result<std::shared_ptr<Allocation>> import(SealedMemfd memfd, RegionOwner& owner);

  /// Frees what could not be taken out of the window before. allocate() does so itself.
  void settle() noexcept;
  [[nodiscard]] Domain domain() const { return options_.domain; }
  [[nodiscard]] MemoryWindow& window() { return window_; }
  [[nodiscard]] const DeviceHeap& heap() const { return heap_; }
  [[nodiscard]] ByteCount size() const { return options_.size; }
  /// Bytes that can be allocated in total, and what of them is held: native pages.
  [[nodiscard]] ByteCount capacity() const { return options_.size - options_.reserved; }
  [[nodiscard]] ByteCount used() const { return heap_.statistics().held; }

 private:
  friend class Allocation;
  friend class RegionOwner;
  Region(Options options, MemoryWindow window, DeviceHeap heap);
  [[nodiscard]] Result<OwnerId> owner_id(RegionOwner& owner);
  [[nodiscard]] Result<std::shared_ptr<Allocation>> take_pages(ByteCount size,
                                                               Contiguity contiguity,
                                                               RegionOwner& owner);
  [[nodiscard]] Result<void> place(Allocation& allocation, Access window_access);
  void give_back(Allocation& allocation) noexcept;

  const Options options_;
  MemoryWindow window_;
  DeviceHeap heap_;
};

}  // namespace accelmm::devices
