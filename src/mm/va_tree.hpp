// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "mm/va_room.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

namespace accelmm::mm {

/// What an interval is, in 32 bits: a hole (with its number), or in use (with 30 bits for the
/// user).
class VaUse {
 public:
  enum class Kind : std::uint8_t { hole, taken, reserved, quarantined };
  static constexpr std::uint32_t max_detail = (std::uint32_t{1} << 30) - 1;

  VaUse() = default;
  VaUse(Kind kind, std::uint32_t detail) : value_(static_cast<std::uint32_t>(kind) << 30 | detail) {
    ACCELMM_DCHECK(detail <= max_detail);
  }
  [[nodiscard]] Kind kind() const { return static_cast<Kind>(value_ >> 30); }
  [[nodiscard]] bool is_hole() const { return value_ >> 30 == 0; }
  /// The number of a hole; pages of guard at the end of a taken interval.
  [[nodiscard]] std::uint32_t detail() const { return value_ & max_detail; }

 private:
  std::uint32_t value_;
};

/// Intervals that tile a range, by address: a B+-tree, of which each branch knows the greatest Room
/// of the holes below it.
///
/// An interval is where it begins and what it is, 12 bytes; it ends where the next begins.
/// Owns      its nodes. Only prepared growth allocates: see grow_for_split().
/// Threads   externally synchronised.
/// Invariant keys ascend; separators are the first keys below them; rooms are exact -> validate().
/// Cost      O(log intervals) with two cache misses a level.
class VaTree {
 public:
  enum class Walk { upwards, downwards };

  static constexpr unsigned fanout = 32;
  // Two neighbours under one parent hold 17 entries or more together, so 2^30 leaves need at most
  // 30 / log2(8.5) = 9.7 levels above them.
  static constexpr unsigned max_height = 11;

  struct Leaf {
    std::uint64_t begin[fanout];  // unused ones are ~0, above every address
    VaUse use[fanout];
    std::uint64_t end;  // where the last interval ends and the next leaf begins
    VaId previous;
    VaId next;
    unsigned count;
    unsigned unused[11];
  };
  struct Branch {
    std::uint64_t begin[fanout];
    VaId child[fanout];
    Room room[fanout];
    unsigned count;
    unsigned unused[15];
  };
  static_assert(sizeof(Leaf) == 7UL * 64 && sizeof(Branch) == 15UL * 64);
  using LeafPool = VaPool<Leaf, 0>;
  using BranchPool = VaPool<Branch, 2>;
  struct Growth {
    LeafPool::Chunk leaves;
    BranchPool::Chunk branches;
    bool want_leaves = false;
    bool want_branches = false;
    [[nodiscard]] bool ok() const {
      return (!want_leaves || leaves) && (!want_branches || branches);
    }
  };

  /// One interval, and the way to it. Any change of the tree but set() makes it stale.
  struct Spot {
    Leaf* leaf;
    VaId id;
    unsigned at;
    struct Step {
      Branch* branch;
      unsigned at;
    };
    std::array<Step, max_height> path;

    [[nodiscard]] std::uint64_t begin() const { return leaf->begin[at]; }
    [[nodiscard]] VaUse use() const { return leaf->use[at]; }
  };

  /// Both outlive the tree. Not to be used before start().
  VaTree(const OpenParts& parts, const HolePool& holes) : parts_(&parts), holes_(&holes) {}
  VaTree(const VaTree&) = delete;
  VaTree& operator=(const VaTree&) = delete;

  /// Makes the first interval, the whole range. Returns false if there is no memory.
  [[nodiscard]] bool start(VaInterval range, VaUse use);

  /// Memory that two intervals more in the leaf of the spot may need.
  [[nodiscard]] Growth grow_for_split(const Leaf& leaf) const;
  void adopt(Growth growth);

  /// The interval that holds the address. Pre: it lies in the range.
  [[nodiscard]] Spot find(std::uint64_t address) const {
    ACCELMM_DCHECK(range_.begin <= address && address < range_.end);
    Spot spot;
    VaId node = root_;
    for (unsigned level = 0; level < height_; ++level) {
      Branch& branch = branches_[node];
      prefetch(&branch, sizeof branch.begin + sizeof branch.child);
      const unsigned at = last_at_or_below(branch.begin, address);
      spot.path[level] = {&branch, at};
      node = branch.child[at];
      __builtin_prefetch(&branch.room[at]);
    }
    spot.id = node;
    spot.leaf = &leaves_[node];
    prefetch(spot.leaf, sizeof *spot.leaf);
    spot.at = last_at_or_below(spot.leaf->begin, address);
    return spot;
  }
  [[nodiscard]] static std::uint64_t end_of(const Leaf& leaf, unsigned at) {
    return at + 1 < leaf.count ? leaf.begin[at + 1] : leaf.end;
  }
  [[nodiscard]] static std::uint64_t end_of(const Spot& spot) {
    return end_of(*spot.leaf, spot.at);
  }

  /// What the interval before or behind is; "taken" at the ends of the range.
  [[nodiscard]] VaUse use_before(const Spot& spot) const;
  [[nodiscard]] VaUse use_behind(const Spot& spot) const;

  void set(const Spot& spot, VaUse use) { spot.leaf->use[spot.at] = use; }
  /// Begins an interval at `begin`, inside that of the spot. Pre: grow_for_split() was adopted.
  void split(const Spot& spot, std::uint64_t begin, VaUse use);
  /// Removes the interval of the spot and the `count` - 1 behind it in the same leaf: the one
  /// before the spot now ends where the last of them did. Pre: the spot is not the first interval.
  void join(const Spot& spot, unsigned count);

  // One of these follows each change of what is a hole, and precedes join().
  /// A hole in the leaf of the spot grew to this room.
  void raise_room(const Spot& spot, const Room& to);
  /// A hole in that leaf had this room, and is gone or smaller now.
  void lower_room(const Spot& spot, const Room& from);
  /// Anything may have changed in that leaf.
  void refresh_room(const Spot& spot);

  [[nodiscard]] Room room() const;
  [[nodiscard]] std::size_t bytes() const { return leaves_.bytes() + branches_.bytes(); }

  /// Calls visit(hole, begin, end) for the holes that reach into [low, high) and have room for the
  /// need, upwards or downwards, until one call is true; returns whether one was.
  template <class Visit>
  bool visit_holes(VaInterval reach, const Room& need, Walk walk, Visit visit) const {
    return height_ == 0 ? visit_leaf(leaves_[root_], reach, need, walk, visit)
                        : visit_branch(branches_[root_], height_, reach, need, walk, visit);
  }

  /// Calls f(begin, end, use) for each interval, upwards.
  template <class F>
  void for_each(F f) const {
    const Leaf* leaf = &leaves_[first_leaf_];
    for (;;) {
      for (unsigned i = 0; i < leaf->count; ++i) f(leaf->begin[i], end_of(*leaf, i), leaf->use[i]);
      if (leaf->next == 0) return;
      leaf = &leaves_[leaf->next];
    }
  }

  /// Checks every invariant, and aborts if one is broken.
  void validate() const;

 private:
  /// Asks for all lines of a node at once: one miss long instead of one for each line.
  [[gnu::always_inline]] static void prefetch(const void* node, std::size_t bytes) {
#pragma GCC unroll 8
    for (std::size_t at = 0; at < bytes; at += 64)
      __builtin_prefetch(static_cast<const std::byte*>(node) + at);
  }

  /// The last of 32 ascending keys that is <= address. Pre: the first is.
  [[nodiscard]] static unsigned last_at_or_below(const std::uint64_t* keys, std::uint64_t address) {
    static_assert(fanout == 32);
    const unsigned eighth = static_cast<unsigned>(keys[8] <= address) +
                            static_cast<unsigned>(keys[16] <= address) +
                            static_cast<unsigned>(keys[24] <= address);
    const std::uint64_t* line = keys + std::size_t{eighth} * 8;
    unsigned below = 0;
#pragma GCC unroll 8
    for (unsigned i = 1; i < 8; ++i) below += static_cast<unsigned>(line[i] <= address);
    return eighth * 8 + below;
  }

  struct Found {  // what validate() has seen so far
    VaId leaf = 0;
    std::uint64_t end = 0;
  };

  template <class Visit>
  bool visit_leaf(const Leaf& leaf, VaInterval reach, const Room& need, Walk walk,
                  Visit& visit) const {
    for (unsigned step = 0; step < leaf.count; ++step) {
      const unsigned i = walk == Walk::downwards ? leaf.count - 1 - step : step;
      if (!leaf.use[i].is_hole()) continue;
      const std::uint64_t begin = leaf.begin[i];
      const std::uint64_t end = end_of(leaf, i);
      if (end <= reach.begin || reach.end <= begin) continue;
      if (!parts_->room_of(begin, end).covers(need)) continue;
      if (visit(leaf.use[i].detail(), begin, end)) return true;
    }
    return false;
  }

  template <class Visit>
  bool visit_branch(const Branch& branch, unsigned height, VaInterval reach, const Room& need,
                    Walk walk, Visit& visit) const {
    for (unsigned step = 0; step < branch.count; ++step) {
      const unsigned i = walk == Walk::downwards ? branch.count - 1 - step : step;
      if (!branch.room[i].covers(need) || reach.end <= branch.begin[i]) continue;
      if (i + 1 < branch.count && branch.begin[i + 1] <= reach.begin) continue;
      const VaId child = branch.child[i];
      if (height == 1 ? visit_leaf(leaves_[child], reach, need, walk, visit)
                      : visit_branch(branches_[child], height - 1, reach, need, walk, visit))
        return true;
    }
    return false;
  }

  [[nodiscard]] Room room_of(const Leaf& leaf) const;
  [[nodiscard]] static Room room_of(const Branch& branch);
  [[nodiscard]] std::uint64_t first_key(VaId child, unsigned height) const;
  void split_leaf(const Spot& spot);
  void insert_child(const Spot& spot, unsigned level, std::uint64_t key, VaId child,
                    const Room& left, const Room& right);
  [[nodiscard]] VaId split_branch(Branch& branch);
  void fix_separators(const Spot& spot, unsigned level, std::uint64_t key);
  void unlink(Leaf& leaf);
  void remove_child(const Spot& spot, unsigned level, unsigned at);
  void merge_leaf(const Spot& spot);
  void merge_branch(const Spot& spot, unsigned level);
  Room validate_below(VaId node, unsigned height, std::uint64_t key, Found& found) const;

  const OpenParts* parts_;
  const HolePool* holes_;
  LeafPool leaves_;
  BranchPool branches_;
  unsigned height_ = 0;  // levels of branches
  VaId root_ = 0;
  VaId first_leaf_ = 0;
  VaInterval range_{};
};

}  // namespace accelmm::mm
