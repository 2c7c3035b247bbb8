// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "mm/va_room.hpp"

#include <bit>
#include <cstdint>
#include <memory>

namespace accelmm::mm {

/// Holes in lists by length, of which the shortest list that surely fits is found in two loads.
///
/// Lengths are in pages. Up to 63 pages each length has a list of its own; above, each power of two
/// is cut into 32 lists, so that two lengths of one list differ by less than 1 / 32.
/// Owns      the heads of its lists. The links are in the holes.
/// Threads   externally synchronised.
/// Cost      O(1), and at most `probes` holes looked at.
/// Source    M. Masmano et al., "TLSF: a new dynamic memory allocator for real-time systems" (2004).
class VaBins {
 public:
  // Holes of a list tried before a longer one is split. 4: one cache miss each, and most lists of
  // one length fit at once.
  static constexpr unsigned probes = 4;

  /// For holes of up to `longest` pages, linked by Hole::link[link]. Not to be used where ok() is
  /// false: there was no memory.
  VaBins(unsigned link, std::uint64_t longest);
  [[nodiscard]] bool ok() const { return heads_ != nullptr; }
  [[nodiscard]] std::size_t bytes() const { return bins_ * sizeof(VaId); }

  /// The list for a length. With w the width of the length in bits: lengths of w <= 5 are lists 0 to
  /// 31, and each greater w has the 32 lists that its five bits below the highest name.
  [[nodiscard]] static unsigned bin_of(std::uint64_t length) {
    if (length < 32) return static_cast<unsigned>(length);
    const auto width = static_cast<unsigned>(std::bit_width(length));
    return (width - 5) * 32 + static_cast<unsigned>((length >> (width - 6)) & 31);
  }

  void insert(const HolePool& holes, VaId id, std::uint64_t length);
  void remove(const HolePool& holes, VaId id, std::uint64_t length);

  /// A hole of a list in which all have the length or more, the shortest such list. 0: none.
  [[nodiscard]] VaId sure(std::uint64_t length) const;
  /// The first hole of the list in which the length is, where holes may be shorter. 0: none.
  [[nodiscard]] VaId same(std::uint64_t length) const;

  /// Calls f(id, bin) for each hole.
  template <class F>
  void for_each(const HolePool& holes, F f) const {
    for (unsigned bin = 0; bin < bins_; ++bin) {
      const bool marked = ((second_[bin / 32] >> (bin % 32)) & 1) != 0;
      ACCELMM_CHECK(marked == (heads_[bin] != 0));
      ACCELMM_CHECK(!marked || ((first_ >> (bin / 32)) & 1) != 0);
      for (VaId id = heads_[bin]; id != 0; id = holes[id].link[link_].next) f(id, bin);
    }
  }

 private:
  unsigned link_;
  unsigned bins_;
  std::uint64_t first_ = 0;        // a bit tells that a word of second_ is not 0
  std::uint32_t second_[64] = {};  // a bit tells that a list is not empty
  std::unique_ptr<VaId[]> heads_;
};

}  // namespace accelmm::mm
