// SPDX-License-Identifier: Apache-2.0
//
// Pages freed without a lock: of two frees of one page one is refused, while the owner of the chunk
// takes others by plain stores; who takes a page sees what its last owner did; and a chunk whose page
// was freed is counted again after that.
#include "mm/page_word.hpp"
#include "model/model_check.hpp"

#include <cstdint>

namespace accelmm::test {
namespace {

template <Mutant mutant>
using ModelWord = typename ModelAtomics<mutant>::template Atomic<std::uint64_t>;
template <Mutant mutant>
using ModelFlag = typename ModelAtomics<mutant>::template Atomic<bool>;

/// Pages 0 and 1 are allocated, page 2 is free. Two threads free page 0, one page 1; the owner of the
/// chunk takes page 2.
template <Mutant mutant>
struct TwoFreesOfOne : rl::test_suite<TwoFreesOfOne<mutant>, 4> {
  void before() {
    taken = new ModelWord<mutant>(3);
    given = new ModelWord<mutant>(0);
    freed = 0;
  }
  void after() {
    RL_ASSERT(freed == 2);
    const std::uint64_t state =
        taken->load(std::memory_order_relaxed) ^ given->load(std::memory_order_relaxed);
    RL_ASSERT((state & 7) == 4);
    delete taken;
    delete given;
  }
  void thread(unsigned thread) {
    if (thread == 3) {
      const std::uint64_t before = taken->load(std::memory_order_relaxed);
      RL_ASSERT(((before ^ given->load(std::memory_order_acquire)) & 4) == 0);
      taken->store(before ^ 4, std::memory_order_release);
    } else if (mm::give_page(*taken, *given, thread == 2 ? 2 : 1)) {
      ++freed;
    }
  }

  ModelWord<mutant>* taken;
  ModelWord<mutant>* given;
  int freed;
};

/// A thread writes into its page and frees it; the owner of the chunk takes it and writes into it.
template <Mutant mutant>
struct FreedAndTakenAgain : rl::test_suite<FreedAndTakenAgain<mutant>, 2> {
  void before() {
    taken = new ModelWord<mutant>(1);
    given = new ModelWord<mutant>(0);
    content($) = 0;
  }
  void after() {
    delete taken;
    delete given;
  }
  void thread(unsigned thread) {
    if (thread == 0) {
      content($) = 1;
      RL_ASSERT(mm::give_page(*taken, *given, 1));
    } else if (((1 ^ given->load(std::memory_order_acquire)) & 1) == 0) {
      taken->store(0, std::memory_order_release);
      content($) = 2;
    }
  }

  ModelWord<mutant>* taken;
  ModelWord<mutant>* given;
  rl::var<int> content;
};

/// Two threads free a page each of the same chunk; a third counts what is free, as often as it is
/// told that something is. Whatever it has not counted, it is still told of.
template <Mutant mutant>
struct CountedAfterFreed : rl::test_suite<CountedAfterFreed<mutant>, 3> {
  using Touched = mm::TouchedBits<ModelWord<mutant>, ModelFlag<mutant>>;

  void before() {
    taken = new ModelWord<mutant>(3);
    given = new ModelWord<mutant>(0);
    touched = new ModelWord<mutant>(0);
    summary = new ModelWord<mutant>(0);
    any = new ModelFlag<mutant>(false);
    counted = 0;
  }
  void after() {
    if (any->load(std::memory_order_seq_cst)) count();
    RL_ASSERT(counted == 3);
    delete taken;
    delete given;
    delete touched;
    delete summary;
    delete any;
  }
  void thread(unsigned thread) {
    if (thread == 2) {
      if (any->load(std::memory_order_seq_cst)) count();
      return;
    }
    RL_ASSERT(mm::give_page(*taken, *given, std::uint64_t{1} << thread));
    Touched::note(*touched, 1, *summary, 1, *any);
  }
  void count() {
    Touched::begin_collecting(*any);
    if (Touched::collect(*summary) == 0) return;
    if (Touched::collect(*touched) == 0) return;
    counted = mm::free_pages(*taken, *given) & 3;
  }

  ModelWord<mutant>* taken;
  ModelWord<mutant>* given;
  ModelWord<mutant>* touched;
  ModelWord<mutant>* summary;
  ModelFlag<mutant>* any;
  std::uint64_t counted;
};

}  // namespace
}  // namespace accelmm::test

int main() {
  using namespace accelmm::test;
  constexpr rl::iteration_t executions = 100'000;
  return verdict({
      holds<TwoFreesOfOne<Mutant::none>>("two frees of one page", executions),
      holds<FreedAndTakenAgain<Mutant::none>>("freed and taken again", executions),
      holds<CountedAfterFreed<Mutant::none>>("counted after freed", executions),
      is_caught<TwoFreesOfOne<Mutant::swap_is_load_and_store>>(
          "mutant: two frees, the swap is no swap", executions),
      is_caught<FreedAndTakenAgain<Mutant::acquire_swap_is_relaxed>>(
          "mutant: freed and taken, nothing is passed on", executions),
      is_caught<CountedAfterFreed<Mutant::exchange_is_load_and_store>>(
          "mutant: counted, a note between load and store is lost", executions),
  });
}
