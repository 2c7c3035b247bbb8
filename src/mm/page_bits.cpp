// SPDX-License-Identifier: Apache-2.0
#include "mm/page_bits.hpp"

#include <accelmm/check.hpp>

#include <algorithm>
#include <bit>

namespace accelmm::mm {

namespace {

constexpr std::uint64_t all_ones = ~std::uint64_t{0};

std::uint64_t ones_from(std::uint64_t page) {
  return all_ones << (page & 63);
}

/// Bits [0, end & 63], where end is the last page of the range, inclusive.
std::uint64_t ones_to(std::uint64_t last) {
  return all_ones >> (63 - (last & 63));
}

/// Calls f(word index, mask) for every word that [begin, end) touches, until f returns false.
template <class F>
bool for_each_word(std::uint64_t begin, std::uint64_t end, F f) {
  const std::uint64_t last_word = (end - 1) >> 6;
  std::uint64_t mask = ones_from(begin);
  for (std::uint64_t w = begin >> 6; w < last_word; ++w, mask = all_ones)
    if (!f(w, mask)) return false;
  return f(last_word, mask & ones_to(end - 1));
}

/// The positions at which a run of `count` ones starts, 1 <= count <= 64, in the word `low`
/// followed by `high`: each step doubles the length that a surviving bit stands for.
std::uint64_t run_starts(std::uint64_t low, std::uint64_t high, std::uint64_t count) {
  for (std::uint64_t length = 1; length < count;) {
    const std::uint64_t step = std::min(length, count - length);  // 1..32
    low &= (low >> step) | (high << (64 - step));
    high &= high >> step;
    length += step;
  }
  return low;
}

/// The positions of a word that are multiples of 2^align_order. Pre: align_order < 6.
std::uint64_t aligned_positions(unsigned align_order) {
  constexpr std::uint64_t masks[] = {
      0xffff'ffff'ffff'ffff, 0x5555'5555'5555'5555, 0x1111'1111'1111'1111,
      0x0101'0101'0101'0101, 0x0001'0001'0001'0001, 0x0000'0001'0000'0001,
  };
  return masks[align_order];
}

/// The longest run of ones inside the word, if it is longer than `best`; else `best`.
std::uint64_t longest_in_word(std::uint64_t word, std::uint64_t best) {
  while (best < 64 && run_starts(word, 0, best + 1) != 0) ++best;
  return best;
}

}  // namespace

PageBits::PageBits(std::uint64_t* words, std::uint64_t pages) : words_(words), pages_(pages) {
  ACCELMM_CHECK(pages > 0);
  std::fill_n(words_, words_for(pages), 0);
  if ((pages & 63) != 0) words_[pages >> 6] = ones_from(pages);
}

bool PageBits::all_set(std::uint64_t begin, std::uint64_t end) const {
  return for_each_word(begin, end, [this](std::uint64_t w, std::uint64_t mask) {
    return (words_[w] & mask) == mask;
  });
}

bool PageBits::none_set(std::uint64_t begin, std::uint64_t end) const {
  return for_each_word(
      begin, end, [this](std::uint64_t w, std::uint64_t mask) { return (words_[w] & mask) == 0; });
}

void PageBits::set(std::uint64_t begin, std::uint64_t end) {
  for_each_word(begin, end, [this](std::uint64_t w, std::uint64_t mask) {
    words_[w] |= mask;
    return true;
  });
}

void PageBits::clear(std::uint64_t begin, std::uint64_t end) {
  for_each_word(begin, end, [this](std::uint64_t w, std::uint64_t mask) {
    words_[w] &= ~mask;
    return true;
  });
}

std::uint64_t PageBits::find_clear_run(std::uint64_t count, unsigned align_order) const {
  ACCELMM_CHECK(count >= 1 && count <= 64);
  const std::uint64_t words = words_for(pages_);
  const bool wide = align_order >= 6;  // at most one candidate a word: its first bit
  const std::uint64_t positions = wide ? 1 : aligned_positions(align_order);
  const std::uint64_t stride = wide ? std::uint64_t{1} << (align_order - 6) : 1;
  for (std::uint64_t w = 0; w < words; w += stride) {
    if (words_[w] == all_ones) continue;
    const std::uint64_t high = w + 1 < words ? ~words_[w + 1] : 0;
    const std::uint64_t starts = run_starts(~words_[w], high, count) & positions;
    if (starts != 0) return w * 64 + static_cast<std::uint64_t>(std::countr_zero(starts));
  }
  return none;
}

std::uint64_t PageBits::longest_clear_run() const {
  std::uint64_t best = 0;
  std::uint64_t open = 0;  // clear bits right before the current word
  for (std::uint64_t w = 0; w < words_for(pages_); ++w) {
    const std::uint64_t word = words_[w];
    if (word == 0) {
      open += 64;
      continue;
    }
    best = std::max(best, open + static_cast<std::uint64_t>(std::countr_zero(word)));
    best = longest_in_word(~word, best);
    open = static_cast<std::uint64_t>(std::countl_zero(word));
  }
  return std::max(best, open);
}

std::uint64_t PageBits::validate() const {
  std::uint64_t set_bits = 0;
  const std::uint64_t words = words_for(pages_);
  for (std::uint64_t w = 0; w < words; ++w)
    set_bits += static_cast<std::uint64_t>(std::popcount(words_[w]));
  if ((pages_ & 63) != 0)
    ACCELMM_CHECK((words_[words - 1] & ones_from(pages_)) == ones_from(pages_));
  return words * 64 - set_bits;
}

}  // namespace accelmm::mm
