// SPDX-License-Identifier: Apache-2.0
//
// A slot's stack of trusted objects against a thread that empties it: each object is in one place at
// a time, and who takes it sees what its last owner did.
#include "mm/slab_magazine.hpp"
#include "model/model_check.hpp"

#include <cstdint>

namespace accelmm::test {
namespace {

enum class Fault {
  none,
  no_interrupt,  // the stack is emptied without waiting for sections that began before
  no_exclusion,  // two threads are in sections of one slot at once
  same_version   // a step leaves the version as it was
};

template <Mutant mutant, Fault fault>
struct ModelSections {
  using Word = typename ModelAtomics<mutant>::template Atomic<std::uint64_t>;
  using Lock = rl::mutex;
  static constexpr std::size_t stack_cells = 4;

  static void enter(Lock& lock) {
    if (fault != Fault::no_exclusion) lock.lock($);
  }
  static void leave(Lock& lock) {
    if (fault != Fault::no_exclusion) lock.unlock($);
  }
  static std::uint64_t damaged(std::uint64_t header) {
    return fault == Fault::same_version ? header & 0xff : header;
  }
  static bool store_if(unsigned, Lock& lock, const Word& check, std::uint64_t expected,
                       Word& target, std::uint64_t, std::uint64_t desired) {
    enter(lock);
    const bool same = check.load(std::memory_order_relaxed) == expected;
    if (same) target.store(damaged(desired), std::memory_order_release);
    leave(lock);
    return same;
  }
  static bool push_many_if(unsigned, Lock& lock, Word& header, std::uint64_t expected, Word* cells,
                           const std::uint64_t* values, std::size_t count, std::uint64_t desired) {
    enter(lock);
    const bool same = header.load(std::memory_order_relaxed) == expected;
    if (same) {
      for (std::size_t i = 0; i < count; ++i) cells[i].store(values[i], std::memory_order_relaxed);
      header.store(damaged(desired), std::memory_order_release);
    }
    leave(lock);
    return same;
  }
  static void load_many(const Word* cells, std::uint64_t* values, std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) values[i] = cells[i].load(std::memory_order_relaxed);
  }
  static void interrupt(Lock& lock) {
    if (fault == Fault::no_interrupt) return;
    lock.lock($);
    lock.unlock($);
  }
};

/// Two threads of one slot take two objects or one and put them back in another order; a third
/// empties the slot.
template <Mutant mutant, Fault fault>
struct EmptyingAStack : rl::test_suite<EmptyingAStack<mutant, fault>, 3> {
  using Sections = ModelSections<mutant, fault>;
  using Stack = mm::SlabStackOf<Sections>;
  static constexpr unsigned objects = 3;

  void before() {
    stack = new Stack;
    for (unsigned i = 0; i < objects; ++i) {
      used[i]($) = 0;
      places[i] = 0;
    }
    const std::uint64_t all[objects] = {0, 1, 2};
    RL_ASSERT(stack->push(0, lock, all, objects) == Stack::Outcome::done);
  }
  void after() {
    std::uint64_t object;
    while (stack->pop(0, lock, &object, 1) == Stack::Outcome::done) ++places[object];
    for (const unsigned place : places) RL_ASSERT(place == 1);
    delete stack;
  }
  void thread(unsigned thread) {
    if (thread == 2)
      empty();
    else
      use_objects(thread == 0 ? 2 : 1);
  }

  // What only an owner may do: two at once are a data race.
  void use(std::uint64_t object) { used[object]($) += 1; }

  void use_objects(std::size_t count) {
    for (unsigned turn = 0; turn < 2; ++turn) {
      std::uint64_t mine[2];
      if (stack->pop(0, lock, mine, count) != Stack::Outcome::done) return;
      for (std::size_t i = 0; i < count; ++i) use(mine[i]);
      if (count == 2) std::swap(mine[0], mine[1]);
      if (stack->push(0, lock, mine, count) == Stack::Outcome::done) continue;
      for (std::size_t i = 0; i < count; ++i) ++places[mine[i]];  // freed by its mark
    }
  }

  void empty() {
    mm::ClosedStackOf<Stack> closed;
    if (!closed.begin(*stack)) return;
    Sections::interrupt(lock);
    (void)closed.finish(*stack, [&](std::uint64_t object) {
      use(object);
      ++places[object];
    });
  }

  Stack* stack;
  rl::mutex lock;
  rl::var<int> used[objects];
  unsigned places[objects];
};

}  // namespace
}  // namespace accelmm::test

int main() {
  using namespace accelmm::test;
  constexpr int executions = 60000;
  return verdict({
      holds<EmptyingAStack<Mutant::none, Fault::none>>("emptying a stack", executions),
      is_caught<EmptyingAStack<Mutant::none, Fault::no_interrupt>>(
          "mutant: sections that began before are not waited for", executions),
      is_caught<EmptyingAStack<Mutant::none, Fault::no_exclusion>>(
          "mutant: two threads in sections of one slot", executions),
      is_caught<EmptyingAStack<Mutant::none, Fault::same_version>>(
          "mutant: a header that is as before is not told from it", executions),
      is_caught<EmptyingAStack<Mutant::release_add_is_relaxed, Fault::none>>(
          "mutant: what an owner did is not passed on", executions),
  });
}
