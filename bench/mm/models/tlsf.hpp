// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <deque>

namespace accelmm::bench {

/// A model of TLSF over offsets, with the bounds of Vulkan Memory Allocator's virtual block: 32
/// lists for each power of two (second-level index 5), small sizes up to 256 in steps of 64, nodes
/// outside what they describe, in the order of their addresses.
///
/// The last, never allocated part of the region is a node of its own, in no list. A request looks
/// in the list above its size (all of it fits, but for alignment), then at the last part, then
/// through the list of its own size, then through all larger ones. Alignment is met by walking each
/// list to its end.
/// Pre       allocate: size > 0. free: a node that allocate gave and nobody freed; not checked, as
///           the original does not.
/// Source    Masmano et al., TLSF (ECRTS 2004); the bounds as the Vulkan Memory Allocator has them.
class TlsfModel {
 public:
  struct Node {
    std::uint64_t offset = 0;
    std::uint64_t size = 0;
    Node* before = nullptr;  // neighbours by address
    Node* after = nullptr;
    Node* previous_free = nullptr;  // neighbours in the list; also links the spare nodes
    Node* next_free = nullptr;
    bool free = false;
  };
  using Piece = Node*;

  explicit TlsfModel(std::uint64_t bytes) : bytes_(bytes), last_(spare()) {
    *last_ = {.size = bytes, .free = true};
  }
  TlsfModel(TlsfModel&& other) = delete;

  [[nodiscard]] bool take(std::uint64_t size, Piece& piece) { return take(size, 1, piece); }
  [[nodiscard]] bool take(std::uint64_t size, std::uint64_t alignment, Piece& piece) {
    piece = allocate(size, alignment);
    return piece != nullptr;
  }
  [[nodiscard]] bool give(Piece piece) {
    free(piece);
    return true;
  }
  [[nodiscard]] static std::uint64_t address(const Node* node) { return node->offset; }
  /// Whether nothing is allocated and everything has merged.
  [[nodiscard]] bool whole() const { return last_->before == nullptr && last_->size == bytes_; }

 private:
  static constexpr unsigned second_level = 5;
  static constexpr std::uint64_t small = 256;  // sizes up to here share the first class
  static constexpr std::uint64_t small_step = 64;
  static constexpr unsigned first_class_log2 = 7;  // class c holds sizes from 2^(c + 7)
  static constexpr unsigned classes = 64 - first_class_log2;
  static constexpr unsigned lists_per_class = 1u << second_level;

  struct Place {
    unsigned size_class;
    unsigned list;
  };
  [[nodiscard]] static Place place_of(std::uint64_t size) {
    if (size <= small) return {0, static_cast<unsigned>((size - 1) / small_step)};
    const auto log2 = static_cast<unsigned>(std::bit_width(size) - 1);
    return {log2 - first_class_log2,
            static_cast<unsigned>(size >> (log2 - second_level)) ^ lists_per_class};
  }
  /// The smallest size that lies in the list after the one of `size`.
  [[nodiscard]] static std::uint64_t next_list_size(std::uint64_t size) {
    if (size > small) return size + (std::uint64_t{1} << (std::bit_width(size) - 1 - second_level));
    if (size > small - small_step) return small + 1;
    return size + small_step;
  }

  /// The first list from `place` on that is not empty, or null.
  [[nodiscard]] Node* first_from(Place place) const {
    std::uint32_t lists = 0;
    if (place.size_class < classes) lists = lists_[place.size_class] & (~0u << place.list);
    if (lists == 0) {
      const std::uint64_t above = place.size_class + 1 >= classes
                                      ? 0
                                      : classes_ & (~std::uint64_t{0} << (place.size_class + 1));
      if (above == 0) return nullptr;
      place.size_class = static_cast<unsigned>(std::countr_zero(above));
      lists = lists_[place.size_class];
    }
    return heads_[place.size_class][static_cast<unsigned>(std::countr_zero(lists))];
  }

  [[nodiscard]] static std::uint64_t aligned(const Node& node, std::uint64_t alignment) {
    return (node.offset + alignment - 1) & ~(alignment - 1);
  }
  [[nodiscard]] static bool fits(const Node& node, std::uint64_t size, std::uint64_t alignment) {
    const std::uint64_t gap = aligned(node, alignment) - node.offset;
    return node.size >= gap && node.size - gap >= size;
  }
  /// Walks one list to its end.
  [[nodiscard]] Node* search(Node* node, std::uint64_t size, std::uint64_t alignment) {
    for (; node != nullptr; node = node->next_free)
      if (fits(*node, size, alignment)) return node;
    return nullptr;
  }

  [[nodiscard]] Node* find(std::uint64_t size, std::uint64_t alignment) {
    const std::uint64_t above = next_list_size(size);
    Node* const larger = first_from(place_of(above));
    if (Node* node = search(larger, size, alignment)) return node;
    if (fits(*last_, size, alignment)) return last_;
    if (Node* node = search(head(place_of(size)), size, alignment)) return node;
    if (larger == nullptr) return nullptr;
    for (Place place = next(place_of(larger->size)); place.size_class < classes;
         place = next(place)) {
      Node* const first = first_from(place);
      if (first == nullptr) return nullptr;
      place = place_of(first->size);
      if (Node* node = search(first, size, alignment)) return node;
    }
    return nullptr;
  }
  [[nodiscard]] static Place next(Place place) {
    return place.list + 1 < lists_per_class ? Place{place.size_class, place.list + 1}
                                            : Place{place.size_class + 1, 0};
  }
  [[nodiscard]] Node* head(Place place) const { return heads_[place.size_class][place.list]; }

  [[nodiscard]] Node* allocate(std::uint64_t size, std::uint64_t alignment) {
    if (size > bytes_) return nullptr;
    Node* node = find(size, alignment);
    if (node == nullptr) return nullptr;
    if (node != last_) remove(*node);
    if (const std::uint64_t gap = aligned(*node, alignment) - node->offset; gap != 0)
      split_gap(*node, gap);
    if (node == last_) {
      last_ = spare();
      *last_ = {
          .offset = node->offset + size, .size = node->size - size, .before = node, .free = true};
      node->after = last_;
    } else if (node->size > size) {
      Node* const rest = spare();
      *rest = {.offset = node->offset + size,
               .size = node->size - size,
               .before = node,
               .after = node->after};
      node->after->before = rest;
      node->after = rest;
      insert(*rest);
    }
    node->size = size;
    node->free = false;
    return node;
  }

  /// Gives the bytes in front of an aligned place to the free neighbour, or to a node of their own.
  void split_gap(Node& node, std::uint64_t gap) {
    Node* before = node.before;
    if (before != nullptr && before->free) {
      remove(*before);
      before->size += gap;
    } else {
      before = spare();
      *before = {.offset = node.offset, .size = gap, .before = node.before, .after = &node};
      if (node.before != nullptr) node.before->after = before;
      node.before = before;
    }
    insert(*before);
    node.offset += gap;
    node.size -= gap;
  }

  void free(Node* node) {
    if (Node* before = node->before; before != nullptr && before->free) {
      remove(*before);
      absorb(*before, *node);
      node = before;
    }
    Node* const after = node->after;
    if (after == last_) {
      last_->offset = node->offset;
      last_->size += node->size;
      last_->before = node->before;
      if (node->before != nullptr) node->before->after = last_;
      recycle(*node);
      return;
    }
    if (after->free) {
      remove(*after);
      absorb(*node, *after);
    }
    insert(*node);
  }

  /// Makes `gone`, which follows `node`, part of it.
  void absorb(Node& node, Node& gone) {
    node.size += gone.size;
    node.after = gone.after;
    gone.after->before = &node;
    recycle(gone);
  }

  void insert(Node& node) {
    const auto [size_class, list] = place_of(node.size);
    Node*& head = heads_[size_class][list];
    node.free = true;
    node.previous_free = nullptr;
    node.next_free = head;
    if (head != nullptr) head->previous_free = &node;
    head = &node;
    lists_[size_class] |= 1u << list;
    classes_ |= std::uint64_t{1} << size_class;
  }
  void remove(Node& node) {
    if (node.next_free != nullptr) node.next_free->previous_free = node.previous_free;
    if (node.previous_free != nullptr) {
      node.previous_free->next_free = node.next_free;
      return;
    }
    const auto [size_class, list] = place_of(node.size);
    heads_[size_class][list] = node.next_free;
    if (node.next_free != nullptr) return;
    lists_[size_class] &= ~(1u << list);
    if (lists_[size_class] == 0) classes_ &= ~(std::uint64_t{1} << size_class);
  }

  [[nodiscard]] Node* spare() {
    if (spares_ == nullptr) return &nodes_.emplace_back();
    Node* const node = spares_;
    spares_ = node->next_free;
    return node;
  }
  void recycle(Node& node) {
    node.next_free = spares_;
    spares_ = &node;
  }

  std::uint64_t bytes_;
  std::deque<Node> nodes_;
  Node* spares_ = nullptr;
  Node* last_;
  std::uint64_t classes_ = 0;
  std::array<std::uint32_t, classes> lists_{};
  std::array<std::array<Node*, lists_per_class>, classes> heads_{};
};

}  // namespace accelmm::bench
