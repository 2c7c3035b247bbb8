// SPDX-License-Identifier: Apache-2.0
#include "mm/va_bins.hpp"

#include <bit>
#include <new>

namespace accelmm::mm {

namespace {

/// The shortest length of a list that has only lengths >= this one.
unsigned sure_bin(std::uint64_t length) {
  const auto width = static_cast<unsigned>(std::bit_width(length));
  const unsigned bin = VaBins::bin_of(length);
  if (width <= 6) return bin;
  const std::uint64_t below_the_step = (std::uint64_t{1} << (width - 6)) - 1;
  return (length & below_the_step) == 0 ? bin : bin + 1;
}

}  // namespace

VaBins::VaBins(unsigned link, std::uint64_t longest)
    : link_(link),
      bins_((bin_of(longest) / 32 + 1) * 32),
      heads_(new(std::nothrow) VaId[bins_]()) {}

void VaBins::insert(const HolePool& holes, VaId id, std::uint64_t length) {
  if (length == 0) return;
  const unsigned bin = bin_of(length);
  ACCELMM_DCHECK(bin < bins_);
  const VaId head = heads_[bin];
  holes[id].link[link_] = {0, head};
  if (head != 0) {
    holes[head].link[link_].previous = id;
  } else {
    second_[bin / 32] |= std::uint32_t{1} << (bin % 32);
    first_ |= std::uint64_t{1} << (bin / 32);
  }
  heads_[bin] = id;
}

void VaBins::remove(const HolePool& holes, VaId id, std::uint64_t length) {
  if (length == 0) return;
  const auto [previous, next] = holes[id].link[link_];
  if (next != 0) holes[next].link[link_].previous = previous;
  if (previous != 0) {
    holes[previous].link[link_].next = next;
    return;
  }
  const unsigned bin = bin_of(length);
  ACCELMM_DCHECK(heads_[bin] == id);
  heads_[bin] = next;
  if (next != 0) return;
  second_[bin / 32] &= ~(std::uint32_t{1} << (bin % 32));
  if (second_[bin / 32] == 0) first_ &= ~(std::uint64_t{1} << (bin / 32));
}

VaId VaBins::sure(std::uint64_t length) const {
  const unsigned bin = sure_bin(length);
  if (bin >= bins_) return 0;
  unsigned word = bin / 32;
  std::uint32_t bits = second_[word] & (~std::uint32_t{0} << (bin % 32));
  if (bits == 0) {
    // word < 63: a length has at most 64 bits, and bin_of() puts those into word 59.
    const std::uint64_t words = first_ & (~std::uint64_t{0} << (word + 1));
    if (words == 0) return 0;
    word = static_cast<unsigned>(std::countr_zero(words));
    bits = second_[word];
  }
  return heads_[word * 32 + static_cast<unsigned>(std::countr_zero(bits))];
}

VaId VaBins::same(std::uint64_t length) const {
  const unsigned bin = bin_of(length);
  return bin < bins_ ? heads_[bin] : 0;
}

}  // namespace accelmm::mm
