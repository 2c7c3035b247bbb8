// SPDX-License-Identifier: Apache-2.0
#include <accelmm/check.hpp>
#include <accelmm/deferred_frees.hpp>

#include <utility>

namespace accelmm {

namespace {

// Long enough that the lock is taken rarely, short enough that those who add wait for little.
constexpr std::size_t batch = 64;

}  // namespace

// Makes one heap of two; the root with the later point becomes the first child of the other.
DeferredFrees::Entry* DeferredFrees::meld(Entry* a, Entry* b) noexcept {
  if (a == nullptr) return b;
  if (b == nullptr) return a;
  if (b->point_ < a->point_) std::swap(a, b);
  b->sibling_ = a->child_;
  a->child_ = b;
  return a;
}

// The two passes: neighbours in pairs, then the pairs from the last to the first.
DeferredFrees::Entry* DeferredFrees::meld_all(Entry* siblings) noexcept {
  Entry* pairs = nullptr;
  while (siblings != nullptr) {
    Entry* const a = siblings;
    Entry* const b = std::exchange(a->sibling_, nullptr);
    siblings = b == nullptr ? nullptr : std::exchange(b->sibling_, nullptr);
    Entry* const pair = meld(a, b);
    pair->sibling_ = pairs;
    pairs = pair;
  }
  Entry* root = nullptr;
  while (pairs != nullptr) {
    Entry* const next = std::exchange(pairs->sibling_, nullptr);
    root = meld(root, pairs);
    pairs = next;
  }
  return root;
}

void DeferredFrees::add(Entry& entry, Extent extent, std::uint64_t point) noexcept {
  const std::lock_guard held(lock_);
  entry.extent_ = extent;
  entry.point_ = point;
  entry.child_ = nullptr;
  entry.sibling_ = nullptr;
  root_ = meld(root_, &entry);
  pending_ += extent.length;
  ++entries_;
}

DeferredFrees::Entry* DeferredFrees::take_reached(std::uint64_t reached,
                                                  std::size_t limit) noexcept {
  const std::lock_guard held(lock_);
  Entry* first = nullptr;
  Entry** end = &first;
  for (; limit > 0 && root_ != nullptr && root_->point_ <= reached; --limit) {
    Entry* const taken = root_;
    root_ = meld_all(std::exchange(taken->child_, nullptr));
    pending_ -= taken->extent_.length;
    --entries_;
    *end = taken;
    end = &taken->sibling_;
  }
  return first;
}

ByteCount DeferredFrees::retire(std::uint64_t reached, PageAllocator& pages) noexcept {
  ByteCount retired;
  while (Entry* entry = take_reached(reached, batch)) {
    while (entry != nullptr) {
      const Extent extent = entry->extent();
      Entry* const next = entry->next();
      // From here on the pages may be had again, and the entry be used for that.
      entry->sibling_ = nullptr;
      ACCELMM_CHECK(pages.free(extent).has_value());
      retired += extent.length;
      entry = next;
    }
  }
  return retired;
}

ByteCount DeferredFrees::pending() const {
  const std::lock_guard held(lock_);
  return pending_;
}

std::size_t DeferredFrees::entries() const {
  const std::lock_guard held(lock_);
  return entries_;
}

}  // namespace accelmm
