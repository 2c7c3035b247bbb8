// SPDX-License-Identifier: Apache-2.0
#include "mm/chunk_map.hpp"

#include <algorithm>
#include <bit>

namespace accelmm::mm {

ChunkMap::ChunkMap(std::uint64_t pages, Zeros zeros)
    : pages_(pages),
      chunks_((pages + chunk_pages - 1) >> chunk_order),
      touched_words_(words_of(chunks_)),
      summary_words_(words_of(touched_words_)),
      marks_(new PageMarks[chunks_ * chunk_words]()),
      zero_(new per_cpu::Word[chunks_ * chunk_words]()),
      descriptors_(new Chunk[chunks_]()),
      touched_(new per_cpu::Word[touched_words_]()),
      summary_(new per_cpu::Word[summary_words_]()) {
  for (std::uint64_t c = 0; c < chunks_; ++c)
    descriptors_[c].zeros.store(zeros, std::memory_order_relaxed);
  const auto tail = static_cast<unsigned>(pages & (chunk_pages - 1));
  if (tail == 0) return;
  make_partial(chunks_ - 1);
  take(chunks_ - 1, tail, chunk_pages);
}

std::size_t ChunkMap::metadata_bytes() const {
  return chunks_ * (chunk_words * (sizeof(PageMarks) + sizeof(per_cpu::Word)) + sizeof(Chunk)) +
         (touched_words_ + summary_words_) * sizeof(per_cpu::Word);
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
  const Kind kind = chunk.kind.load(std::memory_order_relaxed);
  ACCELMM_DCHECK(kind == Kind::free || kind == Kind::cached || kind == Kind::claimed);
  const std::uint64_t differ = kind == Kind::claimed ? ~std::uint64_t{0} : 0;
  for (std::uint64_t w = c * chunk_words; w < (c + 1) * chunk_words; ++w)
    marks_[w].taken.store(marks_[w].given.load(std::memory_order_acquire) ^ differ,
                          std::memory_order_relaxed);
  chunk.free_pages = kind == Kind::claimed ? 0 : chunk_pages;
  chunk.order = no_order;
  if (chunk.zeros.load(std::memory_order_relaxed) == Zeros::all) spell_zeros(c);
  chunk.kind.store(Kind::partial, std::memory_order_release);
}

void ChunkMap::take(std::uint64_t c, unsigned begin, unsigned end) {
  for (unsigned w = begin / 64; w * 64 < end; ++w) {
    per_cpu::Word& word = marks_[c * chunk_words + w].taken;
    word.store(word.load(std::memory_order_relaxed) ^ mask_of(w, begin, end),
               std::memory_order_release);
  }
}

void ChunkMap::give(std::uint64_t c, unsigned begin, unsigned end) {
  const bool leased = descriptors_[c].lease.load(std::memory_order_relaxed) != 0;
  for (unsigned w = begin / 64; w * 64 < end; ++w) {
    const std::uint64_t mask = mask_of(w, begin, end);
    PageMarks& marks = marks_[c * chunk_words + w];
    if (leased)
      marks.given.fetch_xor(mask, std::memory_order_acq_rel);
    else
      marks.taken.store(marks.taken.load(std::memory_order_relaxed) ^ mask,
                        std::memory_order_release);
  }
}

void ChunkMap::spell_zeros(std::uint64_t c) {
  std::atomic<Zeros>& known = descriptors_[c].zeros;
  const bool all = known.load(std::memory_order_relaxed) == Zeros::all;
  for (std::uint64_t w = c * chunk_words; w < (c + 1) * chunk_words; ++w)
    zero_[w].store(all ? ~std::uint64_t{0} : 0, std::memory_order_relaxed);
  known.store(Zeros::some, std::memory_order_release);
}

void ChunkMap::set_zeros(PageRun run, Zeros zeros) {
  while (!run.empty()) {
    const std::uint64_t c = run.begin >> chunk_order;
    const auto first = static_cast<unsigned>(run.begin & (chunk_pages - 1));
    const auto last =
        static_cast<unsigned>(std::min<std::uint64_t>(chunk_pages, first + run.size()));
    run.begin += last - first;
    std::atomic<Zeros>& known = descriptors_[c].zeros;
    if (known.load(std::memory_order_relaxed) == zeros) continue;
    if (last - first == chunk_pages && (zeros == Zeros::none || kind(c) != Kind::partial)) {
      known.store(zeros, std::memory_order_release);
      continue;
    }
    if (known.load(std::memory_order_relaxed) != Zeros::some) spell_zeros(c);
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
  switch (descriptors_[c].zeros.load(std::memory_order_acquire)) {
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
