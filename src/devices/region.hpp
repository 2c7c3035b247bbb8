// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "devices/account.hpp"
#include "mm/backing/host_backing.hpp"
#include "mm/backing/memory_window.hpp"
#include "mm/backing/prefault.hpp"
#include "mm/backing/sealed_memfd.hpp"

#include <accelmm/access.hpp>
#include <accelmm/backing.hpp>
#include <accelmm/extent.hpp>
#include <accelmm/page_allocator.hpp>
#include <accelmm/timeline.hpp>

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

  /// What was had for host memory.
  /// Errors  not_supported: device memory.
  [[nodiscard]] Result<BackingReport> backing() const;
  /// Its first point is reached, or fails, when all pages have been made; null: nobody asked for
  /// that. Lives as long as somebody holds it.
  [[nodiscard]] const std::shared_ptr<Timeline>& prefaulted() const { return prefaulted_; }
  /// Others hold the memory from now on, who are not to see it cleared.
  void note_export() { exported_ = Exported::yes; }

 private:
  friend class Region;
  std::shared_ptr<Region> region_;
  std::vector<Extent> extents_;
  Charge charge_;
  std::optional<Charge> lock_charge_;
  std::optional<SealedMemfd> memfd_;
  std::optional<HostBacking> backing_;  // host memory
  std::shared_ptr<Timeline> prefaulted_;
  enum class Exported : std::uint8_t { no, yes } exported_ = Exported::no;
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

/// How a region makes host memory.
struct HostMemory {
  BackingRequest defaults = {};  ///< what sessions leave open
  BackingPolicy policy = {};     ///< what they may have
};

/// A range of memory managed as a whole: the window of host buffers, or the memory of one device.
///
/// Threads   the loop's; the window itself is read and written by devices at any time.
class Region : public std::enable_shared_from_this<Region> {
 public:
  /// `reserved` bytes at the beginning are never allocated.
  /// Errors  invalid_argument: defaults that contradict themselves.  As MemoryWindow::create().
  [[nodiscard]] static Result<std::shared_ptr<Region>> create(Domain domain, ByteCount size,
                                                              ByteCount reserved,
                                                              const HostMemory& host = {});

  enum class Contiguity : std::uint8_t { contiguous, scattered };
  enum class CpuView : std::uint8_t { none, read_only, read_write };
  struct Request {
    ByteCount size;
    Contiguity contiguity;
    CpuView cpu_view;
    BackingRequest backing = {};  ///< host memory
  };
  /// Zeroed memory. Errors: invalid_argument (size 0, a request of backing that contradicts itself),
  /// overflow, over_quota, no_memory, any of memfd_create(2), mmap(2). If backing must be exact:
  /// what could not be had (not_permitted, not_supported, no_memory, over_quota).
  [[nodiscard]] Result<std::shared_ptr<Allocation>> allocate(const Request& request,
                                                             const Payer& payer);
  /// Makes somebody's memory part of the region.
  [[nodiscard]] Result<std::shared_ptr<Allocation>> import(SealedMemfd memfd, const Payer& payer);

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
  struct Taking {
    ByteCount size;
    Contiguity contiguity;
    Alignment alignment;  // of contiguous extents; 1: what suits the size
  };
  [[nodiscard]] Result<std::shared_ptr<Allocation>> take_pages(
      const Taking& taking, const std::shared_ptr<Account>& account);
  [[nodiscard]] Result<std::shared_ptr<Allocation>> allocate_on_device(const Request& request,
                                                                       const Payer& payer);
  [[nodiscard]] Result<std::shared_ptr<Allocation>> allocate_on_host(const Request& request,
                                                                     const Payer& payer);
  // One try to make host memory of one kind of pages.
  struct Try {
    BackingRequest backing;  // complete
    PageSize pages;
    BackingRefusals refused;  // of the tries before
  };
  [[nodiscard]] Result<std::shared_ptr<Allocation>> try_on_host(const Request& request, Try attempt,
                                                                const Payer& payer);
  [[nodiscard]] Result<void> settle_backing(Allocation& allocation, Try attempt,
                                            const std::shared_ptr<Account>& locked);
  [[nodiscard]] Result<void> begin_prefault(Allocation& allocation);
  [[nodiscard]] Result<void> place_new(Allocation& allocation, SealedMemfd memfd, CpuView view);
  [[nodiscard]] Result<void> place(Allocation& allocation, Access window_access);
  [[nodiscard]] std::span<std::byte> place_of(const Allocation& allocation) const;
  void give_back(Allocation& allocation) noexcept;
  void settle() noexcept;

  Domain domain_;
  HostMemory host_;
  MemoryWindow window_;
  PageAllocator pages_;
  std::optional<Prefaulter> prefaulter_;  // host memory
  ByteCount size_;
  ByteCount reserved_;
  ByteCount used_;
};

}  // namespace accelmm::devices
