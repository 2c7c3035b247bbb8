// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "dmabuf/back_ends.hpp"
#include "dmabuf/export_table.hpp"
#include "dmabuf/importer.hpp"
#include "mm/backing/host_backing.hpp"
#include "mm/backing/memory_window.hpp"
#include "mm/backing/prefault.hpp"
#include "mm/backing/sealed_memfd.hpp"

#include <accelmm/access.hpp>
#include <accelmm/account.hpp>
#include <accelmm/backing.hpp>
#include <accelmm/device_heap.hpp>
#include <accelmm/extent.hpp>
#include <accelmm/timeline.hpp>

#include <map>
#include <memory>
#include <optional>
#include <span>
#include <vector>

namespace accelmm::devices {

class Region;

/// Whose memory it is.
enum class Domain : std::uint8_t { host, device };

/// What one account holds of a region: its owner in the region's heap. An allocation may outlive
/// it. `locked` is the account of what may not be swapped out; none where nothing may be locked.
///
/// Threads  the loop's.
class RegionOwner {
 public:
  RegionOwner(std::shared_ptr<Region> region, std::shared_ptr<Account> account,
              std::shared_ptr<Account> locked = nullptr)
      : region_(std::move(region)), account_(std::move(account)), locked_(std::move(locked)) {}
  ~RegionOwner();
  RegionOwner(const RegionOwner&) = delete;
  RegionOwner& operator=(const RegionOwner&) = delete;

  [[nodiscard]] Region& region() const { return *region_; }

 private:
  friend class Region;
  std::shared_ptr<Region> region_;
  std::shared_ptr<Account> account_;
  std::shared_ptr<Account> locked_;
  std::optional<OwnerId> id_;  // from the first allocation on
};

/// Extents of one region, with the memory behind them and whoever is charged for it. Shared by
/// views.
///
/// Lifetime  the last reference gives the memory back; it is dropped in the loop's thread, after
/// the device has been
///           invalidated for every mapping of it.
class Allocation : public std::enable_shared_from_this<Allocation> {
 public:
  /// Without extents yet: Region gives it those.
  Allocation(std::shared_ptr<Region> region, OwnerId owner)
      : region_(std::move(region)), owner_(owner) {}
  ~Allocation();
  Allocation(const Allocation&) = delete;
  Allocation& operator=(const Allocation&) = delete;

  [[nodiscard]] Domain domain() const;
  [[nodiscard]] Region& region() const { return *region_; }
  [[nodiscard]] std::span<const Extent> extents() const { return extents_; }
  [[nodiscard]] ByteCount size() const;
  /// The file that the extents lie in, one after the other from its beginning; null if no CPU
  /// outside can reach them, or somebody else made it.
  [[nodiscard]] const SealedMemfd* memfd() const { return memfd_ ? &*memfd_ : nullptr; }
  /// Where others made it; null: nobody did.
  [[nodiscard]] const dmabuf::Import* imported() const { return import_ ? &*import_ : nullptr; }
  /// Where a range of it lies for CPUs outside.
  /// Errors  not_supported: nowhere, or not all in one file.
  /// Pre     the range lies inside, length > 0.
  [[nodiscard]] Result<dmabuf::FileRange> file_range(ByteCount offset, ByteCount length) const;
  /// What the device may do with it: imports can be read-only.
  [[nodiscard]] Access device_access() const { return device_access_; }
  /// What CPUs outside the driver process may do with it.
  [[nodiscard]] Access cpu_access() const { return cpu_access_; }
  /// The extents of [offset, offset + length). Pre: the range lies inside, length > 0.
  [[nodiscard]] std::vector<Extent> slice(ByteCount offset, ByteCount length) const;
  /// Who is charged for it; it may have ended.
  [[nodiscard]] OwnerId owner() const { return owner_; }

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
  friend struct MovedAllocation;
  [[nodiscard]] FdView file() const;
  std::shared_ptr<Region> region_;
  std::vector<Extent> extents_;
  OwnerId owner_;
  AllocationId id_{};
  std::uint32_t moves_ = 0;  // of its extents, begun and not ended
  std::optional<Charge> lock_charge_;
  std::optional<SealedMemfd> memfd_;
  std::optional<dmabuf::Import> import_;
  std::optional<HostBacking> backing_;  // host memory
  std::shared_ptr<Timeline> prefaulted_;
  enum class Exported : std::uint8_t { no, yes } exported_ = Exported::no;
  Access device_access_ = Access::read_write;
  Access cpu_access_ = Access::read_write;
  // What the window shows of it: extents, or pieces of the one extent of an import. The rest was
  // not placed when an error came.
  std::vector<Extent> places_;
  // An import of several pieces whose places could not all be emptied at once.
  struct Emptying {
    Extent whole;
    OwnerId owner;
    std::size_t places = 0;
  };
  std::map<RegionOffset, Emptying>::node_type emptying_;
};

/// The extents of [offset, offset + length) of what lies in `extents`, one after the other.
/// Pre: the range lies inside, length > 0.
[[nodiscard]] std::vector<Extent> slice(std::span<const Extent> extents, ByteCount offset,
                                        ByteCount length);

/// An allocation, and where its bytes are to be.
struct MovedAllocation {
  /// Throws std::bad_alloc.
  explicit MovedAllocation(std::shared_ptr<Allocation> of)
      : allocation(std::move(of)), extents(allocation->extents_) {}

  void take(const DeviceHeap::Move& move);
  /// The bytes are there.
  void apply() noexcept { allocation->extents_.swap(extents); }

  std::shared_ptr<Allocation> allocation;
  std::vector<Extent> extents;
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
    DeviceHeap::Thresholds pressure = {};
    std::shared_ptr<PressureListener> listener = nullptr;
    HostMemory host = {};
    std::shared_ptr<const dmabuf::BackEnds> sharing = nullptr;  ///< null: memory files only
  };
  /// Errors  invalid_argument: defaults of backing that contradict themselves.
  ///         Those of DeviceHeap::create() and reserve(), of mmap(2).
  [[nodiscard]] static Result<std::shared_ptr<Region>> create(Options options);

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
                                                             RegionOwner& owner);
  /// Makes somebody's memory part of the region. What is here already is not made again: an
  /// allocation of this region that was exported whole, or the same import.
  [[nodiscard]] Result<std::shared_ptr<Allocation>> import(dmabuf::Import view, RegionOwner& owner);
  /// A view as descriptors for others. What somebody else made is passed on as it came.
  /// Errors  as dmabuf::Exporter::export_view().  not_supported: no CPU outside can reach it, or a
  ///         part of an import.
  [[nodiscard]] Result<std::vector<dmabuf::Piece>> export_view(Allocation& allocation,
                                                               ByteCount offset, ByteCount length,
                                                               const dmabuf::ExportOptions& how);
  [[nodiscard]] const std::shared_ptr<const dmabuf::BackEnds>& back_ends() const {
    return exports_.back_ends();
  }
  [[nodiscard]] const dmabuf::BackEnds& sharing() const { return *exports_.back_ends(); }
  /// The dma-bufs of this region that somebody else holds, added to a list. Throws std::bad_alloc.
  void list_exports(std::vector<ExportedBuffer>& list);

  /// Why the owner, if there is one, does not get what it asks for.
  [[nodiscard]] Shortage explain(const Request& request, OwnerId owner) const;
  /// Who has never allocated is nobody in the heap.
  [[nodiscard]] static OwnerId id_of(const RegionOwner& owner) {
    return owner.id_.value_or(OwnerId{});
  }

  /// What moves reach the goal, with those owners' memory alone; as DeviceHeap::plan_moves().
  [[nodiscard]] Result<std::vector<DeviceHeap::Move>> plan_moves(ByteCount budget,
                                                                 const DeviceHeap::Goal& goal,
                                                                 std::span<const OwnerId> owners);
  /// Null: there is no such allocation.
  [[nodiscard]] std::shared_ptr<Allocation> find(AllocationId id) const;
  /// As DeviceHeap::begin_move(): all or none.
  [[nodiscard]] Result<void> begin_moves(std::span<const DeviceHeap::Move> moves);
  /// Nothing uses the old places any more: they are free, and read zero.
  void commit_moves(std::span<const DeviceHeap::Move> moves) noexcept;
  /// Nothing uses the new ones.
  void abort_moves(std::span<const DeviceHeap::Move> moves) noexcept;
  /// Gives back empty native pages that sessions keep.
  void trim() noexcept { heap_.trim(); }

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
  struct Taking {
    ByteCount size;
    Contiguity contiguity;
    Alignment alignment;  // of contiguous extents; 1: what suits the size
    Lifetime lifetime = Lifetime::short_lived;
  };
  using Allocations = std::map<AllocationId, Allocation*>;
  using Files = std::multimap<FileIdentity, Allocation*>;
  [[nodiscard]] Result<std::shared_ptr<Allocation>> take_pages(const Taking& taking,
                                                               RegionOwner& owner);
  [[nodiscard]] Result<std::shared_ptr<Allocation>> allocate_on_device(const Request& request,
                                                                       RegionOwner& owner);
  [[nodiscard]] Result<std::shared_ptr<Allocation>> allocate_on_host(const Request& request,
                                                                     RegionOwner& owner);
  // One try to make host memory of one kind of pages.
  struct Try {
    BackingRequest backing;  // complete
    PageSize pages;
    BackingRefusals refused;  // of the tries before
  };
  [[nodiscard]] Result<std::shared_ptr<Allocation>> try_on_host(const Request& request, Try attempt,
                                                                RegionOwner& owner);
  [[nodiscard]] Result<void> settle_backing(Allocation& allocation, Try attempt,
                                            const RegionOwner& owner);
  [[nodiscard]] Result<void> begin_prefault(Allocation& allocation);
  [[nodiscard]] std::shared_ptr<Allocation> find_import(const dmabuf::Import& view) const;
  [[nodiscard]] std::shared_ptr<Allocation> find_origin(const dmabuf::Import& view) const;
  [[nodiscard]] Result<void> place_import(Allocation& allocation);
  void enter_file(Allocation& allocation);
  void forget_file(Allocation& allocation) noexcept;
  void give_back_import(Allocation& allocation) noexcept;
  [[nodiscard]] bool settle_import(Extent place) noexcept;
  [[nodiscard]] Result<void> place_new(Allocation& allocation, SealedMemfd memfd, CpuView view);
  [[nodiscard]] Result<void> place(Allocation& allocation, Access window_access);
  [[nodiscard]] std::span<std::byte> place_of(const Allocation& allocation) const;
  void give_back(Allocation& allocation) noexcept;

  const Options options_;
  MemoryWindow window_;
  DeviceHeap heap_;
  Allocations allocations_;
  dmabuf::ExportTable exports_;
  Files files_;  // of allocations, by the file that they begin in
  std::map<RegionOffset, Allocation::Emptying> emptying_;
  std::optional<Prefaulter> prefaulter_;  // host memory
};

}  // namespace accelmm::devices
