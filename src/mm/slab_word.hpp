// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/per_cpu_half.hpp"

#include <bit>
#include <cstdint>

/// The marks of 32 objects: which are live.
///
///   63          32 31           0
///   [ frees mod 2 ] [ takes mod 2 ]     object i: bits 32 + i and i
///
/// Taking an object flips its lower bit, freeing it flips its upper one; it is live while they
/// differ. So a take and a free write different halves: a free is a compare-and-swap of the whole
/// word, which sees whether the object is live at the very moment that it is freed; a take by the
/// one slot that holds the word is a plain store of the lower half.
///
/// A word with a free object is in one place: it is the current word of a slot, in a slot's
/// magazine, with the central store, or in the hands of a thread. A word without one is nowhere,
/// and who frees its first object has it in hand. Hence whoever holds a word may take any of its
/// objects but lets go of it with the last; and a slot's current word keeps one at least, since its
/// plain store could not be told from that of the next holder.
namespace accelmm::mm {

using per_cpu::Halves;

[[nodiscard]] constexpr std::uint32_t free_objects(Halves marks) {
  return ~(marks.low ^ marks.high);
}
[[nodiscard]] constexpr std::uint32_t free_objects(std::uint64_t marks) {
  return free_objects(Halves::of(marks));
}

/// The marks of a word whose objects in `all` are free, and whose others do not exist.
[[nodiscard]] constexpr std::uint64_t marks_of_free(std::uint32_t all) {
  return static_cast<std::uint32_t>(~all);
}

/// The lowest `count` bits that are set, or all.
/// Pre  count is not 0.
[[nodiscard]] constexpr std::uint32_t lowest_bits(std::uint32_t bits, std::uint32_t count) {
  if (count == 1) return bits & (~bits + 1);
  if (count >= 32) return bits;
  if ((bits & (bits + 1)) == 0) return bits & ((std::uint32_t{1} << count) - 1);
  std::uint32_t rest = bits;
  for (; count != 0 && rest != 0; --count) rest &= rest - 1;
  return bits ^ rest;
}

struct Taken {
  std::uint32_t objects = 0;
  std::uint32_t left = 0;  ///< free objects when they were taken
};

/// Takes what `choose` says of the free objects of a word that the caller holds.
/// Pre  choose(free) is a part of free.
template <class AtomicWord, class Choose>
[[nodiscard]] Taken take_from_held(AtomicWord& word, Choose choose) {
  std::uint64_t marks = word.load(std::memory_order_acquire);
  while (true) {
    const std::uint32_t free = free_objects(marks);
    const std::uint32_t objects = choose(free);
    if (word.compare_exchange_strong(marks, marks ^ objects, std::memory_order_acq_rel,
                                     std::memory_order_acquire))
      return {.objects = objects, .left = free & ~objects};
  }
}

struct Freed {
  bool done = false;         ///< else one of them was not live, and nothing happened
  std::uint32_t before = 0;  ///< free objects before
  std::uint32_t after = 0;
};

/// Frees objects. `still_there` says whether the word is still that of the slab that the caller
/// found it by; it is asked after the marks were read.
template <class AtomicWord, class StillThere>
[[nodiscard]] Freed free_in_word(AtomicWord& word, std::uint64_t marks, std::uint32_t objects,
                                 StillThere still_there) {
  while (true) {
    const std::uint32_t free = free_objects(marks);
    if ((free & objects) != 0 || !still_there()) return {};
    // In one order with the central store's marks and looks (SlabCentral).
    if (word.compare_exchange_strong(marks, marks ^ std::uint64_t{objects} << 32,
                                     std::memory_order_seq_cst, std::memory_order_acquire))
      return {.done = true, .before = free, .after = free | objects};
  }
}

}  // namespace accelmm::mm
