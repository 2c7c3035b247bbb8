// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/error.hpp>
#include <accelmm/units.hpp>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <span>

namespace accelmm {

/// Gives out intervals of one range of device addresses.
///
/// Never gives out by itself the page at address 0, which reads as null, nor a hint range; both are
/// had by naming their addresses: allocate_at(), reserve_at(), or a hint.
/// Owns      about 24 bytes for each interval and 32 more for each hole, in chunks that double.
/// Units     device addresses and lengths, multiples of the page.
/// Threads   externally synchronised (docs/mm.md "Locking").
/// Lifetime  move-only; destroying it with live intervals is allowed. A moved-from allocator may
///           only be destroyed or assigned to.
/// Invariant intervals tile the range; no two holes touch; each hole is in the bins of its
///           length -> validate().
/// Cost      O(log intervals), with base 17 or more; see allocate() for the exception.
/// Source    TLSF (Masmano et al., 2004) for the holes by length; a B+-tree for all by address.
class VaAllocator {
 public:
  enum class Placement : std::uint8_t {
    best_fit,   // a hole hardly longer than the request
    bottom_up,  // the lowest hole that fits
    top_down,   // the highest, and its upper end
  };

  /// How long freed addresses stay unused, so that a device that still uses them faults: until this
  /// many younger ranges, or bytes, were freed behind them, or until they are needed.
  struct Quarantine {
    std::size_t ranges = 0;  // 0: no quarantine
    ByteCount bytes{std::numeric_limits<std::uint64_t>::max()};
  };

  struct Options {
    Alignment large{std::uint64_t{2} << 20};  // requests aligned to it cost what others do
    ByteCount guard{};                        // behind each allocate(): the least
    // Left alone by allocate() without a hint. At most 8, disjoint, ascending and page-aligned; read
    // by create() only.
    std::span<const Range<DeviceAddr>> hint_ranges{};
    Quarantine quarantine{};
  };

  struct Request {
    ByteCount size{};        // rounded up to whole pages
    Alignment alignment{1};  // below the page means the page
    ByteCount phase{};       // begin % alignment; a multiple of the page
    ByteCount guard{};       // addresses behind it that nobody gets while it lives
    std::optional<Range<DeviceAddr>> within{};  // where to look
    std::optional<DeviceAddr> hint{};           // where it should begin, if that can be had
    Placement placement = Placement::best_fit;
  };

  /// Numbers of bytes and intervals. Bytes of the range are free, taken, guard, reserved or
  /// quarantined.
  struct Statistics {
    ByteCount free{};
    ByteCount taken{};
    ByteCount guard{};
    ByteCount reserved{};     // in whole reservations
    ByteCount quarantined{};  // with their guards
    std::size_t holes = 0;
    std::size_t intervals = 0;  // taken ones
    std::size_t reservations = 0;
    std::size_t quarantined_ranges = 0;
    ByteCount longest{};        // the longest request that would succeed
    ByteCount longest_large{};  // the longest aligned to Options::large
    bool operator==(const Statistics&) const = default;
  };

  /// Errors  invalid_argument: the range is empty or its ends are not page-aligned; hint ranges are
  ///         too many, or are not as Options wants them.
  ///         no_memory: no room for metadata.
  [[nodiscard]] static Result<VaAllocator> create(Range<DeviceAddr> range, Alignment page);
  [[nodiscard]] static Result<VaAllocator> create(Range<DeviceAddr> range, Alignment page,
                                                  const Options& options);

  VaAllocator(VaAllocator&& other) noexcept;
  VaAllocator& operator=(VaAllocator&& other) noexcept;
  VaAllocator(const VaAllocator&) = delete;
  VaAllocator& operator=(const VaAllocator&) = delete;
  ~VaAllocator();

  /// Takes `size` bytes, rounded up to whole pages, from a small hole that fits, so that
  /// begin % alignment == phase.
  /// Errors  as allocate(Request).
  [[nodiscard]] Result<Range<DeviceAddr>> allocate(ByteCount size, Alignment alignment,
                                                   ByteCount phase = ByteCount(0));

  /// Takes what the request asks for. best_fit with `within` takes the smallest of the 8 lowest
  /// holes that fit there. A hint that cannot be followed is ignored, 0 too: compare the result.
  /// Errors  invalid_argument: size is 0, phase >= alignment, phase is no multiple of the page,
  ///         `within` is not page-aligned or not inside the range, or the guard is 2^30 pages.
  ///         no_memory: no hole fits, or no room for metadata (state unchanged, but that no hole
  ///         fits ends all quarantine).
  /// Cost    O(log intervals). Only for an alignment beyond the page and other than `large`, and
  ///         when all holes of size + alignment bytes are gone, all holes of size bytes are walked.
  [[nodiscard]] Result<Range<DeviceAddr>> allocate(const Request& request);

  /// Takes exactly this interval, and `guard` behind it. Addresses in quarantine count as free, and
  /// are taken at the price of ending all quarantine.
  /// Errors  invalid_argument: empty, not page-aligned, or outside the range with its guard; or the
  ///         guard is 2^30 pages.
  ///         address_in_use: a byte of it, or of its guard, is taken.
  ///         no_memory: no room for metadata.
  ///         State unchanged in all cases, but that no_memory may follow on the end of quarantine.
  [[nodiscard]] Result<Range<DeviceAddr>> allocate_at(Range<DeviceAddr> wanted,
                                                      ByteCount guard = ByteCount(0));

  /// Gives back the whole interval that begins here, and its guard. Never allocates, so that it
  /// cannot fail for want of memory.
  /// Errors  invalid_argument: no taken interval begins here (state unchanged).
  [[nodiscard]] Result<void> free(DeviceAddr begin);

  /// Sets a range aside, as allocate() and allocate_at() would take it. Pieces of it come from the
  /// allocator that reservation() returns, and from nowhere else.
  /// Errors  those of allocate() and allocate_at(); invalid_argument: the request has a guard.
  [[nodiscard]] Result<Range<DeviceAddr>> reserve(const Request& request);
  [[nodiscard]] Result<Range<DeviceAddr>> reserve_at(Range<DeviceAddr> wanted);

  /// The allocator of the reservation that begins here, with this page and large page, no guard and
  /// no quarantine; nullptr if none begins here. Lives as long as the reservation, also where the
  /// allocator it lies in is moved.
  [[nodiscard]] VaAllocator* reservation(DeviceAddr begin) const;

  /// Gives a reservation back. Never allocates.
  /// Errors  invalid_argument: no reservation begins here.  busy: a piece of it is in use, also a
  ///         reservation made in it. State unchanged in both cases.
  [[nodiscard]] Result<void> release(DeviceAddr begin);

  /// Ends all quarantine: what is in it is free. Never allocates.
  void drain_quarantine();

  [[nodiscard]] Range<DeviceAddr> range() const;
  [[nodiscard]] ByteCount free_bytes() const;
  [[nodiscard]] std::size_t holes() const;

  /// Cost  O(1).
  [[nodiscard]] Statistics statistics() const;
  /// The same, counted anew from the intervals.
  /// Cost  O(intervals).
  [[nodiscard]] Statistics recount() const;
  /// Bytes of metadata, without that of the allocators of reservations.
  [[nodiscard]] ByteCount metadata() const;
  /// Holes that requests have looked at so far: what they cost beyond O(log intervals).
  [[nodiscard]] std::uint64_t holes_looked_at() const;

  /// Checks every invariant, those of reservations too, and aborts if one is broken.
  /// Cost  O(intervals).
  void validate() const;

 private:
  struct State;
  explicit VaAllocator(std::unique_ptr<State> state) noexcept;

  std::unique_ptr<State> state_;
};

}  // namespace accelmm
