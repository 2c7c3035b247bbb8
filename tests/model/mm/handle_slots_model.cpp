// SPDX-License-Identifier: Apache-2.0
//
// The stack of free slots: no slot is given to two owners, and what one owner did to it is seen by
// the next.
#include "model/model_check.hpp"

#include <accelmm/handle_slots.hpp>

#include <array>

namespace accelmm::test {
namespace {

/// Each thread takes slots and gives them back, in an order that lets the top of the stack come back
/// while another thread is about to take it.
template <Mutant mutant>
struct FreeSlots : rl::test_suite<FreeSlots<mutant>, 3> {
  using Slots = mm::HandleSlots<int, ModelAtomics<mutant>>;

  void before() {
    slots = new Slots;
    std::array<std::uint32_t, 3> taken;
    for (auto& number : taken) number = slots->take().value();
    for (auto number : taken) slots->give_back(number);
    for (auto& owner : owners) owner($) = nobody;
  }
  void after() {
    // All three are there, and the fourth is the first that is fresh, but for as many as were taken
    // at the same time beyond them.
    std::array<bool, 8> seen{};
    for (int i = 0; i < 4; ++i) {
      const std::uint32_t number = slots->take().value();
      RL_ASSERT(number < seen.size() && !seen[number]);
      seen[number] = true;
    }
    delete slots;
  }
  void thread(unsigned thread) {
    const int me = static_cast<int>(thread);
    const std::uint32_t first = take(me);
    if (thread == 0) {
      give_back(me, first);
      return;
    }
    const std::uint32_t second = take(me);
    give_back(me, first);
    const std::uint32_t third = take(me);
    give_back(me, third);
    give_back(me, second);
  }

  std::uint32_t take(int me) {
    const auto number = slots->take();
    RL_ASSERT(number && *number < owners.size());
    RL_ASSERT(owners[*number]($) == nobody);
    owners[*number]($) = me;
    return *number;
  }
  void give_back(int me, std::uint32_t number) {
    RL_ASSERT(owners[number]($) == me);
    owners[number]($) = nobody;
    slots->give_back(number);
  }

  static constexpr int nobody = -1;
  Slots* slots;
  std::array<rl::var<int>, 8> owners;
};

/// Two threads need the first chunk at once: one makes it, or both and one is thrown away.
template <Mutant mutant>
struct FirstChunk : rl::test_suite<FirstChunk<mutant>, 2> {
  using Slots = mm::HandleSlots<int, ModelAtomics<mutant>>;

  void before() { slots = new Slots; }
  void after() { delete slots; }
  void thread(unsigned thread) {
    taken[thread] = slots->take().value();
    RL_ASSERT(slots->at(taken[thread]).is_closed());
    RL_ASSERT(taken[0] != taken[1]);
  }

  Slots* slots;
  std::array<std::uint32_t, 2> taken{};
};

}  // namespace
}  // namespace accelmm::test

int main() {
  using namespace accelmm::test;
  return verdict({
      holds<FreeSlots<Mutant::none>>("free slots", 100000),
      is_caught<FreeSlots<Mutant::swap_compares_low_20_bits>>(
          "mutant: a top that came back passes for the old one", 100000),
      is_caught<FreeSlots<Mutant::acquire_swap_is_relaxed>>(
          "mutant: a slot's new owner does not see what the last one did", 100000),
      holds<FirstChunk<Mutant::none>>("first chunk", 20000),
      is_caught<FirstChunk<Mutant::release_swap_is_relaxed>>(
          "mutant: a chunk is published before it is there", 20000),
  });
}
