// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/mmu/format.hpp>

namespace accelmm::mmu {

/// The bits of the word that may be the other way round, one at a time, without its kind changing:
/// in a format that trusts nothing it did not write, those of the address and of what may be chosen.
template <PteFormat F>
constexpr typename F::Word flips_that_keep_the_kind(unsigned hop, typename F::Word word) {
  using Word = typename F::Word;
  Word kept = 0;
  for (unsigned bit = 0; bit < 8 * sizeof(Word); ++bit) {
    const auto flip = static_cast<Word>(Word{1} << bit);
    if (F::classify(hop, word ^ flip) == F::classify(hop, word)) kept |= flip;
  }
  return kept;
}

}  // namespace accelmm::mmu
