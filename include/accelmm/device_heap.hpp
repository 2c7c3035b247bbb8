// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/account.hpp>
#include <accelmm/error.hpp>
#include <accelmm/extent.hpp>
#include <accelmm/page_allocator.hpp>
#include <accelmm/units.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace accelmm {

/// Names an owner of a heap; never used again.
enum class OwnerId : std::uint64_t {};
/// Names an allocation of a heap; never used again.
enum class AllocationId : std::uint64_t {};

/// How much of a heap can still be had.
enum class Pressure : std::uint8_t { none, low, critical };

/// Hears when a heap gets short of memory, and when it no longer is.
///
/// Threads   the one whose call changed it, under no lock, one call at a time. May call the heap.
class PressureListener {
 public:
  virtual ~PressureListener() = default;
  virtual void on_pressure(Pressure pressure, ByteCount available) noexcept = 0;
};

/// Makes room in a heap before it reports that there is none.
///
/// Threads   the one that allocates, under no lock, so several at once. Frees or moves what it can;
///           it must not allocate from the heap.
class Evictor {
 public:
  virtual ~Evictor() = default;
  /// Returns the bytes it freed; 0 ends the asking.
  [[nodiscard]] virtual ByteCount evict(ByteCount needed) noexcept = 0;
};

/// How far a device has come on the timeline that free_after() counts by.
///
/// Threads   the one that allocates, under no lock, so several at once.
class DeviceProgress {
 public:
  virtual ~DeviceProgress() = default;
  [[nodiscard]] virtual std::uint64_t reached() noexcept = 0;
};

/// Why a request was not served, or would not be.
struct Shortage {
  static constexpr std::size_t orders = 16;
  static constexpr std::size_t shown_owners = 16;
  struct Owner {
    OwnerId id{};
    AccountName name{};
    AccountName above{};  ///< of the account above, e.g. the user's
    bool closed = false;
    ByteCount held{};       ///< native pages, what waits for a point included
    ByteCount peak{};       ///< of held
    ByteCount requested{};  ///< what it asked for, of what it holds
    ByteCount pending{};    ///< requested, freed, and waiting for a point
    std::uint64_t allocations = 0;
  };

  ByteCount wanted{};  ///< the request, rounded up as it would be
  ByteCount native_page{};
  ByteCount total{};
  ByteCount free{};
  ByteCount largest_free{};  ///< longest run of free native pages
  ByteCount spare{};         ///< empty native pages kept for small pieces: given up before an error
  ByteCount pending{};       ///< held by what waits for a point
  ByteCount reserved{};      ///< taken out by reserve()
  ByteCount moving{};        ///< held twice, until moves end
  ByteCount small_slack{};   ///< held by small pieces beyond what was asked for
  ByteCount quota_left{};    ///< of the owner that asks, in its account and all above it
  ByteCount moves_to_make{};  ///< least bytes to move so that one run is long enough; 0: none helps
  /// Free bytes in runs of at least 2^k native pages.
  std::array<ByteCount, orders> free_in_runs = {};
  /// Who holds most, most first.
  std::array<Owner, shown_owners> owners = {};
  std::size_t owner_count = 0;   ///< of the table
  std::size_t other_owners = 0;  ///< that hold less than those
  /// Who asks, whether it is among those or not; nobody: its id is 0.
  Owner asking = {};

  /// 1 - what is free in runs of 2^order native pages or more, of what is free.
  [[nodiscard]] double fragmentation(std::size_t order) const;
  /// Several lines. Throws std::bad_alloc.
  [[nodiscard]] std::string text() const;
};

/// The memory of a device, as numbers: who holds which part of it, and who may hold how much.
///
/// Requests of a native page or more get native pages. Smaller ones share native pages, each of one
/// owner only: the device's MMU maps whole native pages, and would show a neighbour to whoever is
/// mapped there. Device memory is never touched.
/// Owns      its metadata: that of a PageAllocator, about 300 bytes an allocation, and for each
///           native page that small pieces share, that of a PageAllocator of its granules.
/// Units     byte offsets and lengths.
/// Threads   any; one lock. Listener and evictor are called under none.
/// Lifetime  move-only, not while others use it; destroying it with allocations is allowed.
/// Invariant every native page is free, spare, reserved, moving, or held by exactly one owner; each
///           account is charged for what its owners hold -> validate().
/// Cost      O(log allocations); small requests also O(native pages that the owner shares).
/// Source    docs/device_heap.md, docs/adr/0013-a-native-page-has-one-owner.md.
class DeviceHeap {
 public:
  /// Below `low` bytes that can be had, or below `critical`, the listener hears of it; and again
  /// once there are `relief` more than that.
  struct Thresholds {
    ByteCount low{};
    ByteCount critical{};
    ByteCount relief{};
  };

  struct Options {
    ByteCount size;  ///< a multiple of the native page
    /// What the device's MMU maps at least, a multiple of 4096.
    ByteCount native_page{4096};
    /// Empty native pages that an owner keeps for its next small piece. They are charged to nobody,
    /// and given up before a request fails.
    std::uint32_t spare_pages = 1;
    Thresholds thresholds = {};
    PressureListener* listener = nullptr;  ///< must outlive the heap
    Evictor* evictor = nullptr;            ///< must outlive the heap
    DeviceProgress* progress = nullptr;    ///< asked before a request fails; must outlive the heap
    std::uint32_t evictions = 4;           ///< how often a request asks the evictor
  };

  enum class Layout : std::uint8_t { contiguous, scattered };
  struct Request {
    ByteCount size;
    Alignment alignment{1};
    /// What it is aligned to where that costs nobody anything; of contiguous ones.
    Alignment preferred{1};
    Lifetime lifetime = Lifetime::short_lived;  ///< pinned is never moved
    Placement placement = Placement::packed;
    Range<RegionOffset> within{};  ///< e.g. a bank; empty: anywhere
    Layout layout = Layout::contiguous;
  };

  struct Allocated {
    AllocationId id;
    Extent extent;            ///< the first
    std::size_t extents = 1;  ///< extents() has the others
  };

  struct Statistics {
    ByteCount total{};
    ByteCount free{};      ///< native pages
    ByteCount held{};      ///< native pages that accounts are charged for
    ByteCount spare{};     ///< empty native pages kept for small pieces
    ByteCount reserved{};  ///< taken out by reserve()
    ByteCount moving{};    ///< native pages that moves go to
    ByteCount shared{};    ///< of held: native pages of small pieces
    ByteCount requested{};
    ByteCount small_requested{};  ///< of requested: by small requests
    ByteCount pending{};          ///< of requested: waiting for a point
    std::uint64_t allocations = 0;
    std::uint64_t pending_allocations = 0;
    std::uint64_t owners = 0;
    bool operator==(const Statistics&) const = default;
  };
  struct Counters {
    std::uint64_t allocated = 0;
    std::uint64_t freed = 0;
    std::uint64_t out_of_memory = 0;  ///< requests that failed so
    std::uint64_t over_quota = 0;
    std::uint64_t evictions = 0;  ///< calls of the evictor
    std::uint64_t moves = 0;      ///< committed
  };

  /// Errors  invalid_argument: the native page is no multiple of 4096, or the size none of it.
  ///         not_supported: a native page that the page allocator cannot cut.
  ///         no_memory: no room for the metadata.
  [[nodiscard]] static Result<DeviceHeap> create(const Options& options);
  DeviceHeap(DeviceHeap&& other) noexcept;
  DeviceHeap& operator=(DeviceHeap&& other) noexcept;
  DeviceHeap(const DeviceHeap&) = delete;
  DeviceHeap& operator=(const DeviceHeap&) = delete;
  ~DeviceHeap();

  /// Makes an owner, charged to `account`; several owners may share one.
  /// Errors  no_memory: no room for it.
  [[nodiscard]] Result<OwnerId> add_owner(std::shared_ptr<Account> account);
  /// Ends an owner: it allocates no more, keeps no spare pages, and is forgotten with its last
  /// allocation, which may outlive it.
  /// Errors  invalid_argument: no such owner, or it is closed.
  [[nodiscard]] Result<void> close_owner(OwnerId owner);

  /// Takes what the request asks for. Sizes are rounded up: to native pages from one native page
  /// on; below to granules of 4096 bytes, and those of at most 2048 bytes to a class of Slab.
  /// Errors  invalid_argument: size 0, the range ends before it begins, or no such owner.
  ///         not_supported: scattered, with a range or an alignment beyond the native page.
  ///         over_quota: a limit of the owner's account, or of one above it.
  ///         no_memory: no such run is free, and the evictor made none; or no room for metadata.
  ///         State unchanged, but that points reached are retired and spare pages given up.
  [[nodiscard]] Result<Allocated> allocate(OwnerId owner, const Request& request);

  /// Gives back an allocation, or one extent of it.
  /// Errors  invalid_argument: not an allocation (extent) that this owner has: freed already,
  ///         waiting for a point, or another's.  busy: it is being moved.  State unchanged.
  [[nodiscard]] Result<void> free(OwnerId owner, AllocationId allocation);
  [[nodiscard]] Result<void> free(OwnerId owner, Extent extent);

  /// Gives an allocation back once the device has reached `point`, at once if it has. Until then it
  /// stays charged. Never fails for want of memory.
  /// Errors  as free().
  [[nodiscard]] Result<void> free_after(OwnerId owner, AllocationId allocation,
                                        std::uint64_t point);
  /// The device has reached `point`: frees what waited for it, in batches. Returns the bytes that
  /// were asked for. A point below an earlier one changes nothing.
  ByteCount retire(std::uint64_t point);

  /// Gives back all empty native pages of all owners. Returns their bytes.
  ByteCount trim();

  /// Takes exactly these native pages out, e.g. firmware's; for ever.
  /// Errors  invalid_argument: not native pages of the heap.  address_in_use.  no_memory.
  [[nodiscard]] Result<void> reserve(Extent extent);

  /// Whose extent it is. Errors  invalid_argument: nobody's, or it waits for a point.
  [[nodiscard]] Result<OwnerId> owner_of(Extent extent) const;
  /// The extents of a live allocation. Errors  invalid_argument: there is none.  no_memory.
  [[nodiscard]] Result<std::vector<Extent>> extents(AllocationId allocation) const;

  /// Keeps an allocation where it is until unpin() was called as often.
  /// Errors  invalid_argument: no live allocation.  busy: it is being moved.
  [[nodiscard]] Result<void> pin(AllocationId allocation);
  /// Errors  invalid_argument: no live allocation, or it is not pinned.
  [[nodiscard]] Result<void> unpin(AllocationId allocation);

  struct Move {
    AllocationId allocation{};
    Extent from;
    Extent to;
    bool operator==(const Move&) const = default;
  };
  /// What moves are to bring about.
  struct Goal {
    enum class Kind : std::uint8_t {
      run,    ///< one free run of `size` bytes, of native pages
      pages,  ///< native pages emptied of small pieces; each owner's stay its own
    };
    Kind kind = Kind::run;
    ByteCount size;          ///< of the run
    Alignment alignment{1};  ///< of the run
  };
  /// A list of moves of at most `budget` bytes that reach the goal if all are made; empty if none
  /// is needed, or none does. Of a goal of pages, those that free most for what they move. No
  /// two extents of the list overlap, so that they may be made in any order, also at once; the
  /// list is in the order of `from`.
  /// Errors  no_memory: no room for the list.
  [[nodiscard]] Result<std::vector<Move>> plan_moves(ByteCount budget, const Goal& goal) const;
  /// Takes the place that a move goes to. The driver then copies, and maps the allocation there.
  /// Errors  invalid_argument: the allocation has no such extent, is pinned, or may not lie there;
  ///         or the extent is being moved already.  address_in_use: the place is not free.
  ///         no_memory: no room to note it.  State unchanged.
  [[nodiscard]] Result<void> begin_move(const Move& move);
  /// The extent is where the move went: its old place is freed.
  /// Errors  invalid_argument: no such move was begun.
  [[nodiscard]] Result<void> commit_move(const Move& move);
  /// The extent stays where it was. Errors  as commit_move().
  [[nodiscard]] Result<void> abort_move(const Move& move);

  /// Why `owner` does not get what it asks for. Allocates no memory: it can be asked right after a
  /// request has failed. What other threads change in between is seen.
  /// Cost  O(native extents + owners), under the lock.
  [[nodiscard]] Shortage explain(OwnerId owner, const Request& request) const;

  [[nodiscard]] Pressure pressure() const;
  /// Cost  O(1).
  [[nodiscard]] Statistics statistics() const;
  [[nodiscard]] Counters counters() const;
  /// The same as statistics(), counted anew from the records.
  /// Cost  O(allocations).
  [[nodiscard]] Statistics recount() const;
  /// Checks every invariant, and aborts if one is broken.
  /// Cost  O(metadata).
  void validate() const;

 private:
  struct State;
  explicit DeviceHeap(std::unique_ptr<State> state) noexcept;

  std::unique_ptr<State> state_;
};

}  // namespace accelmm
