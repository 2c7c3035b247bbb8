// SPDX-License-Identifier: Apache-2.0
//
// One word of marks: of two frees of one object one is refused; of all who free objects of a full
// word one gets hold of it; and the next owner of an object sees what the last one did.
#include "mm/slab_word.hpp"
#include "model/model_check.hpp"

#include <cstdint>

namespace accelmm::test {
namespace {

template <Mutant mutant>
using ModelWord = typename ModelAtomics<mutant>::template Atomic<std::uint64_t>;

// Every object was taken once.
constexpr std::uint64_t full = 0x0000'0000'ffff'ffff;

template <class Word>
mm::Freed free_object(Word& word, unsigned object) {
  return mm::free_in_word(word, word.load(std::memory_order_acquire), std::uint32_t{1} << object,
                          [] { return true; });
}

/// Two threads free object 0, a third frees object 1.
template <Mutant mutant>
struct TwoFreesOfOne : rl::test_suite<TwoFreesOfOne<mutant>, 3> {
  void before() {
    word = new ModelWord<mutant>(full);
    freed = held = 0;
  }
  void after() {
    RL_ASSERT(freed == 2);
    RL_ASSERT(held == 1);
    RL_ASSERT(mm::free_objects(word->load(std::memory_order_acquire)) == 3);
    delete word;
  }
  void thread(unsigned thread) {
    const mm::Freed done = free_object(*word, thread == 2 ? 1 : 0);
    if (!done.done) return;
    ++freed;
    if (done.before == 0) ++held;
  }

  ModelWord<mutant>* word;
  int freed;
  int held;  // how many got hold of the word
};

/// Two threads write into their objects and free them. The one that gets hold of the word takes
/// what is free and writes into that.
template <Mutant mutant>
struct FreedAndTakenAgain : rl::test_suite<FreedAndTakenAgain<mutant>, 2> {
  void before() {
    word = new ModelWord<mutant>(full);
    content[0]($) = 0;
    content[1]($) = 0;
  }
  void after() { delete word; }
  void thread(unsigned thread) {
    content[thread]($) = 1;
    if (free_object(*word, thread).before != 0) return;
    const mm::Taken taken =
        mm::take_from_held(*word, [](std::uint32_t free) { return mm::lowest_bits(free, 2); });
    RL_ASSERT((taken.objects & (1U << thread)) != 0);
    for (unsigned object = 0; object < 2; ++object)
      if ((taken.objects >> object & 1) != 0) content[object]($) = 2;
  }

  ModelWord<mutant>* word;
  rl::var<int> content[2];
};

}  // namespace
}  // namespace accelmm::test

int main() {
  using namespace accelmm::test;
  constexpr int executions = 60000;
  return verdict({
      holds<TwoFreesOfOne<Mutant::none>>("two frees of one object", executions),
      is_caught<TwoFreesOfOne<Mutant::swap_compares_low_20_bits>>(
          "mutant: a free does not see that the object was freed meanwhile", executions),
      holds<FreedAndTakenAgain<Mutant::none>>("freed and taken again", executions),
      is_caught<FreedAndTakenAgain<Mutant::acquire_swap_is_relaxed>>(
          "mutant: what was done to an object is not passed on", executions),
  });
}
