// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "mm/va_bins.hpp"
#include "mm/va_tree.hpp"

#include <accelmm/error.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>

namespace accelmm::mm {

/// A range of addresses cut into intervals: holes, and intervals in use of one kind or another.
///
/// Knows all by address in a tree, and the holes by length in two sets of bins: by their whole
/// length, and by the length from the first address aligned to the large page.
/// Threads   externally synchronised.
/// Invariant no two holes touch; each hole is in the bins of its lengths -> validate().
class VaSpace {
 public:
  struct Count {
    std::size_t intervals = 0;
    std::uint64_t bytes = 0;
    bool operator==(const Count&) const = default;
  };
  struct Counts {
    std::array<Count, 4> of_kind;   // by VaUse::Kind
    std::uint64_t guard_bytes = 0;  // of taken intervals
    bool operator==(const Counts&) const = default;
    [[nodiscard]] const Count& operator[](VaUse::Kind kind) const {
      return of_kind[static_cast<std::size_t>(kind)];
    }
  };

  /// Pre: range and parts consist of whole pages; page is a power of two.
  VaSpace(VaInterval range, std::uint64_t page, const OpenParts& parts);

  /// Returns false if there is no memory; then the space must not be used.
  [[nodiscard]] bool start();

  /// Where the best fit for the wish begins.
  [[nodiscard]] std::optional<std::uint64_t> find_best(const Wish& wish);
  /// Where the lowest fit begins, or where the wish says so the highest; for look_on > 1 that in
  /// the shortest of this many holes that fit.
  [[nodiscard]] std::optional<std::uint64_t> find_nearest(const Wish& wish, unsigned look_on);

  /// The interval that holds the address. Pre: it lies in the range.
  [[nodiscard]] VaTree::Spot find(std::uint64_t address) const { return tree_.find(address); }
  [[nodiscard]] std::uint64_t end_of(const VaTree::Spot& spot) const { return tree_.end_of(spot); }

  /// Takes a piece out of a hole. Pre: it lies in the hole at the spot; the use is none of a hole.
  /// The spot is stale afterwards.
  /// Errors  no_memory (state unchanged).
  [[nodiscard]] Result<void> take(VaTree::Spot& spot, VaInterval piece, VaUse use);
  /// Makes an interval a hole. Never allocates. Pre: it is none. The spot is stale afterwards.
  void give(VaTree::Spot& spot);
  /// Pre: neither the interval nor the new use is a hole.
  void change(const VaTree::Spot& spot, VaUse use);

  [[nodiscard]] const Counts& counts() const { return counts_; }
  [[nodiscard]] Counts recount() const;
  [[nodiscard]] Room longest() const { return tree_.room(); }
  [[nodiscard]] std::uint64_t looked_at() const { return looked_at_; }
  [[nodiscard]] std::size_t bytes() const;

  /// Calls f(begin, end, use) for each interval, upwards.
  template <class F>
  void for_each(F f) const {
    tree_.for_each(f);
  }
  void validate() const;

 private:
  [[nodiscard]] bool is_exact(const Wish& wish) const;
  [[nodiscard]] std::optional<std::uint64_t> place(const Wish& wish, VaId hole);
  [[nodiscard]] std::optional<std::uint64_t> probe(const Wish& wish, unsigned link);
  [[nodiscard]] std::optional<std::uint64_t> visit(const Wish& wish, const Room& need,
                                                   unsigned look_on, std::uint64_t misses);
  void enter(VaId hole);
  void drop(VaId hole, const Room& room);
  void resize(VaId hole, VaInterval to);
  [[nodiscard]] VaId keep_hole(VaId hole, VaInterval ends);
  void count_in(VaUse use, std::uint64_t bytes);
  void count_out(VaUse use, std::uint64_t bytes);
  void add(Counts& counts, VaUse use, std::uint64_t bytes) const;
  [[nodiscard]] bool prepare(const VaTree::Leaf& leaf);
  void split_hole(VaTree::Spot& spot, VaInterval hole, VaInterval piece, VaUse use);
  void join_far(VaTree::Spot& spot, VaId before, VaId behind, VaId merged);

  VaInterval range_;
  std::uint64_t page_;
  unsigned page_log2_;
  OpenParts parts_;
  HolePool holes_;
  VaTree tree_;
  VaBins whole_;
  VaBins large_;
  Counts counts_;
  std::uint64_t looked_at_ = 0;
};

}  // namespace accelmm::mm
