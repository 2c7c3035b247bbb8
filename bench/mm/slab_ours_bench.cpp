// SPDX-License-Identifier: Apache-2.0
//
// Our side of slab-hot-SIZE, slab-bulk32 and heap-random-1k-16k, and how much of the memory the
// metadata are. All checks are on but in slab-bulk32-unchecked, where frees are trusted.
#include "rows.hpp"
#include "slab_sizes.hpp"
#include "subjects.hpp"
#include "workloads.hpp"

#include <accelmm/slab.hpp>

#include <array>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <utility>
#include <vector>

#include <benchmark/benchmark.h>

namespace accelmm::bench {
namespace {

// Slabs side by side in a region without end. What comes back is used again, newest first.
class EndlessSource final : public SlabSource {
 public:
  static constexpr ByteCount region = 64_GiB;

  Result<Extent> grow(ByteCount size, Alignment alignment) override {
    for (std::size_t i = returned_.size(); i-- > 0;)
      if (returned_[i].length == size) {
        const Extent extent = returned_[i];
        returned_.erase(returned_.begin() + static_cast<std::ptrdiff_t>(i));
        return extent;
      }
    const std::uint64_t at = (end_ + alignment.value() - 1) & ~(alignment.value() - 1);
    if (at + size.value() > region.value()) return fail(Errc::no_memory, "region is full");
    end_ = at + size.value();
    return Extent{.offset = RegionOffset(at), .length = size};
  }
  void give_back(Extent extent) override { returned_.push_back(extent); }

 private:
  std::uint64_t end_ = 0;
  std::vector<Extent> returned_;
};

class SlabSubject {
 public:
  using Piece = RegionOffset;

  explicit SlabSubject(Slab::Bulk bulk = Slab::Bulk::checked) : slab_(make(source_, bulk)) {}

  [[nodiscard]] bool take(std::uint64_t size, Piece& piece) {
    const auto object = slab_.allocate(ByteCount(size));
    if (!object) return false;
    piece = object->offset;
    return true;
  }
  [[nodiscard]] bool take(std::uint64_t size, std::uint64_t /*alignment*/, Piece& piece) {
    return take(size, piece);
  }
  [[nodiscard]] bool give(Piece piece) { return slab_.free(piece).has_value(); }
  [[nodiscard]] bool take_bulk(std::array<Piece, bulk>& pieces) {
    return slab_.allocate_bulk(ByteCount(slab_bulk_size), pieces).has_value();
  }
  [[nodiscard]] bool give_bulk(std::array<Piece, bulk>& pieces) {
    return slab_.free_bulk(pieces).has_value();
  }
  [[nodiscard]] static std::uint64_t address(Piece piece) { return piece.value(); }
  [[nodiscard]] Slab& slab() { return slab_; }

 private:
  static Slab make(SlabSource& source, Slab::Bulk bulk) {
    auto slab = Slab::create({.source = &source, .region = EndlessSource::region, .bulk = bulk});
    if (!slab) std::abort();
    return std::move(*slab);
  }
  EndlessSource source_;
  Slab slab_;
};

// What nothing that crosses processors can go below: one load and compare-and-swap.
void compare_and_swap(benchmark::State& state) {
  std::atomic<std::uint64_t> word = 0;
  for (auto _ : state) {
    std::uint64_t seen = word.load();
    benchmark::DoNotOptimize(word.compare_exchange_strong(seen, seen + 1));
  }
}

// Objects of 16 bytes, where the marks weigh most.
void metadata(benchmark::State& state) {
  SlabSubject subject;
  const std::uint64_t fixed = subject.slab().statistics().metadata.value();
  std::vector<RegionOffset> offsets(1 << 20);
  const bool taken = subject.slab().allocate_bulk(16_B, offsets).has_value();
  for (auto _ : state) benchmark::ClobberMemory();
  if (!taken) return state.SkipWithError("refused to allocate");
  const auto statistics = subject.slab().statistics();
  state.counters["%"] = 100.0 * static_cast<double>(statistics.metadata.value() - fixed) /
                        static_cast<double>(statistics.from_source.value());
}

const bool registered = [] {
  for (const std::size_t size : slab_sizes) {
    add_row(slab_hot(size), "ours", [=](benchmark::State& state) {
      SlabSubject subject;
      hot_pair(state, subject, {.size = size});
      subject.slab().validate();
    });
    add_row(slab_hot(size), "limit:cas", compare_and_swap);
  }
  for (const bool checked : {true, false})
    add_row(checked ? "slab-bulk32" : "slab-bulk32-unchecked", "ours",
            [=](benchmark::State& state) {
              SlabSubject subject(checked ? Slab::Bulk::checked : Slab::Bulk::trusted);
              hot_bulk(state, subject);
              subject.slab().validate();
            });
  add_row("heap-random-1k-16k", "ours-slab", [](benchmark::State& state) {
    SlabSubject subject;
    random_replace(state, subject, {Mix::Kind::uniform, 1024, 16384}, {.pieces = 8192});
    subject.slab().validate();
  });
  add_row("slab-metadata-per-cent-16", "ours", metadata)->Iterations(1);
  return true;
}();

}  // namespace
}  // namespace accelmm::bench
