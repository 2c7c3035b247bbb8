// SPDX-License-Identifier: Apache-2.0
//
// A slot's chunks against a thread that empties the slot: each chunk is in one place at a time, and
// who holds it sees what its last holder did.
#include "mm/chunk_stacks.hpp"
#include "model/model_check.hpp"

#include <cstdint>

namespace accelmm::test {
namespace {

enum class Fault {
  none,
  no_interrupt,    // the slot is emptied without waiting for sections that began before
  changes_unseen,  // a header that changed and has the count of before is taken for the same
};

/// Sections as they are where nothing restarts them: behind a lock, with each step visible to
/// threads outside of the slot.
template <Mutant mutant, Fault fault>
struct ModelStackSections {
  using Word = typename ModelAtomics<mutant>::template Atomic<std::uint64_t>;
  using Lock = rl::mutex;
  using Place = int;
  static constexpr unsigned chunks = 3;

  static bool store_if(Place, Lock& lock, Word& target, std::uint64_t expected,
                       std::uint64_t desired) {
    lock.lock($);
    const std::uint64_t blind = fault == Fault::changes_unseen ? ~std::uint64_t{0xff} : 0;
    const bool same = (target.load(std::memory_order_relaxed) | blind) == (expected | blind);
    if (same) target.store(desired, std::memory_order_release);
    lock.unlock($);
    return same;
  }
  static bool push_if(Place, Lock& lock, Word& header, std::uint64_t expected, Word& cell,
                      std::uint64_t value, std::uint64_t desired) {
    lock.lock($);
    const bool same = header.load(std::memory_order_relaxed) == expected;
    if (same) {
      cell.store(value, std::memory_order_relaxed);
      header.store(desired, std::memory_order_release);
    }
    lock.unlock($);
    return same;
  }
};

/// Two threads of one slot take chunks and give them back; a third empties the slot.
template <Mutant mutant, Fault fault>
struct EmptyingAStack : rl::test_suite<EmptyingAStack<mutant, fault>, 3> {
  using Stack = mm::ChunkStackOf<ModelStackSections<mutant, fault>>;
  static constexpr unsigned chunks = 2;

  void before() {
    stack = new Stack;
    for (unsigned i = 0; i < chunks; ++i) {
      used[i]($) = 0;
      places[i] = 0;
      RL_ASSERT(stack->push(0, i) == Stack::Push::done);
    }
  }
  void after() {
    std::uint64_t chunk = 0;
    while (stack->pop(0, chunk) == Stack::Pop::done) ++places[chunk];
    for (const unsigned place : places) RL_ASSERT(place == 1);
    delete stack;
  }
  void thread(unsigned thread) {
    if (thread == 2)
      stack->drain([](rl::mutex& lock) { interrupt(lock); },
                   [this](std::uint64_t chunk) {
                     use(chunk);
                     ++places[chunk];
                   });
    else
      use_a_chunk();
  }

  static void interrupt(rl::mutex& lock) {
    if (fault == Fault::no_interrupt) return;
    lock.lock($);
    lock.unlock($);
  }

  // What only a holder may do: two at once are a data race.
  void use(std::uint64_t chunk) { used[chunk]($) += 1; }

  void use_a_chunk() {
    std::uint64_t chunk = 0;
    if (stack->pop(0, chunk) != Stack::Pop::done) return;
    use(chunk);
    std::uint64_t below = 0;
    if (stack->pop(0, below) == Stack::Pop::done) {
      use(below);
      give(chunk);
      give(below);
    } else {
      give(chunk);
    }
  }
  void give(std::uint64_t chunk) {
    if (stack->push(0, chunk) != Stack::Push::done) ++places[chunk];  // to the buddies
  }

  Stack* stack;
  rl::var<int> used[chunks];
  unsigned places[chunks];
};

}  // namespace
}  // namespace accelmm::test

int main() {
  using namespace accelmm::test;
  constexpr int executions = 60000;
  return verdict({
      holds<EmptyingAStack<Mutant::none, Fault::none>>("emptying a stack of chunks", executions),
      is_caught<EmptyingAStack<Mutant::none, Fault::no_interrupt>>(
          "mutant: sections that began before are not waited for", executions),
      is_caught<EmptyingAStack<Mutant::none, Fault::changes_unseen>>(
          "mutant: a header that changed and changed back is taken for the same", executions),
      is_caught<EmptyingAStack<Mutant::exchange_is_load_and_store, Fault::none>>(
          "mutant: the mark is put in two steps", executions),
  });
}
