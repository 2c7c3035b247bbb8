// SPDX-License-Identifier: Apache-2.0
//
// A slot that is removed from and used again, under the eyes of lookups by the old handle and by the
// new: the old one never finds the new value, and the new one finds it whole.
#include "model/mm/tracked_value.hpp"
#include "model/model_check.hpp"

#include <accelmm/handle_table.hpp>

namespace accelmm::test {
namespace {

constexpr std::uint8_t buffer = 1;

/// One thread replaces a value; two look up by the old handle and by the one that the slot's next
/// value will have, as if told of it by nothing that orders memory.
template <Mutant mutant>
struct SlotUsedAgain : rl::test_suite<SlotUsedAgain<mutant>, 3> {
  using Table = HandleTable<TrackedValue, ModelAtomics<mutant>>;

  void before() {
    TrackedValue::alive = 0;
    table = new Table(Table::create(4).value());
    first = table->insert(buffer, TrackedValue(1)).value();
    second = Handle::from_raw(first.raw() ^ (std::uint64_t{1} << 32));  // generation 0 becomes 1
  }
  void after() {
    RL_ASSERT(table->size() == 1);
    RL_ASSERT(TrackedValue::alive == 1);
    RL_ASSERT(!table->find(first, buffer));
    RL_ASSERT(table->remove(last, buffer)->number() == 2);
    RL_ASSERT(TrackedValue::alive == 0);
    delete table;
  }
  void thread(unsigned thread) {
    if (thread == 0)
      replace();
    else
      look();
  }

  void replace() {
    if (!table->remove(first, buffer)) (void)table->withdraw(first, buffer);
    const auto handle = table->insert(buffer, TrackedValue(2));
    RL_ASSERT(handle && *handle != first);
    last = *handle;
  }
  void look() {
    for (int round = 0; round < 2; ++round) {
      if (auto pin = table->pin(first, buffer)) RL_ASSERT((*pin)->number() == 1);
      if (auto pin = table->pin(second, buffer)) RL_ASSERT((*pin)->number() == 2);
    }
  }

  Table* table;
  Handle first;
  Handle second;
  Handle last;  // what the second value was really given: another slot where the first was pinned
};

}  // namespace
}  // namespace accelmm::test

int main() {
  using namespace accelmm::test;
  return verdict({
      holds<SlotUsedAgain<Mutant::none>>("slot used again", 100000),
      is_caught<SlotUsedAgain<Mutant::release_add_is_relaxed>>(
          "mutant: a value is not passed on to who finds it", 100000),
      is_caught<SlotUsedAgain<Mutant::acquire_swap_is_relaxed>>(
          "mutant: who uses a slot again does not see its last value's end", 100000),
      is_caught<SlotUsedAgain<Mutant::add_is_load_and_store>>(
          "mutant: a lookup that came too late undoes the next insert", 100000),
  });
}
