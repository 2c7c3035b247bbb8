// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/mapping.hpp"
#include "base/mutex.hpp"

#include <accelmm/access.hpp>
#include <accelmm/error.hpp>
#include <accelmm/extent.hpp>
#include <accelmm/fd.hpp>
#include <accelmm/units.hpp>

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

namespace accelmm {

/// What is at the places of a window where no file is.
enum class Backdrop : std::uint8_t {
  none,  ///< nothing: an access is a fault (host buffers)
  zero,  ///< private memory, zero at first, that takes pages as they are written (device memory)
};

/// How far a removal came.
enum class Removal : std::uint8_t {
  done,     ///< the place is backdrop again and may be used again
  pending,  ///< no access reaches it, but the system could not free it: not to be used until
            ///< settle() names it
};

/// One large range of this process's addresses that stands for a region: memory files are placed in
/// it and removed.
///
/// Offsets in the window are offsets of the region. Which extent goes where is decided by a page
/// allocator; the window only makes it memory. Owns      the addresses and the private memory of a
/// zero backdrop; not the files, whose descriptors may be closed
///           as soon as they are placed.
/// Units     whole pages, except read() and write().
/// Threads   any thread. read() and write() hold off the others only for the time of their copy; no
/// system call is
///           made under the lock.
/// Lifetime  move-only; moved while no other thread uses it, and a moved-from window is only to be
/// destroyed. The
///           destructor unmaps everything.
/// Invariant an access through read() and write() reaches what is placed, or a zero backdrop, or
/// nothing; it never
///           reaches a neighbour and never stops the process.
class MemoryWindow {
 public:
  /// Takes the addresses, at a multiple of the largest huge page that is no larger than the window.
  /// A zero backdrop takes no memory until it is written.
  /// Errors  invalid_argument: size is 0 or not whole pages.  overflow.  Any value of mmap(2),
  /// madvise(2).
  [[nodiscard]] static Result<MemoryWindow> create(ByteCount size, Backdrop backdrop);

  /// Puts [fd_offset, fd_offset + extent.length) of a file at an extent.
  /// Errors  invalid_argument: extent or fd_offset is not whole pages, the extent is empty or
  /// leaves the window, or a
  ///         file is too short or may shrink.  not_permitted: writing is wanted and the file is
  ///         sealed against it. address_in_use: something is placed there.  no_memory.  Any value
  ///         of fstat(2), mmap(2). The state is unchanged.
  [[nodiscard]] Result<void> place(Extent extent, FdView fd, ByteCount fd_offset, Access access);

  /// Makes a place backdrop again; a zero backdrop reads zero there. Never fails and never
  /// allocates. When it returns, no read() or write() reaches what was there. Pre     exactly this
  /// extent was placed.
  [[nodiscard]] Removal remove(Extent extent) noexcept;

  /// Tries the pending removals again and returns those that became backdrop. Without memory for
  /// the list nothing is tried, and the list is empty.
  [[nodiscard]] std::vector<Extent> settle() noexcept;
  [[nodiscard]] std::size_t pending_removals() const;

  /// Gives the memory of a zero backdrop back to the system: it reads zero again. Never fails.
  /// Pre     the backdrop is zero, the extent is whole pages inside the window, and nothing is
  /// placed in it.
  void clear(Extent extent) noexcept;

  /// Copies out of the window as BusPort::read() says.
  /// Errors  fault: a byte is outside the window, is not there, or may not be read (nothing was
  /// copied).
  [[nodiscard]] Result<void> read(RegionOffset offset, std::span<std::byte> into) const;
  /// Copies into the window as BusPort::write() says.
  /// Errors  fault: as read(), or a byte may not be written (nothing was copied).
  [[nodiscard]] Result<void> write(RegionOffset offset, std::span<const std::byte> from);

  /// The window as its owner's CPU sees it, for memory that only the owner writes: page tables.
  /// Unchecked beyond the first byte; touching a `none` backdrop stops the process. Pre     offset
  /// lies inside the window.
  [[nodiscard]] std::byte* data(RegionOffset offset) const;

  [[nodiscard]] ByteCount size() const { return size_; }
  [[nodiscard]] Backdrop backdrop() const { return backdrop_; }
  /// How many extents are not backdrop, pending removals included.
  [[nodiscard]] std::size_t placements() const;

 private:
  // An extent is in the map from before the first change to its addresses until after the last, so
  // that nothing else is placed there meanwhile. Only `placed` ones are reached by accesses.
  enum class State : std::uint8_t { placing, placed, removing, stuck };
  struct Placement {
    ByteCount length;
    Access access;
    State state;
  };
  struct Places {
    mutable SharedMutex mutex;
    std::map<RegionOffset, Placement> placements ACCELMM_GUARDED_BY(mutex);
    std::size_t stuck ACCELMM_GUARDED_BY(mutex) = 0;
  };

  MemoryWindow(Mapping addresses, std::byte* base, ByteCount size, Backdrop backdrop,
               std::unique_ptr<Places> places)
      : addresses_(std::move(addresses)),
        base_(base),
        size_(size),
        backdrop_(backdrop),
        places_(std::move(places)) {}

  [[nodiscard]] bool is_inside(Extent extent) const;
  [[nodiscard]] Result<void> make_backdrop(Extent extent, int how_fixed) noexcept;
  void exclude_from_fork(Extent extent) noexcept;
  [[nodiscard]] Result<void> enter(Extent extent, Access access);
  [[nodiscard]] bool overlaps_placement(Extent extent) const
      ACCELMM_REQUIRES_SHARED(places_->mutex);
  [[nodiscard]] bool reaches(RegionOffset offset, ByteCount length, Access wanted) const
      ACCELMM_REQUIRES_SHARED(places_->mutex);
  [[nodiscard]] std::optional<Extent> take_stuck(RegionOffset position) noexcept;
  [[nodiscard]] Removal finish_removal(Extent extent) noexcept;

  Mapping addresses_;  // the window between addresses, at least a page, that are never accessible
  std::byte* base_;
  ByteCount size_;
  Backdrop backdrop_;
  std::unique_ptr<Places> places_;
};

}  // namespace accelmm
