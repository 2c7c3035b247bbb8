// SPDX-License-Identifier: Apache-2.0
//
// The stack of free tables: chains go on and off whole, no table is in two hands or lost, and who
// takes one sees what its last owner did.
#include "model/model_check.hpp"

#include <accelmm/mmu/table_stack.hpp>

#include <cstdint>

namespace accelmm::test {
namespace {

template <Mutant mutant>
struct StackAtomics {
  using Head = typename ModelAtomics<mutant>::template Atomic<std::uint64_t>;
  using Next = typename ModelAtomics<mutant>::template Atomic<std::uint32_t>;
};

/// The count of changes in the head's upper half is not looked at.
struct BlindAtomics : StackAtomics<Mutant::none> {
  class Head {
   public:
    Head(std::uint64_t value) : word_(value) {}
    std::uint64_t load(std::memory_order order) const { return word_.load(order); }
    bool compare_exchange_strong(std::uint64_t& expected, std::uint64_t desired,
                                 std::memory_order order, std::memory_order failed) {
      const std::uint64_t seen = word_.load(std::memory_order_relaxed);
      if (static_cast<std::uint32_t>(seen) == static_cast<std::uint32_t>(expected)) expected = seen;
      return word_.compare_exchange_strong(expected, desired, order, failed);
    }

   private:
    StackAtomics<Mutant::none>::Head word_;
  };
};

/// A stack of so many slots, all on it at first, and what owners of slots do with them.
template <class Atomics, std::uint32_t count>
struct Slots {
  using Stack = mmu::TableStackOf<Atomics>;
  static constexpr std::uint32_t slots = count;

  void make() {
    stack = new Stack;
    links = new typename Atomics::Next[slots];
    for (std::uint32_t i = 0; i < slots; ++i) {
      links[i].store(i + 1, std::memory_order_relaxed);
      used[i]($) = 0;
    }
    stack->push({0, slots - 1}, next_of());
  }
  void destroy() {
    delete[] links;
    delete stack;
  }
  auto next_of() {
    return [this](std::uint32_t slot) -> typename Atomics::Next& { return links[slot]; };
  }

  Stack* stack;
  typename Atomics::Next* links;
  rl::var<int> used[slots];
};

/// Three threads take chains of 2, 1 and 1 slots of four, so that there is always enough, and give
/// them back slot by slot in another order.
template <class Atomics>
struct TakenAndGivenBack : rl::test_suite<TakenAndGivenBack<Atomics>, 3>, Slots<Atomics, 4> {
  using Base = Slots<Atomics, 4>;
  using Base::links, Base::next_of, Base::slots, Base::stack, Base::used;
  using typename Base::Stack;

  void before() { Base::make(); }
  void after() {
    const auto all = stack->pop(slots, next_of());
    RL_ASSERT(all.head != Stack::none);
    unsigned seen = 0;
    std::uint32_t slot = all.head;
    for (std::uint32_t i = 0; i < slots; ++i) {
      RL_ASSERT(slot < slots);
      seen |= 1U << slot;
      slot = links[slot].load(std::memory_order_relaxed);
    }
    RL_ASSERT(seen == (1U << slots) - 1);
    RL_ASSERT(stack->pop(1, next_of()).head == Stack::none);
    Base::destroy();
  }
  void thread(unsigned thread) {
    for (int turn = 0; turn < 2; ++turn) thread == 0 ? take_two() : take_one();
  }
  // What only an owner may do: two at once are a data race.
  void use(std::uint32_t slot) {
    RL_ASSERT(slot < slots);
    used[slot]($) += 1;
  }
  void take_one() {
    const auto one = stack->pop(1, next_of());
    RL_ASSERT(one.head != Stack::none && one.tail == one.head);
    use(one.head);
    stack->push(one, next_of());
  }
  void take_two() {
    const auto two = stack->pop(2, next_of());
    RL_ASSERT(two.head != Stack::none);
    RL_ASSERT(two.tail == links[two.head].load(std::memory_order_relaxed));
    use(two.head);
    use(two.tail);
    stack->push({two.head, two.head}, next_of());
    stack->push({two.tail, two.tail}, next_of());
  }
};

/// Whoever finds too few is told so, and has taken nothing; a chain that went on as a whole comes
/// off as a whole.
template <class Atomics>
struct TooFew : rl::test_suite<TooFew<Atomics>, 3>, Slots<Atomics, 3> {
  using Base = Slots<Atomics, 3>;
  using Base::links, Base::next_of, Base::slots, Base::stack, Base::used;
  using typename Base::Stack;

  void before() {
    Base::make();
    taken = 0;
  }
  void after() {
    RL_ASSERT(taken > 0);
    RL_ASSERT(stack->pop(slots, next_of()).head != Stack::none);
    Base::destroy();
  }
  void thread(unsigned) {
    for (int turn = 0; turn < 2; ++turn) {
      const auto two = stack->pop(2, next_of());
      if (two.head == Stack::none) continue;
      ++taken;
      RL_ASSERT(two.head < slots && two.tail < slots && two.head != two.tail);
      used[two.head]($) += 1;
      used[two.tail]($) += 1;
      links[two.tail].store(two.head, std::memory_order_relaxed);
      stack->push({two.tail, two.head}, next_of());
    }
  }
  int taken;
};

/// Three who gather up to 1, 2 and 3 slots of what there is and give them back one by one: no slot is
/// in two hands, and what a chain says of itself is so.
template <class Atomics>
struct Gathered : rl::test_suite<Gathered<Atomics>, 3>, Slots<Atomics, 4> {
  using Base = Slots<Atomics, 4>;
  using Base::links, Base::next_of, Base::slots, Base::stack, Base::used;
  using typename Base::Stack;

  void before() { Base::make(); }
  void after() {
    const auto all = stack->pop_up_to(slots + 1, next_of());
    RL_ASSERT(all.count == slots);
    RL_ASSERT(stack->pop_up_to(1, next_of()).count == 0);
    Base::destroy();
  }
  void thread(unsigned thread) {
    for (int turn = 0; turn < 2; ++turn) {
      const auto some = stack->pop_up_to(thread + 1, next_of());
      RL_ASSERT(some.count <= thread + 1);
      RL_ASSERT((some.count == 0) == (some.head == Stack::none));
      // Slot by slot, each link read before its slot is another's.
      std::uint32_t slot = some.head;
      for (std::uint32_t i = 0; i < some.count; ++i) {
        RL_ASSERT(slot < slots && (i + 1 < some.count || slot == some.tail));
        used[slot]($) += 1;
        const std::uint32_t next = links[slot].load(std::memory_order_relaxed);
        stack->push({slot, slot}, next_of());
        slot = next;
      }
    }
  }
};

}  // namespace
}  // namespace accelmm::test

int main() {
  using namespace accelmm::test;
  constexpr rl::iteration_t executions = 40'000;
  return verdict({
      holds<TakenAndGivenBack<StackAtomics<Mutant::none>>>("taken and given back", executions),
      holds<TooFew<StackAtomics<Mutant::none>>>("too few for all", executions),
      holds<Gathered<StackAtomics<Mutant::none>>>("as many as there are", executions),
      is_caught<Gathered<BlindAtomics>>("mutant: gathered, changes are not counted", executions),
      is_caught<TakenAndGivenBack<BlindAtomics>>("mutant: changes of the head are not counted",
                                                 executions),
      is_caught<TooFew<BlindAtomics>>("mutant: too few, changes are not counted", executions),
      is_caught<TakenAndGivenBack<StackAtomics<Mutant::release_swap_is_relaxed>>>(
          "mutant: what an owner did is not passed on", executions),
      is_caught<TakenAndGivenBack<StackAtomics<Mutant::acquire_swap_is_relaxed>>>(
          "mutant: what an owner did is not taken over", executions),
  });
}
