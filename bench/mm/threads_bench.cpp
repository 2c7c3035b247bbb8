// SPDX-License-Identifier: Apache-2.0
//
// One allocator, two threads: each busy with its own pages, or one allocating what the other frees.
#include "rows.hpp"
#include "subjects.hpp"
#include "workloads.hpp"

#include <array>
#include <atomic>
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
constexpr std::uint64_t region = std::uint64_t{64} << 30;
constexpr std::uint64_t page = 4096;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Lets nobody on before all have come.
class Start {
 public:
  explicit Start(unsigned threads) : missing_(threads) {}
  void arrive_and_wait() {
    missing_.fetch_sub(1);
    while (missing_.load(std::memory_order_acquire) != 0) std::this_thread::yield();
  }

 private:
  std::atomic<unsigned> missing_;
};

// A thread's own pages: of 64 live ones a random one is freed, and another allocated.
constexpr std::size_t own_pages = 64;
constexpr std::size_t steps = 50'000;

template <class Subject>
struct OwnPages {
  Subject subject;
  std::array<PieceOf<Subject>, own_pages> pages{};
  double seconds = 0;
  bool refused = false;

  void run(Random random, Start& start) {
    std::vector<std::uint8_t> slots(steps);
    for (std::uint8_t& slot : slots) slot = static_cast<std::uint8_t>(random.below(own_pages));
    for (auto& piece : pages) refused |= !subject.take(page, piece);
    start.arrive_and_wait();
    const auto begin = Clock::now();
    for (const std::uint8_t slot : slots) {
      if (!subject.give(pages[slot]) || !subject.take(page, pages[slot])) {
        refused = true;
        break;
      }
    }
    seconds = seconds_since(begin);
  }
};

/// `Subject` is a reference to what the threads share, or a set of functions that each may copy.
template <unsigned Count, class Subject>
void threads_own_pages(benchmark::State& state, Subject subject) {
  for (auto _ : state) {
    std::vector<OwnPages<Subject>> work(Count, OwnPages<Subject>{subject});
    Start start(Count);
    {
      std::vector<std::jthread> threads;
      for (unsigned i = 0; i < Count; ++i)
        threads.emplace_back([&, i] { work[i].run(Random(i), start); });
    }
    double seconds = 0;
    std::vector<Interval> live;
    for (auto& own : work) {
      if (own.refused) return state.SkipWithError("refused");
      seconds += own.seconds / Count;
      for (const auto& piece : own.pages) {
        const std::uint64_t begin = subject.address(piece);
        live.push_back({begin, begin + page});
        if (!subject.give(piece)) return state.SkipWithError("refused to free at the end");
      }
    }
    state.SetIterationTime(seconds);
    if (!disjoint(std::move(live))) return state.SkipWithError("gave the same page out twice");
  }
  state.counters["items"] = steps;
}

// Batches of pages in flight from the thread that allocates to the one that frees. A batch is big
// enough that the clock, read twice for each, does not matter.
constexpr std::size_t batch_pages = 2048;
constexpr std::size_t slots = 4;
constexpr std::size_t batches = 64;

template <class Subject>
class Ring {
 public:
  using Batch = std::vector<PieceOf<Subject>>;
  Ring() { batches_.fill(Batch(batch_pages)); }

  [[nodiscard]] Batch& next_to_fill() {
    while (filled_.load(std::memory_order_relaxed) - emptied_.load(std::memory_order_acquire) ==
           slots)
      std::this_thread::yield();
    return batches_[filled_.load(std::memory_order_relaxed) % slots];
  }
  void fill_done() { filled_.fetch_add(1, std::memory_order_release); }
  [[nodiscard]] Batch& next_to_empty() {
    while (filled_.load(std::memory_order_acquire) == emptied_.load(std::memory_order_relaxed))
      std::this_thread::yield();
    return batches_[emptied_.load(std::memory_order_relaxed) % slots];
  }
  void empty_done() { emptied_.fetch_add(1, std::memory_order_release); }

 private:
  std::array<Batch, slots> batches_;
  alignas(64) std::atomic<std::size_t> filled_ = 0;
  alignas(64) std::atomic<std::size_t> emptied_ = 0;
};

/// What one side did, and how long it was busy with it: waiting for the other is not counted.
struct Side {
  double seconds = 0;
  bool refused = false;
};

template <class Subject>
Side take_batch(Subject& subject, std::vector<PieceOf<Subject>>& batch) {
  Side side;
  const auto begin = Clock::now();
  for (auto& piece : batch) side.refused |= !subject.take(page, piece);
  side.seconds = seconds_since(begin);
  return side;
}

template <class Subject>
Side give_batch(Subject& subject, const std::vector<PieceOf<Subject>>& batch) {
  Side side;
  const auto begin = Clock::now();
  for (const auto& piece : batch) side.refused |= !subject.give(piece);
  side.seconds = seconds_since(begin);
  return side;
}

void add(Side& sum, Side more) {
  sum.seconds += more.seconds;
  sum.refused |= more.refused;
}

template <class Subject>
void remote_free(benchmark::State& state, Subject subject) {
  Ring<Subject> ring;
  for (auto _ : state) {
    Side taken;
    Side given;
    {
      const std::jthread freeing([&] {
        Subject own = subject;
        for (std::size_t i = 0; i < batches; ++i) {
          add(given, give_batch<Subject>(own, ring.next_to_empty()));
          ring.empty_done();
        }
      });
      for (std::size_t i = 0; i < batches; ++i) {
        add(taken, take_batch<Subject>(subject, ring.next_to_fill()));
        ring.fill_done();
      }
    }
    state.SetIterationTime(taken.seconds + given.seconds);
    if (taken.refused || given.refused) return state.SkipWithError("refused");
  }
  state.counters["items"] = static_cast<double>(batches * batch_pages);
}

// The same batches, freed by the thread that allocated them.
template <class Subject>
void local_free(benchmark::State& state, Subject subject) {
  Ring<Subject> ring;
  for (auto _ : state) {
    Side side;
    for (std::size_t i = 0; i < batches; ++i) {
      auto& batch = ring.next_to_fill();
      add(side, take_batch<Subject>(subject, batch));
      add(side, give_batch<Subject>(subject, batch));
    }
    state.SetIterationTime(side.seconds);
    if (side.refused) return state.SkipWithError("refused");
  }
  state.counters["items"] = static_cast<double>(batches * batch_pages);
}

void add_our_row(const std::string& work, const std::string& who,
                 void (*body)(benchmark::State&, PageSubject&)) {
  add_row(work, who, [=](benchmark::State& state) {
    PageSubject subject(region);
    body(state, subject);
    if (!subject.whole()) state.SkipWithError("not whole at the end");
  })->UseManualTime();
}

// No allocator at all: what handing the batches over costs alone.
struct NoAllocator {
  using Piece = Extent;
  std::uint64_t next = 0;

  [[nodiscard]] bool take(std::uint64_t size, Piece& piece) {
    piece = {RegionOffset(next), ByteCount(size)};
    next += size;
    return true;
  }
  [[nodiscard]] bool give(const Piece& piece) {
    benchmark::DoNotOptimize(piece);
    return piece.length.value() != 0;
  }
};

const bool registered = [] {
  const auto manual = [](auto* row) { row->UseManualTime(); };
  add_our_row("page-two-threads", "ours", threads_own_pages<2, PageSubject&>);
  add_our_row("page-two-threads", "ours-one-thread", threads_own_pages<1, PageSubject&>);
  add_malloc_rows(
      "page-two-threads",
      [](benchmark::State& state, MallocSubject&& subject) {
        threads_own_pages<2>(state, std::move(subject));
      },
      manual, Threads::several);
  add_our_row("page-remote-free", "ours", remote_free<PageSubject&>);
  add_our_row("page-remote-free", "ours-local-free", local_free<PageSubject&>);
  add_row("page-remote-free", "limit:handing-over", [](benchmark::State& state) {
    remote_free(state, NoAllocator{});
  })->UseManualTime();
  add_malloc_rows(
      "page-remote-free",
      [](benchmark::State& state, MallocSubject&& subject) {
        remote_free(state, std::move(subject));
      },
      manual, Threads::several);
  return true;
}();

}  // namespace
}  // namespace accelmm::bench
