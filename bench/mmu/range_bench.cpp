// SPDX-License-Identifier: Apache-2.0
//
// Large ranges, many ranges, and the shapes that habanalabs' own benchmarks map. Each beside the store
// loop that writes the same entries, and beside the model of a driver that walks for each page.
#include "mmu/models/habanalabs_walk.hpp"
#include "mmu/tree.hpp"

#include <accelmm/mmu/table_sink.hpp>

#include <algorithm>
#include <cstdint>
#include <random>
#include <vector>

#include <benchmark/benchmark.h>

namespace accelmm::bench {
namespace {

constexpr std::uint64_t gib = std::uint64_t{1} << 30;
constexpr std::uint64_t base = std::uint64_t{1} << 40;
constexpr std::uint64_t off_by_a_page = (std::uint64_t{1} << 33) + page;
constexpr std::uint64_t congruent = std::uint64_t{1} << 33;

// One map of `length` bytes into a tree that has only its root, taken away again untimed.
void map_range(benchmark::State& state, std::uint64_t bus, std::uint64_t length) {
  Tree tree(static_cast<std::uint32_t>(length / large + 80));
  for (auto _ : state) {
    const auto start = Clock::now();
    const bool mapped = tree.map(base, bus, length);
    state.SetIterationTime(seconds_since(start));
    if (!mapped || !tree.leads_to(base + length - page, bus + length - page) ||
        !tree.unmap(base, length))
      return state.SkipWithError("wrong tables");
  }
}

// The same where stores go to device memory, and to a copy that is read: two stores an entry.
void map_range_shadowed(benchmark::State& state, std::uint64_t bus, std::uint64_t length) {
  const auto tables = static_cast<std::uint32_t>(length / large + 80);
  const Memory device = zeroed((tables * page + large) / large * large);
  mmu::WriteThroughSink sink(BusAddr(page), device.get());
  Tree tree(tables, &sink);
  for (auto _ : state) {
    const auto start = Clock::now();
    const bool mapped = tree.map(base, bus, length);
    state.SetIterationTime(seconds_since(start));
    if (!mapped || !tree.unmap(base, length)) return state.SkipWithError("wrong tables");
  }
}

void walk_range(benchmark::State& state, std::uint64_t length) {
  HabanalabsWalk walk(length / large + 80);
  for (auto _ : state) {
    const auto start = Clock::now();
    const bool mapped = walk.map(base, off_by_a_page, length);
    state.SetIterationTime(seconds_since(start));
    if (!mapped || !walk.unmap(base, length)) return state.SkipWithError("wrong tables");
  }
}

// The same entries into memory that is as cold as freed tables are.
void store_range(benchmark::State& state, std::uint64_t length, std::uint64_t leaf) {
  const std::size_t count = length / leaf;
  const std::size_t bytes = std::max<std::size_t>(count * sizeof(std::uint64_t), large);
  const Memory memory = zeroed(bytes);
  auto* const words = reinterpret_cast<std::uint64_t*>(memory.get());
  for (auto _ : state) {
    const auto start = Clock::now();
    store_entries(words, count, 0x1'0000'0819, leaf);
    benchmark::ClobberMemory();
    state.SetIterationTime(seconds_since(start));
    std::memset(words, 0, count * sizeof(std::uint64_t));
    benchmark::ClobberMemory();
  }
}

// Pieces of a range in an order of their own: what is mapped with one call each.
struct Piece {
  std::uint64_t va;
  std::uint64_t bus;
  std::uint64_t length;
};

std::vector<Piece> random_pages() {
  std::vector<Piece> pieces;
  for (std::uint64_t i = 0; i < 4096; ++i)
    pieces.push_back({base + i * 33 * page, off_by_a_page + i * page, page});
  std::shuffle(pieces.begin(), pieces.end(), std::mt19937_64(1));
  return pieces;
}
std::vector<Piece> large_pages() {
  std::vector<Piece> pieces;
  for (std::uint64_t i = 0; i < 4096; ++i)
    pieces.push_back({base + i * large, congruent + i * large, large});
  return pieces;
}
std::vector<Piece> large_pages_at_random() {
  auto pieces = large_pages();
  std::shuffle(pieces.begin(), pieces.end(), std::mt19937_64(2));
  return pieces;
}
std::vector<Piece> small_pieces() {
  std::vector<Piece> pieces;
  std::mt19937_64 random(3);
  std::uint64_t va = base;
  for (int i = 0; i < 4096; ++i) {
    const std::uint64_t length = (1 + random() % 16) * page;
    pieces.push_back({va, off_by_a_page + (random() % (1 << 20)) * page, length});
    va += length;
  }
  return pieces;
}

enum class Timed { map, unmap };

template <class Tables>
void pieces_of(benchmark::State& state, Tables& tables, const std::vector<Piece>& pieces,
               Timed timed) {
  bool ok = true;
  for (auto _ : state) {
    const auto start = Clock::now();
    for (const Piece& piece : pieces) ok = tables.map(piece.va, piece.bus, piece.length) && ok;
    const auto mapped = Clock::now();
    for (const Piece& piece : pieces) ok = tables.unmap(piece.va, piece.length) && ok;
    const std::chrono::duration<double> spent =
        timed == Timed::map ? mapped - start : Clock::now() - mapped;
    state.SetIterationTime(spent.count());
  }
  if (!ok) return state.SkipWithError("refused");
  state.counters["items"] = static_cast<double>(pieces.size());
}
void ours_pieces(benchmark::State& state, std::vector<Piece> (*make)(), Timed timed) {
  Tree tree(8192);
  pieces_of(state, tree, make(), timed);
}
void walk_pieces(benchmark::State& state, std::vector<Piece> (*make)(), Timed timed) {
  HabanalabsWalk walk(8192);
  pieces_of(state, walk, make(), timed);
}

// A list of runs of 1 to 64 pages, as a pinned user buffer is, mapped with one call.
void map_scatter(benchmark::State& state) {
  std::mt19937_64 random(4);
  std::vector<Run> runs;
  std::uint64_t length = 0;
  while (length < 64 * large) {
    const std::uint64_t bytes = (1 + random() % 64) * page;
    runs.push_back({BusAddr((random() % (1 << 22)) * page), ByteCount(bytes)});
    length += bytes;
  }
  Tree tree(200);
  for (auto _ : state) {
    const auto start = Clock::now();
    const auto mapped = tree.table().map(DeviceAddr(base), runs, Access::read_write);
    state.SetIterationTime(seconds_since(start));
    if (!mapped || !tree.unmap(base, length)) return state.SkipWithError("wrong tables");
  }
  state.counters["items"] = static_cast<double>(length / page);
}
void store_scatter(benchmark::State& state) {
  store_range(state, 65 * large, page);
  state.counters["items"] = 65.0 * 512;
}

// Bytes of tables for a GiB, the root and all others included.
void table_bytes(benchmark::State& state, std::uint64_t bus) {
  Tree tree(600);
  for (auto _ : state)
    if (!tree.map(base, bus, gib)) return state.SkipWithError("refused");
  state.counters["bytes"] = static_cast<double>(tree.table().tables()) * page;
}

#define ACCELMM_ROW(body, work, who, ...) \
  BENCHMARK_CAPTURE(body, row, __VA_ARGS__)->Name("mmu/" work "/" who)->UseManualTime()

ACCELMM_ROW(map_range, "map-1g-4k", "ours", off_by_a_page, gib);
ACCELMM_ROW(store_range, "map-1g-4k", "store-loop", gib, page);
ACCELMM_ROW(map_range_shadowed, "map-1g-4k", "ours-write-through", off_by_a_page, gib);
ACCELMM_ROW(walk_range, "map-1g-4k", "model-habanalabs-walk", gib);
ACCELMM_ROW(map_range, "map-1g-2m", "ours", congruent, gib);
ACCELMM_ROW(store_range, "map-1g-2m", "store-loop", gib, large);
ACCELMM_ROW(map_range, "map-64g-2m", "ours", congruent, 64 * gib);
ACCELMM_ROW(store_range, "map-64g-2m", "store-loop", 64 * gib, large);
ACCELMM_ROW(ours_pieces, "map-random-4k", "ours", random_pages, Timed::map);
ACCELMM_ROW(walk_pieces, "map-random-4k", "model-habanalabs-walk", random_pages, Timed::map);
BENCHMARK(map_scatter)->Name("mmu/map-scatter/ours")->UseManualTime();
BENCHMARK(store_scatter)->Name("mmu/map-scatter/store-loop")->UseManualTime();

// hl-thunk's shapes: 4096 mappings of 2 MiB, one of 8 GiB in pages, random order, many small.
ACCELMM_ROW(ours_pieces, "hl-map-4096x2m", "ours", large_pages, Timed::map);
ACCELMM_ROW(ours_pieces, "hl-unmap-4096x2m", "ours", large_pages, Timed::unmap);
ACCELMM_ROW(ours_pieces, "hl-map-random-order", "ours", large_pages_at_random, Timed::map);
ACCELMM_ROW(map_range, "hl-map-8g-4k", "ours", off_by_a_page, 8 * gib);
ACCELMM_ROW(store_range, "hl-map-8g-4k", "store-loop", 8 * gib, page);
ACCELMM_ROW(walk_range, "hl-map-8g-4k", "model-habanalabs-walk", 8 * gib);
ACCELMM_ROW(ours_pieces, "hl-map-many-small", "ours", small_pieces, Timed::map);
ACCELMM_ROW(walk_pieces, "hl-map-many-small", "model-habanalabs-walk", small_pieces, Timed::map);

ACCELMM_ROW(table_bytes, "table-bytes-per-gib-4k", "ours", off_by_a_page)->Iterations(1);
ACCELMM_ROW(table_bytes, "table-bytes-per-gib-2m", "ours", congruent)->Iterations(1);

}  // namespace
}  // namespace accelmm::bench
