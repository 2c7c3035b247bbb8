// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <bit>
#include <cstdint>

/// The sizes that a Slab hands out, and how each is cut from a slab.
///
/// Multiples of 16 to 256 bytes, then eight sizes a doubling to 16 KiB. Eight, because with four a
/// request just above a power of two would waste a fifth; with eight it wastes at most a ninth.
namespace accelmm::mm {

inline constexpr unsigned slab_class_count = 64;
inline constexpr std::uint32_t slab_smallest = 16;
inline constexpr std::uint32_t slab_largest = 16384;
/// What the table of slabs counts in.
inline constexpr unsigned slab_unit_log2 = 16;
/// Objects that one word of marks stands for: two bits each.
inline constexpr unsigned objects_per_word = 32;

/// The size of the objects of a class.
[[nodiscard]] constexpr std::uint32_t slab_class_size(unsigned number) {
  if (number < 8) return slab_smallest * (number + 1);
  const unsigned doubling = (number - 8) / 8;
  const unsigned step = (number - 8) % 8 + 1;
  return (128U << doubling) + (16U << doubling) * step;
}

/// A slab of a class: a power of two, so that it is aligned to its size and no object needs to know
/// where its slab begins; 64 KiB, or more where that would hold fewer than 16 objects.
[[nodiscard]] constexpr unsigned slab_bytes_log2(unsigned number) {
  const auto least = std::uint64_t{slab_class_size(number)} * 16;
  const auto log2 = static_cast<unsigned>(std::bit_width(least - 1));
  return log2 < slab_unit_log2 ? slab_unit_log2 : log2;
}

/// One class; half a cache line, since a free reads all of it.
struct alignas(32) SlabClassShape {
  std::uint32_t size = 0;         ///< of an object
  std::uint32_t offset_mask = 0;  ///< bytes of a slab - 1
  std::uint32_t reciprocal = 0;   ///< 2^32 / size, rounded up
  std::uint16_t objects = 0;      ///< of a slab
  std::uint16_t words = 0;        ///< of marks, a slab
  std::uint32_t last_mask = 0;    ///< objects that there are of the last word
  std::uint32_t step = 0;         ///< sizes above size - step go to the class
  std::uint8_t cached_words = 0;  ///< that a slot's magazine holds at most
  std::uint8_t batch_words = 0;   ///< that it is refilled with

  [[nodiscard]] constexpr std::uint64_t slab_bytes() const {
    return std::uint64_t{offset_mask} + 1;
  }
  /// Which object an offset inside the slab lies in. Exact: the reciprocal is too large by less
  /// than size / 2^32 of itself, and offset * size < 2^32.
  [[nodiscard]] constexpr std::uint32_t object_at(std::uint32_t offset) const {
    return static_cast<std::uint32_t>(std::uint64_t{offset} * reciprocal >> 32);
  }
  /// All objects of a word.
  [[nodiscard]] constexpr std::uint32_t all_of(std::uint32_t word) const {
    return word + 1U == words ? last_mask : ~std::uint32_t{0};
  }
};

/// Words that a magazine has cells for: with what else a slot has of a class, 256 bytes.
inline constexpr unsigned magazine_cells = 30;

[[nodiscard]] constexpr SlabClassShape slab_class_shape(unsigned number) {
  SlabClassShape shape;
  shape.size = slab_class_size(number);
  const std::uint32_t bytes = std::uint32_t{1} << slab_bytes_log2(number);
  shape.step = number == 0 ? shape.size : shape.size - slab_class_size(number - 1);
  shape.offset_mask = bytes - 1;
  shape.reciprocal =
      static_cast<std::uint32_t>(((std::uint64_t{1} << 32) + shape.size - 1) / shape.size);
  const std::uint32_t objects = bytes / shape.size;
  shape.objects = static_cast<std::uint16_t>(objects);
  shape.words = static_cast<std::uint16_t>((objects + objects_per_word - 1) / objects_per_word);
  const std::uint32_t rest = objects % objects_per_word;
  shape.last_mask = rest == 0 ? ~std::uint32_t{0} : (std::uint32_t{1} << rest) - 1;
  // A magazine keeps about 256 KiB at most, but eight words: objects that are freed at random make
  // as many words with one free object each. It takes 64 KiB at a time, as far as whole words do.
  const std::uint32_t word_bytes = shape.size * objects_per_word;
  const std::uint32_t cached = 256 * 1024 / word_bytes;
  const std::uint32_t batch = 64 * 1024 / word_bytes;
  shape.cached_words = static_cast<std::uint8_t>(
      cached < 8 ? 8 : (cached > magazine_cells ? magazine_cells : cached));
  shape.batch_words = static_cast<std::uint8_t>(
      batch < 1 ? 1 : (batch > magazine_cells / 2 ? magazine_cells / 2 : batch));
  return shape;
}

inline constexpr auto slab_shapes = [] {
  std::array<SlabClassShape, slab_class_count> shapes = {};
  for (unsigned i = 0; i < slab_class_count; ++i) shapes[i] = slab_class_shape(i);
  return shapes;
}();

inline constexpr auto slab_class_table = [] {
  std::array<std::uint8_t, slab_largest / slab_smallest + 1> table = {};
  unsigned number = 0;
  for (std::uint32_t i = 0; i < table.size(); ++i) {
    while (slab_class_size(number) < i * slab_smallest) ++number;
    table[i] = static_cast<std::uint8_t>(number);
  }
  return table;
}();

/// The smallest class whose objects hold `size` bytes.
/// Pre  size <= slab_largest.
[[nodiscard]] constexpr unsigned slab_class_of(std::uint64_t size) {
  return slab_class_table[(size + slab_smallest - 1) / slab_smallest];
}

static_assert(slab_class_size(slab_class_count - 1) == slab_largest);

}  // namespace accelmm::mm
