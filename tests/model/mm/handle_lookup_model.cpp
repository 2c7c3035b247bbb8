// SPDX-License-Identifier: Apache-2.0
//
// A lookup against removal: a pinned value is not destroyed, a withdrawn one is not found again, and
// each is destroyed once, by whoever lets go last.
#include "model/mm/tracked_value.hpp"
#include "model/model_check.hpp"

#include <accelmm/handle_table.hpp>

namespace accelmm::test {
namespace {

constexpr std::uint8_t buffer = 1;

/// Two threads pin, one withdraws, one tries to remove.
template <Mutant mutant>
struct LookupAgainstRemoval : rl::test_suite<LookupAgainstRemoval<mutant>, 4> {
  using Table = HandleTable<TrackedValue, ModelAtomics<mutant>>;

  void before() {
    TrackedValue::alive = 0;
    taken = 0;
    table = new Table(Table::create(4).value());
    handle = table->insert(buffer, TrackedValue(1)).value();
  }
  void after() {
    RL_ASSERT(taken <= 1);  // none where a lookup that came too late was the last
    RL_ASSERT(TrackedValue::alive == 0);
    RL_ASSERT(table->size() == 0);
    delete table;
  }
  void thread(unsigned thread) {
    if (thread < 2)
      look();
    else if (thread == 2)
      withdraw();
    else
      remove();
  }

  void look() {
    auto pin = table->pin(handle, buffer);
    if (!pin) return;
    RL_ASSERT((*pin)->number() == 1);
    if (auto value = pin->release()) ++taken;
  }
  void withdraw() {
    auto value = table->withdraw(handle, buffer);
    if (value && *value) ++taken;
    if (!value) return;
    RL_ASSERT(!table->pin(handle, buffer));
    RL_ASSERT(!table->find(handle, buffer));
  }
  void remove() {
    if (table->remove(handle, buffer)) ++taken;
  }

  Table* table;
  Handle handle;
  int taken;
};

}  // namespace
}  // namespace accelmm::test

int main() {
  using namespace accelmm::test;
  return verdict({
      holds<LookupAgainstRemoval<Mutant::none>>("lookup against removal", 100000),
      is_caught<LookupAgainstRemoval<Mutant::release_drop_is_relaxed>>(
          "mutant: what a pin did is not passed on when it ends", 100000),
      is_caught<LookupAgainstRemoval<Mutant::acquire_swap_is_relaxed>>(
          "mutant: the last to let go does not see what others did", 100000),
      is_caught<LookupAgainstRemoval<Mutant::add_is_load_and_store>>(
          "mutant: a lookup counts itself in two steps", 100000),
      is_caught<LookupAgainstRemoval<Mutant::add_of_one_looks_first>>(
          "mutant: a lookup that has counted itself revives what died before", 100000),
  });
}
