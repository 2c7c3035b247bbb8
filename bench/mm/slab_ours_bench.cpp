// SPDX-License-Identifier: Apache-2.0
//
// Our side of slab-hot-SIZE, slab-bulkN and heap-random-1k-16k, and how much of the memory the metadata
// are. All checks are on but in slab-bulkN-unchecked, where frees are trusted.
#include "rows.hpp"
#include "slab_sizes.hpp"
#include "slab_subject.hpp"
#include "subjects.hpp"
#include "workloads.hpp"

#include <accelmm/slab.hpp>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include <benchmark/benchmark.h>

namespace accelmm::bench {
namespace {

// With calls for many at once.
class BulkSlab : public SlabSubject {
 public:
  using SlabSubject::SlabSubject;

  template <std::size_t Count>
  [[nodiscard]] bool take_bulk(std::array<Piece, Count>& pieces) {
    return slab().allocate_bulk(ByteCount(slab_bulk_size), pieces).has_value();
  }
  template <std::size_t Count>
  [[nodiscard]] bool give_bulk(std::array<Piece, Count>& pieces) {
    return slab().free_bulk(pieces).has_value();
  }
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

// Beside them, where frees are trusted.
template <std::size_t Count>
void add_bulk_rows(const std::string& work) {
  for (const Slab::Bulk frees : {Slab::Bulk::checked, Slab::Bulk::trusted})
    add_row(frees == Slab::Bulk::checked ? work : work + "-unchecked", "ours",
            [=](benchmark::State& state) {
              BulkSlab subject(frees);
              hot_bulk<Count>(state, subject);
              subject.slab().validate();
            });
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
  add_bulk_rows<4>("slab-bulk4");
  add_bulk_rows<32>("slab-bulk32");
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
