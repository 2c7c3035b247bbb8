// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/access.hpp>
#include <accelmm/error.hpp>
#include <accelmm/extent.hpp>
#include <accelmm/units.hpp>
#include <accelmm/va_allocator.hpp>

#include <compare>
#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <vector>

namespace accelmm {

/// Which extents an IOMMU maps, where, and how often each was asked for.
///
/// An extent that is entered again with the same access is the same mapping: its pages are pinned,
/// and count against the limit of locked memory, once. Other overlaps, and what is entered as its
/// own, are mappings of their own.
/// Owns      numbers only: who enters and leaves tells the IOMMU.
/// Threads   externally synchronised.
/// Invariant mappings are disjoint, whole pages, in the ranges and below 2^address_bits; never at
///           address 0 -> validate().
/// Cost      enter and leave O(log mappings + ranges).
class IovaBook {
 public:
  struct Options {
    Alignment page;                           ///< what extents and addresses are multiples of
    Alignment large{std::uint64_t{2} << 20};  ///< what long extents are congruent to memory by
    unsigned address_bits = 64;               ///< of the device
  };
  /// `ranges` are ascending and disjoint. What the device cannot reach of them is left out.
  /// Errors  not_supported: the device reaches none of them.  no_memory.
  [[nodiscard]] static Result<IovaBook> create(std::span<const Range<BusAddr>> ranges,
                                               const Options& options);

  enum class Sharing : std::uint8_t { alone, shared };
  /// Whether an extent that is entered again with the same access is the same mapping.
  enum class Entry : std::uint8_t { shared, own };
  struct Entered {
    Run run;
    Sharing sharing;  ///< alone: the IOMMU does not map it yet
  };
  /// Notes that somebody needs this extent. `phase` is where its memory begins modulo `large`:
  /// addresses are congruent to it where there is room, so that the IOMMU can use large pages.
  /// Pre     the extent is not empty.
  /// Errors  not_supported: it is not whole pages of the IOMMU.  no_memory: no address is free, or
  ///         no memory to note it. State unchanged.
  [[nodiscard]] Result<Entered> enter(Extent extent, Access access, ByteCount phase,
                                      Entry entry = Entry::shared);

  /// Whether leave() would end the mapping. Pre: enter() returned this run (checked).
  [[nodiscard]] Sharing sharing(Run run) const noexcept;
  /// Takes one enter() back. After the last, the addresses are free: the IOMMU must not map them any
  /// more. Never fails and never allocates. Pre: enter() returned this run (checked).
  void leave(Run run) noexcept;

  [[nodiscard]] std::size_t mappings() const { return mappings_.size(); }
  [[nodiscard]] ByteCount mapped_bytes() const { return mapped_; }
  [[nodiscard]] bool empty() const { return mappings_.empty(); }
  /// Checks every invariant and aborts if one is broken. Cost  O(mappings).
  void validate() const;

 private:
  struct Key {
    Extent extent;
    Access access;
    std::uint64_t own = 0;  // another number for each mapping that is not shared
    bool operator==(const Key&) const = default;
    bool operator<(const Key& other) const {
      if (extent.offset != other.extent.offset) return extent.offset < other.extent.offset;
      if (extent.length != other.extent.length) return extent.length < other.extent.length;
      if (access != other.access) return access < other.access;
      return own < other.own;
    }
  };
  struct Mapping {
    BusAddr iova;
    std::size_t holders;
  };
  using Mappings = std::map<Key, Mapping>;

  explicit IovaBook(const Options& options) : options_(options) {}
  [[nodiscard]] Result<BusAddr> take(ByteCount length, ByteCount phase);
  void give_back(BusAddr iova) noexcept;
  [[nodiscard]] Mappings::iterator find(Run run) const noexcept;

  Options options_;
  std::vector<VaAllocator> ranges_;
  Mappings mappings_;
  std::map<BusAddr, Mappings::iterator> by_address_;
  ByteCount mapped_;
  std::uint64_t last_own_ = 0;
};

}  // namespace accelmm
