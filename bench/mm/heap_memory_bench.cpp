// SPDX-License-Identifier: Apache-2.0
//
// Shapes of mimalloc-bench in which threads write to what they got, or come and go: cache-scratch,
// cache-thrash and mleak. Written anew from what each is said to do.
#include "heap_subject.hpp"
#include "rows.hpp"
#include "slab_subject.hpp"
#include "subjects.hpp"
#include "workloads.hpp"

#include <accelmm/heap.hpp>
#include <accelmm/jemalloc_heap.hpp>

#include <array>
#include <atomic>
#include <barrier>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <benchmark/benchmark.h>

namespace accelmm::bench {
namespace {

using Clock = std::chrono::steady_clock;

volatile std::byte* memory_of(void* piece) {
  return static_cast<std::byte*>(piece);
}
volatile std::byte* memory_of(const HeapPiece& piece) {
  return static_cast<std::byte*>(piece.pointer);
}

// --- cache-scratch and cache-thrash ---

/// Where the first object of each thread is from: from one thread, side by side (scratch: whoever
/// frees such a one should not get its place again, which shares a line with others'), or its own.
enum class First : std::uint8_t { from_one_thread, own };

constexpr unsigned writers = 2;
constexpr std::uint64_t written_size = 8;
constexpr unsigned writes = 100;
constexpr unsigned objects = 20'000;

// An object is allocated, written to a hundred times and freed, over and over.
template <class Subject>
[[nodiscard]] bool write_objects(Subject& subject) {
  PieceOf<Subject> piece{};
  for (unsigned i = 0; i < objects; ++i) {
    if (!subject.take(written_size, piece)) return false;
    volatile std::byte* const memory = memory_of(piece);
    for (unsigned n = 0; n < writes; ++n)
      memory[n % written_size] = static_cast<std::byte>(memory[n % written_size]) ^ std::byte{1};
    if (!subject.give(piece)) return false;
  }
  return true;
}

/// `Subject` is a reference to what the threads share, or a set of functions that each may copy.
template <class Subject>
void share_lines(benchmark::State& state, Subject subject, First first) {
  for (auto _ : state) {
    std::array<PieceOf<Subject>, writers> handed{};
    if (first == First::from_one_thread)
      for (auto& piece : handed)
        if (!subject.take(written_size, piece)) return state.SkipWithError("refused");
    std::barrier meeting(writers);
    std::array<bool, writers> fine{};
    std::array<double, writers> seconds{};
    {
      std::vector<std::jthread> threads;
      for (unsigned i = 0; i < writers; ++i)
        threads.emplace_back([&, i] {
          Subject own = subject;
          meeting.arrive_and_wait();
          const auto start = Clock::now();
          fine[i] = first == First::own || own.give(handed[i]);
          fine[i] = write_objects<Subject>(own) && fine[i];
          seconds[i] = std::chrono::duration<double>(Clock::now() - start).count();
        });
    }
    if (!fine[0] || !fine[1]) return state.SkipWithError("refused");
    state.SetIterationTime((seconds[0] + seconds[1]) / writers);
  }
  state.counters["items"] = objects;
}

template <class SomeHeap>
void add_our_row(const std::string& work, const std::string& who, First first) {
  add_row(work, who, [=](benchmark::State& state) {
    HeapSubject<SomeHeap> subject;
    share_lines<HeapSubject<SomeHeap>&>(state, subject, first);
  })->UseManualTime();
}

void add_line_rows(const std::string& work, First first) {
  add_our_row<Heap>(work, "ours", first);
  add_our_row<JemallocHeap>(work, "ours-jemalloc", first);
  add_malloc_rows(
      work,
      [=](benchmark::State& state, MallocSubject&& subject) {
        share_lines<MallocSubject>(state, std::move(subject), first);
      },
      [](auto* row) { row->UseManualTime(); }, Threads::several);
}

// --- mleak ---

constexpr unsigned threads_at_once = 10;
constexpr unsigned generations = 20;
constexpr std::size_t long_lived = 1000;
constexpr std::uint64_t leaked_size = 128;

// Threads come and go, each of which puts an object in a random place and frees what was there: an
// object outlives its thread by a hundred others. The time is that of the two calls, each time a
// thread's first.
template <class Subject>
void come_and_go(benchmark::State& state, Subject subject) {
  std::vector<std::atomic<PieceOf<Subject>>> places(long_lived);
  for (auto& place : places) {
    PieceOf<Subject> piece{};
    if (!subject.take(leaked_size, piece)) return state.SkipWithError("refused to fill");
    place = piece;
  }
  Random random(1);
  std::atomic<bool> refused = false;
  for (auto _ : state) {
    std::atomic<Clock::duration::rep> ticks = 0;
    for (unsigned round = 0; round < generations; ++round) {
      std::vector<std::jthread> threads;
      for (unsigned i = 0; i < threads_at_once; ++i)
        threads.emplace_back([&, place = random.below(long_lived)] {
          Subject own = subject;
          PieceOf<Subject> piece{};
          const auto start = Clock::now();
          const bool taken = own.take(leaked_size, piece);
          if (!taken || !own.give(places[place].exchange(piece))) refused = true;
          ticks += (Clock::now() - start).count();
        });
    }
    state.SetIterationTime(std::chrono::duration<double>(Clock::duration(ticks.load())).count());
  }
  for (const auto& place : places)
    if (!subject.give(place.load())) refused = true;
  if (refused) state.SkipWithError("refused");
  state.counters["items"] = threads_at_once * generations;
}

void add_leak_rows() {
  const auto configure = [](auto* row) { row->UseManualTime(); };
  configure(add_row("mleak", "ours", [](benchmark::State& state) {
    SlabSubject subject;
    come_and_go<SlabSubject&>(state, subject);
    // The places hold 128 KB: some slabs, however many threads there were.
    if (subject.slab().statistics().from_source > 1_MiB) state.SkipWithError("slabs leak");
    if (!subject.whole()) state.SkipWithError("not whole at the end");
  }));
  add_malloc_rows(
      "mleak",
      [](benchmark::State& state, MallocSubject&& subject) {
        come_and_go<MallocSubject>(state, std::move(subject));
      },
      configure, Threads::several);
}

const bool registered = [] {
  add_line_rows("cache-scratch", First::from_one_thread);
  add_line_rows("cache-thrash", First::own);
  add_leak_rows();
  return true;
}();

}  // namespace
}  // namespace accelmm::bench
