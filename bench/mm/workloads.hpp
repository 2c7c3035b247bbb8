// SPDX-License-Identifier: Apache-2.0
//
// The work itself, once for all allocators. A subject is an allocator behind two calls:
//
//   bool take(size, Piece& piece)   and, where it can align, take(size, alignment, piece)
//   bool give(const Piece& piece)   false if it refused
//
// Everything random is drawn before the clock starts, from fixed seeds, so that all subjects do the
// same work. What they gave out is checked after the clock stopped. A subject that is passed as an
// rvalue is copied into the function, where its pointers stay in registers.
#pragma once

#include "verify.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>
#include <vector>

#include <benchmark/benchmark.h>

namespace accelmm::bench {

/// splitmix64: every seed gives a full-period sequence of its own.
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}
  std::uint64_t operator()() {
    std::uint64_t z = state_ += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }
  /// Uniform in [0, bound), by the high half of a product; the bias is below bound / 2^32.
  std::uint32_t below(std::uint32_t bound) {
    return static_cast<std::uint32_t>(((*this)() >> 32) * bound >> 32);
  }

 private:
  std::uint64_t state_;
};

/// What is asked for: a size, at an alignment or (0) wherever the allocator likes.
struct Request {
  std::uint64_t size;
  std::uint64_t alignment = 0;
};

template <class Subject>
using PieceOf = typename std::remove_reference_t<Subject>::Piece;

template <class Subject>
[[nodiscard]] bool take(Subject& subject, Request request, PieceOf<Subject>& piece) {
  if (request.alignment == 0) return subject.take(request.size, piece);
  if constexpr (requires { subject.take(request.size, request.alignment, piece); })
    return subject.take(request.size, request.alignment, piece);
  else
    return false;  // it cannot align
}

/// One piece taken and given back, over and over.
template <class Subject>
void hot_pair(benchmark::State& state, Subject&& subject, Request request) {
  Subject local = std::forward<Subject>(subject);
  PieceOf<Subject> piece{};
  for (auto _ : state) {
    if (!take(local, request, piece)) return state.SkipWithError("refused to allocate");
    benchmark::DoNotOptimize(piece);
    if (!local.give(piece)) return state.SkipWithError("refused to free");
  }
  if (request.alignment != 0 && local.address(piece) % request.alignment != 0)
    state.SkipWithError("not aligned");
}

/// So many pieces taken and given back together, over and over. Its time is one piece's.
template <std::size_t Count, class Subject>
void hot_bulk(benchmark::State& state, Subject&& subject) {
  Subject local = std::forward<Subject>(subject);
  std::array<PieceOf<Subject>, Count> pieces{};
  for (auto _ : state) {
    if (!local.take_bulk(pieces)) return state.SkipWithError("refused to allocate");
    benchmark::DoNotOptimize(pieces);
    if (!local.give_bulk(pieces)) return state.SkipWithError("refused to free");
  }
  state.counters["items"] = Count;
}

/// Sizes to draw from.
struct Mix {
  enum class Kind : std::uint8_t { log_uniform_orders, uniform };
  Kind kind;
  std::uint32_t low;   ///< first order of 4 KiB pages, or smallest size in bytes
  std::uint32_t high;  ///< last order, or largest size; both included
  [[nodiscard]] std::uint64_t draw(Random& random) const {
    const std::uint32_t pick = low + random.below(high - low + 1);
    return kind == Kind::uniform ? pick : std::uint64_t{4096} << pick;
  }
};

/// How much is live: so many pieces, or as many as reach so many bytes.
struct Fill {
  std::size_t pieces = SIZE_MAX;
  std::uint64_t bytes = UINT64_MAX;
};

/// A random piece freed and another allocated, over and over, among many live ones. Its time is the
/// two together.
template <class Subject>
void random_replace(benchmark::State& state, Subject&& subject, Mix mix, Fill fill,
                    std::uint64_t alignment = 0) {
  Subject local = std::forward<Subject>(subject);
  struct Live {
    PieceOf<Subject> piece;
    std::uint64_t size;
  };
  struct Replacement {
    std::uint32_t slot;
    std::uint64_t size;
  };
  Random random(20260101);
  std::vector<Live> live;
  for (std::uint64_t bytes = 0; live.size() < fill.pieces && bytes < fill.bytes;) {
    Live next{{}, mix.draw(random)};
    if (!take(local, {next.size, alignment}, next.piece))
      return state.SkipWithError("refused to fill");
    bytes += next.size;
    live.push_back(next);
  }
  std::vector<Replacement> steps(std::size_t{1} << 16);
  for (Replacement& step : steps)
    step = {random.below(static_cast<std::uint32_t>(live.size())), mix.draw(random)};

  std::size_t at = 0;
  for (auto _ : state) {
    const Replacement step = steps[at++ & (steps.size() - 1)];
    Live& slot = live[step.slot];
    if (!local.give(slot.piece)) return state.SkipWithError("refused to free");
    if (!take(local, {step.size, alignment}, slot.piece))
      return state.SkipWithError("refused to allocate");
    slot.size = step.size;
  }

  std::vector<Interval> intervals;
  for (const Live& piece : live) {
    const std::uint64_t begin = local.address(piece.piece);
    intervals.push_back({begin, begin + piece.size});
    if (alignment != 0 && begin % alignment != 0) state.SkipWithError("not aligned");
    if (!local.give(piece.piece)) return state.SkipWithError("refused to free at the end");
  }
  if (!disjoint(std::move(intervals))) state.SkipWithError("gave the same place out twice");
}

}  // namespace accelmm::bench
