// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/error.hpp>
#include <accelmm/extent.hpp>
#include <accelmm/page_allocator.hpp>
#include <accelmm/slab_recent.hpp>
#include <accelmm/units.hpp>

#include <array>
#include <cstdint>
#include <memory>
#include <span>

namespace accelmm {

/// Where a Slab has its memory from.
///
/// Threads  both functions may be called from any thread, several at once; the Slab holds no lock
///          when it calls.
class SlabSource {
 public:
  virtual ~SlabSource() = default;
  /// Gives exactly `size` bytes at a multiple of `alignment`.
  /// Errors  whatever allocate() of the Slab is to report.
  [[nodiscard]] virtual Result<Extent> grow(ByteCount size, Alignment alignment) = 0;
  /// Takes back what grow() gave.
  virtual void give_back(Extent extent) = 0;
};

/// Slabs out of a page allocator, which must outlive it.
class PageAllocatorSource final : public SlabSource {
 public:
  explicit PageAllocatorSource(PageAllocator& pages) noexcept : pages_(pages) {}
  [[nodiscard]] Result<Extent> grow(ByteCount size, Alignment alignment) override;
  void give_back(Extent extent) override;

 private:
  PageAllocator& pages_;
};

/// An allocator of small objects, 16 bytes to 16 KiB, in memory that it never touches.
///
/// Hands out offsets inside extents that a source gives it: of host windows, of device memory, of a
/// BAR. Sizes are rounded up to one of 64 classes: multiples of 16 bytes to 256, then eight a
/// doubling. An object is aligned to the largest power of two that divides the size of its class.
/// Owns      its metadata, outside what it manages: two bits an object and 72 to 128 bytes a slab
///           (1.7 % of slabs of 16-byte objects, 0.9 % of 32-byte ones, less of larger); 8 bytes
///           for 64 KiB of the region; 16 KiB for each processor, 48 with trusted bulk. What a
///           class needed at its peak is kept until the end.
/// Units     byte offsets and lengths.
/// Threads   any. Taking and freeing on one processor share nothing with others, unless they are
///           of the same 32 neighbouring objects; a lock a class is behind that, and none is held
///           when the source is called.
/// Lifetime  move-only, not while others use it; destroying it gives every slab back, live objects
///           or not. A moved-from Slab may only be destroyed or assigned to.
/// Invariant an object is live, or can be had again by allocate(), never both -> validate().
/// Cost      allocate and free: no call where a processor frees and takes the same object by turns;
///           no locked instruction for objects of the 32 neighbours that it takes from at the
///           moment; otherwise one or two compare-and-swaps.
/// Source    Bonwick, Adams: Magazines and vmem, USENIX 2001; docs/mm.md.
class Slab {
 public:
  static constexpr unsigned class_count = 64;
  static constexpr ByteCount largest{16384};

  enum class Spacing {
    packed,
    cache_lines,  ///< no two objects share a cache line of 64 bytes: a device may write into one
                  ///< while the processor writes into its neighbour
  };
  enum class Order {
    lowest_first,
    random,  ///< which free object of 32 neighbours is taken cannot be foretold
  };
  enum class Bulk {
    checked,
    /// free_bulk() believes that the offsets begin live objects of one class, none of them twice,
    /// and does not look at them: the next allocate_bulk() of the class on that processor has them
    /// first. What is freed wrongly, there or twice, is had by two. Checked all the same where
    /// there is a quarantine or the order is random.
    trusted,
  };
  /// Freed objects wait here before they can be had again: so many in random places, then so many
  /// in a queue. None by default.
  struct Quarantine {
    std::uint32_t random = 0;
    std::uint32_t queue = 0;
  };
  struct Options {
    SlabSource* source = nullptr;  ///< must outlive the Slab
    ByteCount region = {};         ///< every extent of the source ends here or below
    Spacing spacing = Spacing::packed;
    Order order = Order::lowest_first;
    Quarantine quarantine = {};
    Bulk bulk = Bulk::checked;
    /// Empty slabs kept a class, beyond which they go back to the source at once.
    std::uint32_t spare_slabs = 1;
  };

  struct ClassStatistics {
    ByteCount object_size;
    std::uint64_t live = 0;    ///< objects, those in quarantine included
    std::uint64_t cached = 0;  ///< free objects at hand of some processor
    std::uint64_t slabs = 0;
    ByteCount slab_bytes;  ///< all of them
  };
  struct Statistics {
    ByteCount live;  ///< bytes of live objects, by the sizes of their classes
    std::uint64_t live_objects = 0;
    std::uint64_t quarantined = 0;
    ByteCount from_source;  ///< bytes of all slabs
    ByteCount metadata;
    std::array<ClassStatistics, class_count> classes = {};
  };

  /// Makes a Slab without slabs.
  /// Errors  invalid_argument: no source, or the region is 0 or beyond 2^60.
  ///         no_memory: no room for the metadata.
  [[nodiscard]] static Result<Slab> create(const Options& options);

  Slab(Slab&& other) noexcept;
  Slab& operator=(Slab&& other) noexcept;
  Slab(const Slab&) = delete;
  Slab& operator=(const Slab&) = delete;
  ~Slab();

  /// Takes an object of at least `size` bytes. The length is that of its class.
  /// Errors  invalid_argument: size is 0 or above largest.
  ///         what the source said; fault: it gave what was not asked for.
  ///         no_memory: no room for metadata.  State unchanged.
  [[nodiscard]] Result<Extent> allocate(ByteCount size) {
    mm::SlabObject taken;
    if (!mm::take_recent(recents_, size.value(), taken)) {
      taken = take_quickly(size);
      if (taken.size == 0) [[unlikely]]
        return allocate_slowly(size);
    }
    return Extent{.offset = RegionOffset(taken.offset), .length = ByteCount(taken.size)};
  }

  /// Takes as many objects as `offsets` has room for, or none. Each may be freed on its own.
  /// Errors  as allocate(); what `offsets` holds then means nothing.
  [[nodiscard]] Result<void> allocate_bulk(ByteCount size, std::span<RegionOffset> offsets) {
    if (take_trusted(size, offsets)) return {};
    return allocate_bulk_slowly(size, offsets);
  }

  /// Gives an object back.
  /// Errors  invalid_argument: no live object begins there (double free, foreign, interior). State
  ///         unchanged. Always detected, also where two threads free the same; but if both do at
  ///         the same moment, on two processors, one of which takes from these neighbours, both may
  ///         be told that they did: the object is then lost until it is freed once more, and never
  ///         had by two.
  [[nodiscard]] Result<void> free(RegionOffset offset) {
    if (!mm::give_recent(recents_, offset.value()) && !give_back(offset)) [[unlikely]]
      return fail(Errc::invalid_argument, "no live object begins there");
    return {};
  }

  /// Gives objects back, of any sizes in any order; fastest where neighbours stand together.
  /// Errors  invalid_argument: no live object begins at one of them, and then nothing is freed; or
  ///         one stands there twice or was freed meanwhile by another thread, and then each live
  ///         one is freed once.
  [[nodiscard]] Result<void> free_bulk(std::span<const RegionOffset> offsets) {
    if (!give_back_bulk(offsets)) [[unlikely]]
      return fail(Errc::invalid_argument, "no live object begins there");
    return {};
  }

  /// The size of the live object that begins there.
  /// Errors  as free().
  [[nodiscard]] Result<ByteCount> usable_size(RegionOffset offset) const;

  /// Takes from all processors what they have at hand, so that others can have it. Called by
  /// allocate() itself before it fails.
  /// Cost  a system call a processor.
  void drain();

  /// Frees what is in quarantine, drains, and gives every empty slab back. Returns how many bytes
  /// these slabs have.
  ByteCount trim();

  /// Cost  O(metadata); none to the other functions.
  [[nodiscard]] Statistics statistics() const;

  /// Drains, then makes all lists and counts anew from the objects' marks. Returns how many of them
  /// were wrong: 0, unless the metadata was damaged.
  /// Pre  no other thread uses the Slab.
  [[nodiscard]] std::uint64_t recount();

  /// Checks every invariant, and aborts if one is broken.
  /// Pre   no other thread uses the Slab.
  /// Cost  O(metadata).
  void validate() const;

 private:
  struct State;
  [[nodiscard]] mm::SlabObject take_quickly(ByteCount size) const noexcept;
  [[nodiscard]] Result<Extent> allocate_slowly(ByteCount size);
  [[nodiscard]] bool give_back(RegionOffset offset);
  [[nodiscard]] bool take_trusted(ByteCount size, std::span<RegionOffset> offsets) const noexcept;
  [[nodiscard]] Result<void> allocate_bulk_slowly(ByteCount size, std::span<RegionOffset> offsets);
  [[nodiscard]] bool give_back_bulk(std::span<const RegionOffset> offsets);
  explicit Slab(std::unique_ptr<State> state) noexcept;

  mm::SlabRecents recents_;
  std::unique_ptr<State> state_;
};

}  // namespace accelmm
