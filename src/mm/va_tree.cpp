// SPDX-License-Identifier: Apache-2.0
//
// Theory. Leaves hold up to 32 intervals, branches up to 32 children: four cache lines of keys, of
// which a search reads three keys in parallel and then the eight of one line. A leaf's lines are
// asked for all at once: beyond the second-level cache an operation costs what its misses in a row
// cost. Nodes are split in half when full, and merged with a neighbour under the same parent when
// both fit into seven eighths of one. Leaves are linked, for the neighbours of an interval.
#include "mm/va_tree.hpp"

namespace accelmm::mm {

namespace {

constexpr unsigned half = VaTree::fanout / 2;
// A merged node takes four entries more before it is split again. With 24 in place of 28 nodes were
// a tenth emptier, and 200 000 intervals took a level more.
constexpr unsigned merged_at_most = VaTree::fanout * 7 / 8;
constexpr std::uint64_t unused_key = ~std::uint64_t{0};

template <class T>
void insert_at(T* array, unsigned count, unsigned at, T value) {
  std::copy_backward(array + at, array + count, array + count + 1);
  array[at] = value;
}
template <class T>
void erase_at(T* array, unsigned count, unsigned at, unsigned erased = 1) {
  std::copy(array + at + erased, array + count, array + at);
}

/// Moves the entries of `from` behind those of `to`, from `at` on.
void move_entries(VaTree::Leaf& from, unsigned at, VaTree::Leaf& to) {
  std::copy(from.begin + at, from.begin + from.count, to.begin + to.count);
  std::copy(from.use + at, from.use + from.count, to.use + to.count);
  std::fill(from.begin + at, from.begin + from.count, unused_key);
  to.count += from.count - at;
  from.count = at;
}
void move_entries(VaTree::Branch& from, unsigned at, VaTree::Branch& to) {
  std::copy(from.begin + at, from.begin + from.count, to.begin + to.count);
  std::copy(from.child + at, from.child + from.count, to.child + to.count);
  std::copy(from.room + at, from.room + from.count, to.room + to.count);
  std::fill(from.begin + at, from.begin + from.count, unused_key);
  to.count += from.count - at;
  from.count = at;
}

/// The place of a child, at `at` or just before it, that can be merged with the one behind it;
/// fanout if there is none.
template <class Pool>
unsigned mergeable(const Pool& nodes, const VaTree::Branch& parent, unsigned at) {
  const auto fits = [&](unsigned left) {
    return nodes[parent.child[left]].count + nodes[parent.child[left + 1]].count <= merged_at_most;
  };
  if (at + 1 < parent.count && fits(at)) return at;
  return at > 0 && fits(at - 1) ? at - 1 : VaTree::fanout;
}

template <class Node>
void clear(Node& node) {
  std::fill(node.begin, node.begin + VaTree::fanout, unused_key);
  node.count = 0;
}

}  // namespace

bool VaTree::start(VaInterval range, VaUse use) {
  LeafPool::Chunk chunk = leaves_.next_chunk();
  if (!chunk) return false;
  leaves_.adopt(std::move(chunk));
  range_ = range;
  root_ = first_leaf_ = leaves_.take();
  Leaf& leaf = leaves_[root_];
  clear(leaf);
  leaf.previous = leaf.next = 0;
  leaf.end = range.end;
  leaf.begin[0] = range.begin;
  leaf.use[0] = use;
  leaf.count = 1;
  return true;
}

// Two entries split one leaf at most, and that at most one branch a level and the root.
VaTree::Growth VaTree::grow_for_split(const Leaf& leaf) const {
  Growth growth;
  if (leaf.count + 2 <= fanout) return growth;
  growth.want_leaves = leaves_.room() < 1;
  if (growth.want_leaves) growth.leaves = leaves_.next_chunk();
  // A chunk has more branches than there were, hence more than there are levels.
  growth.want_branches = branches_.room() < height_ + 1;
  if (growth.want_branches) growth.branches = branches_.next_chunk();
  return growth;
}

void VaTree::adopt(Growth growth) {
  if (growth.want_leaves) leaves_.adopt(std::move(growth.leaves));
  if (growth.want_branches) branches_.adopt(std::move(growth.branches));
}

VaUse VaTree::use_before(const Spot& spot) const {
  if (spot.at > 0) return spot.leaf->use[spot.at - 1];
  if (spot.leaf->previous == 0) return VaUse(VaUse::Kind::taken, 0);
  const Leaf& leaf = leaves_[spot.leaf->previous];
  return leaf.use[leaf.count - 1];
}

VaUse VaTree::use_behind(const Spot& spot) const {
  if (spot.at + 1 < spot.leaf->count) return spot.leaf->use[spot.at + 1];
  if (spot.leaf->next == 0) return VaUse(VaUse::Kind::taken, 0);
  return leaves_[spot.leaf->next].use[0];
}

void VaTree::split(const Spot& spot, std::uint64_t begin, VaUse use) {
  if (spot.leaf->count == fanout) {
    split_leaf(spot);
    split(find(begin), begin, use);
    return;
  }
  Leaf& leaf = *spot.leaf;
  ACCELMM_DCHECK(leaf.begin[spot.at] < begin && begin < end_of(spot));
  insert_at(leaf.begin, leaf.count, spot.at + 1, begin);
  insert_at(leaf.use, leaf.count, spot.at + 1, use);
  ++leaf.count;
}

void VaTree::split_leaf(const Spot& spot) {
  Leaf& left = *spot.leaf;
  const VaId id = leaves_.take();
  Leaf& right = leaves_[id];
  clear(right);
  move_entries(left, half, right);
  right.previous = spot.id;
  right.next = left.next;
  if (left.next != 0) leaves_[left.next].previous = id;
  left.next = id;
  right.end = left.end;
  left.end = right.begin[0];
  insert_child(spot, height_, right.begin[0], id, room_of(left), room_of(right));
}

VaId VaTree::split_branch(Branch& branch) {
  const VaId id = branches_.take();
  clear(branches_[id]);
  move_entries(branch, half, branches_[id]);
  return id;
}

/// Enters a child behind the one through which the spot goes at this level; level 0 is above the
/// root.
void VaTree::insert_child(const Spot& spot, unsigned level, std::uint64_t key, VaId child,
                          const Room& left, const Room& right) {
  if (level == 0) {
    ACCELMM_CHECK(height_ < max_height);
    const VaId id = branches_.take();
    Branch& root = branches_[id];
    clear(root);
    root.begin[0] = range_.begin;
    root.child[0] = root_;
    root.room[0] = left;
    root.begin[1] = key;
    root.child[1] = child;
    root.room[1] = right;
    root.count = 2;
    root_ = id;
    ++height_;
    return;
  }
  Branch* branch = spot.path[level - 1].branch;
  unsigned at = spot.path[level - 1].at;
  branch->room[at] = left;
  if (branch->count == fanout) {
    const VaId id = split_branch(*branch);
    Branch& upper = branches_[id];
    const bool in_upper = at >= half;
    Branch& target = in_upper ? upper : *branch;
    if (in_upper) at -= half;
    insert_at(target.begin, target.count, at + 1, key);
    insert_at(target.child, target.count, at + 1, child);
    insert_at(target.room, target.count, at + 1, right);
    ++target.count;
    insert_child(spot, level - 1, upper.begin[0], id, room_of(*branch), room_of(upper));
    return;
  }
  insert_at(branch->begin, branch->count, at + 1, key);
  insert_at(branch->child, branch->count, at + 1, child);
  insert_at(branch->room, branch->count, at + 1, right);
  ++branch->count;
}

/// The first key below the branch at `level` of the path became `key`.
void VaTree::fix_separators(const Spot& spot, unsigned level, std::uint64_t key) {
  while (level-- > 0) {
    spot.path[level].branch->begin[spot.path[level].at] = key;
    if (spot.path[level].at > 0) return;
  }
}

void VaTree::unlink(Leaf& leaf) {
  if (leaf.previous != 0) {
    leaves_[leaf.previous].next = leaf.next;
    leaves_[leaf.previous].end = leaf.end;
  } else {
    first_leaf_ = leaf.next;
  }
  if (leaf.next != 0) leaves_[leaf.next].previous = leaf.previous;
}

void VaTree::join(const Spot& spot, unsigned count) {
  Leaf& leaf = *spot.leaf;
  ACCELMM_DCHECK(spot.at + count <= leaf.count);
  erase_at(leaf.begin, leaf.count, spot.at, count);
  erase_at(leaf.use, leaf.count, spot.at, count);
  const unsigned before = leaf.count;
  for (; count > 0; --count) leaf.begin[--leaf.count] = unused_key;
  if (leaf.count == 0) {
    unlink(leaf);
    leaves_.give(spot.id);
    remove_child(spot, height_ - 1, spot.path[height_ - 1].at);
    return;
  }
  if (spot.at == 0) {
    leaves_[leaf.previous].end = leaf.begin[0];
    fix_separators(spot, height_, leaf.begin[0]);
  }
  // Looking at the neighbours costs cache misses: at every fourth entry only.
  if (leaf.count < half && leaf.count / 4 != before / 4 && height_ > 0) merge_leaf(spot);
}

void VaTree::merge_leaf(const Spot& spot) {
  const Spot::Step above = spot.path[height_ - 1];
  const unsigned left = mergeable(leaves_, *above.branch, above.at);
  if (left == fanout) return;
  const VaId right_id = above.branch->child[left + 1];
  Leaf& right = leaves_[right_id];
  move_entries(right, 0, leaves_[above.branch->child[left]]);
  unlink(right);
  leaves_.give(right_id);
  above.branch->room[left].raise(above.branch->room[left + 1]);
  remove_child(spot, height_ - 1, left + 1);
}

void VaTree::merge_branch(const Spot& spot, unsigned level) {
  const Spot::Step above = spot.path[level - 1];
  const unsigned left = mergeable(branches_, *above.branch, above.at);
  if (left == fanout) return;
  const VaId right_id = above.branch->child[left + 1];
  move_entries(branches_[right_id], 0, branches_[above.branch->child[left]]);
  branches_.give(right_id);
  above.branch->room[left].raise(above.branch->room[left + 1]);
  remove_child(spot, level - 1, left + 1);
}

/// Pre: the child holds nothing any more, or all it held is in its neighbour under this parent.
void VaTree::remove_child(const Spot& spot, unsigned level, unsigned at) {
  Branch& branch = *spot.path[level].branch;
  erase_at(branch.begin, branch.count, at);
  erase_at(branch.child, branch.count, at);
  erase_at(branch.room, branch.count, at);
  branch.begin[--branch.count] = unused_key;
  if (level == 0) {
    if (branch.count > 1) return;
    const VaId old = root_;  // a root with one child
    root_ = branch.child[0];
    branches_.give(old);
    --height_;
    return;
  }
  const auto above = spot.path[level - 1];
  if (branch.count == 0) {
    branches_.give(above.branch->child[above.at]);
    remove_child(spot, level - 1, above.at);
    return;
  }
  if (at == 0) fix_separators(spot, level, branch.begin[0]);
  if (branch.count < half) merge_branch(spot, level);
}

Room VaTree::room_of(const Leaf& leaf) const {
  Room room;
  for (unsigned i = 0; i < leaf.count; ++i)
    if (leaf.use[i].is_hole()) room.raise(parts_->room_of(leaf.begin[i], end_of(leaf, i)));
  return room;
}

Room VaTree::room_of(const Branch& branch) {
  Room room;
  for (unsigned i = 0; i < branch.count; ++i) room.raise(branch.room[i]);
  return room;
}

Room VaTree::room() const {
  return height_ == 0 ? room_of(leaves_[root_]) : room_of(branches_[root_]);
}

void VaTree::raise_room(const Spot& spot, const Room& to) {
  for (unsigned level = height_; level-- > 0;) {
    Room& room = spot.path[level].branch->room[spot.path[level].at];
    if (room.covers(to)) return;
    room.raise(to);
  }
}

// Only where a greatest hole shrank can a maximum have fallen.
void VaTree::lower_room(const Spot& spot, const Room& from) {
  Room was = from;
  for (unsigned level = height_; level-- > 0;) {
    Room& room = spot.path[level].branch->room[spot.path[level].at];
    if (was.whole < room.whole && (was.large == 0 || was.large < room.large)) return;
    const Room now =
        level + 1 == height_ ? room_of(*spot.leaf) : room_of(*spot.path[level + 1].branch);
    if (now == room) return;
    was = room;
    room = now;
  }
}

void VaTree::refresh_room(const Spot& spot) {
  for (unsigned level = height_; level-- > 0;)
    spot.path[level].branch->room[spot.path[level].at] =
        level + 1 == height_ ? room_of(*spot.leaf) : room_of(*spot.path[level + 1].branch);
}

Room VaTree::validate_below(VaId node, unsigned height, std::uint64_t key, Found& found) const {
  if (height > 0) {
    const Branch& branch = branches_[node];
    ACCELMM_CHECK(branch.count > 0 && branch.count <= fanout && branch.begin[0] == key);
    for (unsigned i = 0; i < fanout; ++i) {
      ACCELMM_CHECK((branch.begin[i] == unused_key) == (i >= branch.count));
      if (i >= branch.count) continue;
      ACCELMM_CHECK(validate_below(branch.child[i], height - 1, branch.begin[i], found) ==
                    branch.room[i]);
    }
    return room_of(branch);
  }
  const Leaf& leaf = leaves_[node];
  ACCELMM_CHECK(leaf.count > 0 && leaf.count <= fanout && leaf.begin[0] == key);
  ACCELMM_CHECK(leaf.previous == found.leaf);
  ACCELMM_CHECK(found.leaf == 0 ? node == first_leaf_ : leaves_[found.leaf].next == node);
  ACCELMM_CHECK(leaf.begin[0] == found.end);
  for (unsigned i = 0; i < fanout; ++i) {
    ACCELMM_CHECK((leaf.begin[i] == unused_key) == (i >= leaf.count));
    if (i >= leaf.count) continue;
    ACCELMM_CHECK(leaf.begin[i] < end_of(leaf, i));
    if (!leaf.use[i].is_hole()) continue;
    const Hole& hole = (*holes_)[leaf.use[i].detail()];
    ACCELMM_CHECK(hole.begin == leaf.begin[i]);
    ACCELMM_CHECK(hole.end == end_of(leaf, i));
  }
  found.leaf = node;
  found.end = leaf.end;
  return room_of(leaf);
}

void VaTree::validate() const {
  Found found{.leaf = 0, .end = range_.begin};
  ACCELMM_CHECK(height_ <= max_height);
  const Room room_below = validate_below(root_, height_, range_.begin, found);
  ACCELMM_CHECK(room_below == room());
  ACCELMM_CHECK(found.end == range_.end);
  ACCELMM_CHECK(leaves_[found.leaf].next == 0);
}

}  // namespace accelmm::mm
