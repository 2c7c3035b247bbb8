// SPDX-License-Identifier: Apache-2.0
//
// Several threads in one allocator: the shapes of NBBS's benchmarks over pages, and over small objects
// those of mimalloc-bench and UMF. Written anew from what each is said to do. Two threads, since the
// machines that measure have two processors; UMF's have four too.
#include "rows.hpp"
#include "slab_subject.hpp"
#include "subjects.hpp"
#include "verify.hpp"
#include "workloads.hpp"

#include <atomic>
#include <barrier>
#include <bit>
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

/// What every thread does, round after round.
struct Shape {
  enum class Sizes : std::uint8_t { uniform, doublings, halving, page_orders };
  enum class Order : std::uint8_t {
    replace,  ///< a random slot is freed and filled again
    toggle,   ///< a slot, mostly of a favoured fifth, is freed, or filled if it is empty
    burst,    ///< all slots are filled, then all freed
    hand_on,  ///< all slots are filled; who comes next frees them
  };
  /// Who has a set of slots in the next round: he who had it, or the next thread, which so frees
  /// what others allocated.
  enum class Owner : std::uint8_t { same, next };

  Sizes sizes;
  /// Bytes; first doubling of 16 bytes, each as likely or (halving) half as likely as the one before;
  /// or first order of pages.
  std::uint32_t low;
  std::uint32_t high;
  std::uint32_t slots;
  std::uint32_t steps;  ///< a round, of replace and toggle
  std::uint32_t rounds;
  Order order;
  Owner owner;
};

std::uint32_t draw(const Shape& shape, Random& random) {
  const std::uint32_t pick = shape.low + random.below(shape.high - shape.low + 1);
  switch (shape.sizes) {
    case Shape::Sizes::uniform:
      return pick;
    case Shape::Sizes::doublings: {
      const std::uint32_t least = 16U << pick;
      return least + random.below(least);
    }
    case Shape::Sizes::halving: {
      const auto doubling = static_cast<unsigned>(
          std::countr_zero(random() | std::uint64_t{1} << (shape.high - shape.low)));
      const std::uint32_t least = 16U << (shape.low + doubling);
      return least + random.below(least);
    }
    case Shape::Sizes::page_orders:
      return 4096U << pick;
  }
  return 0;
}

// One thread's slots, handed on between rounds where the shape says so.
template <class Piece>
struct Slots {
  std::vector<Piece> pieces;
  std::vector<std::uint32_t> sizes;  // 0: empty
};

template <class Subject>
class Thread {
 public:
  using Set = Slots<PieceOf<Subject>>;
  Thread(Subject subject, const Shape& shape, unsigned number)
      : subject_(std::forward<Subject>(subject)), shape_(shape) {
    Random random(number + 1);
    const bool favours = shape.order == Shape::Order::toggle;
    plan_.resize(favours || shape.order == Shape::Order::replace ? shape.steps : shape.slots);
    for (Step& step : plan_) {
      const bool favoured = favours && random.below(5) != 0;
      step = {random.below(favoured ? shape.slots / 5 : shape.slots), draw(shape, random)};
    }
  }

  void round(Set& set) {
    switch (shape_.order) {
      case Shape::Order::replace:
        for (const Step& step : plan_) replace(set, step);
        done_ += plan_.size();
        break;
      case Shape::Order::toggle:
        for (const Step& step : plan_) done_ += toggle(set, step) ? 1U : 0U;
        break;
      case Shape::Order::burst:
        fill(set);
        empty(set);
        done_ += shape_.slots;
        break;
      case Shape::Order::hand_on:
        empty(set);
        fill(set);
        done_ += shape_.slots;
        break;
    }
  }
  void empty(Set& set) {
    for (std::size_t i = 0; i < set.sizes.size(); ++i) {
      if (set.sizes[i] == 0) continue;
      refused_ |= !subject_.give(set.pieces[i]);
      set.sizes[i] = 0;
    }
  }
  [[nodiscard]] bool refused() const { return refused_; }
  /// Allocations, each with its free.
  [[nodiscard]] std::uint64_t done() const { return done_; }

 private:
  struct Step {
    std::uint32_t slot;
    std::uint32_t size;
  };
  void replace(Set& set, const Step& step) {
    if (set.sizes[step.slot] != 0) refused_ |= !subject_.give(set.pieces[step.slot]);
    refused_ |= !subject_.take(step.size, set.pieces[step.slot]);
    set.sizes[step.slot] = step.size;
  }
  /// Whether it filled.
  bool toggle(Set& set, const Step& step) {
    if (set.sizes[step.slot] != 0) {
      refused_ |= !subject_.give(set.pieces[step.slot]);
      set.sizes[step.slot] = 0;
      return false;
    }
    refused_ |= !subject_.take(step.size, set.pieces[step.slot]);
    set.sizes[step.slot] = step.size;
    return true;
  }
  void fill(Set& set) {
    for (std::size_t i = 0; i < set.sizes.size(); ++i) {
      set.sizes[i] = plan_[i].size;
      refused_ |= !subject_.take(plan_[i].size, set.pieces[i]);
    }
  }

  Subject subject_;
  const Shape& shape_;
  std::vector<Step> plan_;
  std::uint64_t done_ = 0;
  bool refused_ = false;
};

/// `Subject` is a reference to what the threads share, or a set of functions that each may copy. The
/// time is from the first round to the last, over what all threads did.
template <class Subject>
void run_shape(benchmark::State& state, Subject subject, const Shape& shape, unsigned count) {
  for (auto _ : state) {
    using Set = Slots<PieceOf<Subject>>;
    std::vector<Set> sets(count);
    for (Set& set : sets) {
      set.pieces.resize(shape.slots);
      set.sizes.assign(shape.slots, 0);
    }
    std::vector<Thread<Subject>> workers;
    for (unsigned i = 0; i < count; ++i) workers.emplace_back(subject, shape, i);
    std::barrier meeting(static_cast<std::ptrdiff_t>(count));
    std::atomic<std::int64_t> ticks = 0;
    {
      std::vector<std::jthread> threads;
      for (unsigned i = 0; i < count; ++i)
        threads.emplace_back([&, i] {
          meeting.arrive_and_wait();
          const auto start = Clock::now();
          for (unsigned round = 0; round < shape.rounds; ++round) {
            const unsigned mine = shape.owner == Shape::Owner::same ? i : (i + round) % count;
            workers[i].round(sets[mine]);
            if (shape.owner == Shape::Owner::next) meeting.arrive_and_wait();
          }
          meeting.arrive_and_wait();
          if (i == 0) ticks = (Clock::now() - start).count();
        });
    }
    std::uint64_t done = 0;
    std::vector<Interval> live;
    for (const Set& set : sets)
      for (std::size_t slot = 0; slot < set.sizes.size(); ++slot)
        if (set.sizes[slot] != 0) {
          const std::uint64_t begin = subject.address(set.pieces[slot]);
          live.push_back({begin, begin + set.sizes[slot]});
        }
    for (unsigned i = 0; i < count; ++i) {
      workers[i].empty(sets[i]);
      if (workers[i].refused()) return state.SkipWithError("refused");
      done += workers[i].done();
    }
    if (!disjoint(std::move(live))) return state.SkipWithError("gave the same place out twice");
    const std::chrono::duration<double> seconds = Clock::duration(ticks.load());
    state.SetIterationTime(seconds.count() / static_cast<double>(done));
  }
}

template <class Subject>
void add_rows(const std::string& work, const Shape& shape, unsigned threads) {
  constexpr std::uint64_t region = std::uint64_t{64} << 30;
  const auto configure = [](auto* row) { row->UseManualTime()->Iterations(1); };
  configure(add_row(work, "ours", [=](benchmark::State& state) {
    Subject subject(region);
    run_shape<Subject&>(state, subject, shape, threads);
    if (!subject.whole()) state.SkipWithError("not whole at the end");
  }));
  add_malloc_rows(
      work,
      [=](benchmark::State& state, MallocSubject&& subject) {
        run_shape<MallocSubject>(state, std::move(subject), shape, threads);
      },
      configure, Threads::several);
}

const bool registered = [] {
  using Sizes = Shape::Sizes;
  using Order = Shape::Order;
  using Owner = Shape::Owner;
  // NBBS, over pages: bursts of one order; the same in many small ones; a random mix of orders at a
  // constant number of live blocks; one block over and over.
  add_rows<PageSubject>("nb-scal-2t",
                        {Sizes::page_orders, 0, 0, 5000, 0, 10, Order::burst, Owner::same}, 2);
  add_rows<PageSubject>("nb-threadtest-2t",
                        {Sizes::page_orders, 1, 1, 100, 0, 300, Order::burst, Owner::same}, 2);
  add_rows<PageSubject>("nb-constocc-2t",
                        {Sizes::page_orders, 0, 6, 1000, 20'000, 1, Order::replace, Owner::same},
                        2);
  add_rows<PageSubject>("nb-cached-2t",
                        {Sizes::page_orders, 0, 0, 1, 50'000, 1, Order::replace, Owner::same}, 2);
  add_rows<PageSubject>("ll-bulk-o0-2t",
                        {Sizes::page_orders, 0, 0, 50'000, 0, 1, Order::burst, Owner::same}, 2);
  // mimalloc-bench: slots that are handed to the next thread, as when a server's threads end; all
  // allocated by one thread and freed by another; a mix of both with sizes over seven doublings; and
  // sizes up to 16 KiB.
  add_rows<SlabSubject>("larson",
                        {Sizes::uniform, 8, 1000, 1000, 5000, 10, Order::replace, Owner::next}, 2);
  add_rows<SlabSubject>("xmalloc-test",
                        {Sizes::uniform, 16, 512, 2000, 0, 20, Order::hand_on, Owner::next}, 2);
  add_rows<SlabSubject>("mstress",
                        {Sizes::doublings, 0, 6, 2000, 10'000, 5, Order::replace, Owner::next}, 2);
  add_rows<SlabSubject>("rptest",
                        {Sizes::doublings, 0, 8, 500, 5000, 10, Order::replace, Owner::next}, 2);
  // OLogN's: who frees and who allocates is as it comes, small sizes and some slots are favoured.
  add_rows<SlabSubject>("alloc-test-2t",
                        {Sizes::halving, 0, 8, 5000, 50'000, 2, Order::toggle, Owner::same}, 2);
  // UMF with four threads; with one it is in heap_shapes_bench.cpp.
  add_rows<SlabSubject>("umf-multi-8-4096-4t",
                        {Sizes::uniform, 8, 4096, 10'000, 20'000, 1, Order::replace, Owner::same},
                        4);
  add_rows<SlabSubject>("umf-multi-8-128-4t",
                        {Sizes::uniform, 8, 128, 10'000, 20'000, 1, Order::replace, Owner::same},
                        4);
  return true;
}();

}  // namespace
}  // namespace accelmm::bench
