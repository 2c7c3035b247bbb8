// SPDX-License-Identifier: Apache-2.0
//
// Theory. Blocks smaller than a chunk lie inside one, and can be counted there. Larger ones are made
// of free chunks alone: a run of these, as long as it goes, is cut greedily into the largest aligned
// blocks, which are those that no larger block contains. So one walk over the chunks suffices, and it
// sees the same whether an allocator keeps a chunk in its buddies, on a stack or at a processor.
#include <accelmm/check.hpp>
#include <accelmm/fragmentation.hpp>

#include <algorithm>
#include <bit>

namespace accelmm {

namespace {

constexpr unsigned chunk_order = 9;
constexpr unsigned words = Fragmentation::chunk_pages / 64;
using Chunk = std::span<const std::uint64_t, words>;

double share(std::uint64_t part, std::uint64_t whole) {
  return static_cast<double>(part) / static_cast<double>(whole);
}

unsigned count(Chunk free) {
  int pages = 0;
  for (const std::uint64_t word : free) pages += std::popcount(word);
  return static_cast<unsigned>(pages);
}

// Bits at multiples of 2^order.
constexpr std::uint64_t multiples(unsigned order) {
  std::uint64_t bits = 0;
  for (unsigned bit = 0; bit < 64; bit += 1U << order) bits |= std::uint64_t{1} << bit;
  return bits;
}

}  // namespace

std::uint64_t Fragmentation::partial_chunks() const {
  std::uint64_t chunks = partial_tail_;
  for (unsigned n = 1; n < chunk_pages; ++n) chunks += chunks_by_allocated_[n];
  return chunks;
}

double Fragmentation::external(unsigned order) const {
  if (free_ == 0) return 0.0;
  std::uint64_t usable = 0;
  for (unsigned o = order; o < orders; ++o) usable += blocks_[o] << o;
  return 1.0 - share(usable, free_);
}

double Fragmentation::scattered() const {
  return free_ == 0 ? 0.0 : 1.0 - share(longest_, free_);
}

// Emptying a set of chunks moves its pages into the free pages of those outside. With U pages
// allocated in the set and F free ones in all partly free chunks, that is U <= F - (512 n - U) for n
// chunks, whichever they are: 512 n <= F. So the emptiest ones are the cheapest choice.
std::optional<ByteCount> Fragmentation::compaction_debt(std::uint64_t chunks) const {
  if (chunks > free_in_partial_ / chunk_pages) return std::nullopt;
  std::uint64_t moved = 0;
  for (unsigned n = 1; n <= chunk_pages && chunks > 0; ++n) {
    const std::uint64_t emptied = std::min(chunks, chunks_by_allocated_[n]);
    moved += emptied * n;
    chunks -= emptied;
  }
  if (chunks > 0) return std::nullopt;
  return bytes(moved);
}

void Fragmentation::end_free_chunks() {
  std::uint64_t at = next_chunk_ - free_chunks_;
  while (free_chunks_ > 0) {
    auto order = static_cast<unsigned>(std::bit_width(free_chunks_) - 1);
    if (at != 0) order = std::min(order, static_cast<unsigned>(std::countr_zero(at)));
    ++blocks_[chunk_order + order];
    at += std::uint64_t{1} << order;
    free_chunks_ -= std::uint64_t{1} << order;
  }
}

void Fragmentation::end_run() {
  longest_ = std::max(longest_, run_);
  run_ = 0;
}

void Fragmentation::add_free_chunks(std::uint64_t count) {
  pages_ += count * chunk_pages;
  free_ += count * chunk_pages;
  run_ += count * chunk_pages;
  whole_chunks_ += count;
  free_chunks_ += count;
  next_chunk_ += count;
}

void Fragmentation::add_allocated_chunks(std::uint64_t count) {
  if (count == 0) return;
  end_free_chunks();
  end_run();
  pages_ += count * chunk_pages;
  chunks_by_allocated_[chunk_pages] += count;
  next_chunk_ += count;
}

void Fragmentation::add_chunk(Chunk free, unsigned pages) {
  const unsigned free_pages = count(free);
  if (free_pages == chunk_pages) return add_free_chunks(1);
  if (free_pages == 0 && pages == chunk_pages) return add_allocated_chunks(1);
  ACCELMM_DCHECK(free_pages <= pages && pages <= chunk_pages);
  end_free_chunks();
  pages_ += pages;
  free_ += free_pages;
  free_in_partial_ += free_pages;
  if (pages == chunk_pages)
    ++chunks_by_allocated_[chunk_pages - free_pages];
  else
    partial_tail_ += free_pages != 0 && free_pages != pages ? 1 : 0;
  ++next_chunk_;
  count_blocks(free);
  count_runs(free);
}

void Fragmentation::count_blocks(Chunk free) {
  unsigned whole_words = 0;
  for (unsigned w = 0; w < words; ++w) {
    std::uint64_t blocks = free[w];  // by first page, of the order at hand
    for (unsigned order = 0; order < 6 && blocks != 0; ++order) {
      const std::uint64_t above = blocks & blocks >> (1U << order) & multiples(order + 1);
      blocks_[order] += static_cast<unsigned>(std::popcount(blocks) - 2 * std::popcount(above));
      blocks = above;
    }
    whole_words |= static_cast<unsigned>(blocks & 1) << w;
  }
  // Of 64 pages and more: the same over words.
  constexpr unsigned firsts[] = {0x55, 0x11, 0x01};
  for (unsigned order = 6; order < chunk_order; ++order) {
    const unsigned above = whole_words & whole_words >> (1U << (order - 6)) & firsts[order - 6];
    blocks_[order] += static_cast<unsigned>(std::popcount(whole_words) - 2 * std::popcount(above));
    whole_words = above;
  }
}

void Fragmentation::count_runs(Chunk free) {
  for (std::uint64_t word : free) {
    for (unsigned left = 64; left > 0;) {
      const auto set = std::min(left, static_cast<unsigned>(std::countr_one(word)));
      run_ += set;
      if (set == left) break;
      end_run();
      word >>= set;
      left -= set;
      const auto clear = std::min(left, static_cast<unsigned>(std::countr_zero(word)));
      if (clear == left) break;
      word >>= clear;
      left -= clear;
    }
  }
}

void Fragmentation::finish() {
  end_free_chunks();
  end_run();
}

Fragmentation fragmentation_of(std::span<const std::uint64_t> free, std::uint64_t pages,
                               ByteCount page) {
  ACCELMM_CHECK(pages <= free.size() * 64);
  Fragmentation found(page);
  std::size_t at = 0;
  for (; pages >= Fragmentation::chunk_pages; pages -= Fragmentation::chunk_pages, at += words)
    found.add_chunk(free.subspan(at).first<words>());
  if (pages > 0) {
    std::array<std::uint64_t, words> last{};
    const std::span<const std::uint64_t> rest =
        free.subspan(at, std::min<std::size_t>(words, (pages + 63) / 64));
    std::ranges::copy(rest, last.begin());
    found.add_chunk(last, static_cast<unsigned>(pages));
  }
  found.finish();
  return found;
}

void GrantTally::add(ByteCount requested, ByteCount granted) {
  requested_ += requested;
  granted_ += granted;
}

void GrantTally::add_extents(std::size_t count) {
  ++by_extents_[std::min(count, most_extents)];
  ++scattered_;
  extents_ += count;
}

void GrantTally::add_zeros(ByteCount needed, ByteCount zero) {
  needed_ += needed;
  zero_ += zero;
}

double GrantTally::internal() const {
  return granted_.value() == 0 ? 0.0 : 1.0 - share(requested_.value(), granted_.value());
}

double GrantTally::mean_extents() const {
  return scattered_ == 0 ? 0.0 : share(extents_, scattered_);
}

std::size_t GrantTally::p99_extents() const {
  const std::uint64_t enough = scattered_ - scattered_ / 100;
  std::uint64_t seen = by_extents_[0];
  std::size_t extents = 0;
  while (seen < enough) seen += by_extents_[++extents];
  return extents;
}

double GrantTally::zero_hit_rate() const {
  return needed_.value() == 0 ? 1.0 : share(zero_.value(), needed_.value());
}

}  // namespace accelmm
