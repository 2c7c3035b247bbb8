// SPDX-License-Identifier: Apache-2.0
#include "mm/chunk_map.hpp"

#include <algorithm>
#include <bit>

namespace accelmm::mm {

ChunkMap::ChunkMap(std::uint64_t pages, Zeros zeros)
    : pages_(pages),
      chunks_((pages + chunk_pages - 1) >> chunk_order),
      states_(chunks_, zeros),
      touched_words_(words_of(chunks_)),
      summary_words_(words_of(touched_words_)),
      marks_(new PageMarks[chunks_ * chunk_words]()),
      zero_(new per_cpu::Word[chunks_ * chunk_words]()),
      descriptors_(new Chunk[chunks_]()),
      touched_(new per_cpu::Word[touched_words_]()),
      summary_(new per_cpu::Word[summary_words_]()) {
  const auto tail = static_cast<unsigned>(pages & (chunk_pages - 1));
  if (tail == 0) return;
  make_partial(chunks_ - 1);
  take(chunks_ - 1, tail, chunk_pages);
}

std::size_t ChunkMap::metadata_bytes() const {
  return chunks_ * (chunk_words * (sizeof(PageMarks) + sizeof(per_cpu::Word)) + sizeof(Chunk)) +
         states_.metadata_bytes() + (touched_words_ + summary_words_) * sizeof(per_cpu::Word);
}

ChunkBits ChunkMap::free_bits(std::uint64_t c) const {
  ChunkBits bits;
  switch (kind(c)) {
    case Kind::free:
    case Kind::cached:
      bits.fill(~std::uint64_t{0});
      break;
    case Kind::allocated:
    case Kind::lone:
    case Kind::claimed:
      bits.fill(0);
      break;
    case Kind::partial:
      for (unsigned w = 0; w < chunk_words; ++w) bits[w] = free_word(c * chunk_words + w);
      break;
  }
  return bits;
}

bool ChunkMap::is_allocated(std::uint64_t page) const {
  const Kind kind = this->kind(page >> chunk_order);
  if (kind != Kind::partial) return kind == Kind::allocated || kind == Kind::lone;
  return (free_word(page >> 6) >> (page & 63) & 1) == 0;
}

void ChunkMap::make_partial(std::uint64_t c) {
  Chunk& chunk = descriptors_[c];
  const ChunkState state = states_.at(c);
  const bool claimed = state.kind() == Kind::claimed;
  ACCELMM_DCHECK(claimed || state.kind() == Kind::free || state.kind() == Kind::cached);
  const std::uint64_t differ = claimed ? ~std::uint64_t{0} : 0;
  for (std::uint64_t w = c * chunk_words; w < (c + 1) * chunk_words; ++w)
    marks_[w].taken.store(marks_[w].given.load(std::memory_order_acquire) ^ differ,
                          std::memory_order_relaxed);
  chunk.free_pages = claimed ? 0 : chunk_pages;
  chunk.blocks = claimed ? BlockOrders() : BlockOrders::all_free();
  chunk.order = no_order;
  chunk.lifetime.store(static_cast<std::uint8_t>(state.lifetime()), std::memory_order_relaxed);
  if (state.zeros() == Zeros::all) spell_zeros(c);
  set_kind(c, Kind::partial);
}

unsigned ChunkMap::count_blocks(std::uint64_t c) {
  const ChunkBits bits = free_bits(c);
  descriptors_[c].blocks = BlockOrders::of(bits);
  return count(bits);
}

void ChunkMap::give_to_lease(std::uint64_t c, unsigned begin, unsigned end) {
  for (unsigned w = begin / 64; w * 64 < end; ++w)
    marks_[c * chunk_words + w].given.fetch_xor(mask_of(w, begin, end), std::memory_order_acq_rel);
}

void ChunkMap::spell_zeros(std::uint64_t c) {
  const ChunkState state = states_.at(c);
  const std::uint64_t bits = state.zeros() == Zeros::all ? ~std::uint64_t{0} : 0;
  for (std::uint64_t w = c * chunk_words; w < (c + 1) * chunk_words; ++w)
    zero_[w].store(bits, std::memory_order_relaxed);
  states_.set(c, state.with(Zeros::some));
}

void ChunkMap::set_zeros(PageRun run, Zeros zeros) {
  while (!run.empty()) {
    const std::uint64_t c = run.begin >> chunk_order;
    const auto first = static_cast<unsigned>(run.begin & (chunk_pages - 1));
    const auto last =
        static_cast<unsigned>(std::min<std::uint64_t>(chunk_pages, first + run.size()));
    run.begin += last - first;
    const ChunkState state = states_.at(c);
    if (state.zeros() == zeros) continue;
    if (last - first == chunk_pages && (zeros == Zeros::none || state.kind() != Kind::partial)) {
      states_.set(c, state.with(zeros));
      continue;
    }
    if (state.zeros() != Zeros::some) spell_zeros(c);
    for (unsigned w = first / 64; w * 64 < last; ++w) {
      const std::uint64_t mask = mask_of(w, first, last);
      per_cpu::Word& word = zero_[c * chunk_words + w];
      if (zeros == Zeros::all)
        word.fetch_or(mask, std::memory_order_acq_rel);
      else
        word.fetch_and(~mask, std::memory_order_acq_rel);
    }
  }
}

bool ChunkMap::is_zero(std::uint64_t page) const {
  return (zero_word(page >> chunk_order, (page >> 6) % chunk_words) >> (page & 63) & 1) != 0;
}

std::uint64_t ChunkMap::zero_word(std::uint64_t c, unsigned word) const {
  switch (zeros(c)) {
    case Zeros::none:
      return 0;
    case Zeros::all:
      return ~std::uint64_t{0};
    case Zeros::some:
      return zero_[c * chunk_words + word].load(std::memory_order_acquire);
  }
  return 0;
}

}  // namespace accelmm::mm
