// SPDX-License-Identifier: Apache-2.0
//
// Several threads map and unmap ranges of their own in one tree and share its tables, while a device
// walks them: it finds each address mapped right or not at all, and no table is lost, used twice or
// dead while it has words.
#include "model/mmu/model_tables.hpp"

#include <accelmm/extent.hpp>
#include <accelmm/mmu/invalidation.hpp>

#include <array>
#include <cstdint>
#include <new>
#include <optional>
#include <utility>

namespace accelmm::test {
namespace {

constexpr std::uint64_t page = 4096;
/// Where a page is mapped to, far from the rubbish of stale tables.
constexpr std::uint64_t bus_begin = 0x4000'0000;

/// A tree, and what its threads do in it. Each page belongs to one thread or to none.
template <unsigned last_bits, TableFault fault>
struct World {
  using F = TinyFormat<last_bits>;
  using Memory = ModelTables<fault>;
  using Tree = mmu::PageTable<F, Memory>;
  static constexpr unsigned threads = 3;
  static constexpr std::uint64_t pages = mmu::Geometry<F>::va_end / page;

  World() : tree(std::move(*Tree::create(memory))) {
    for (bool& one : is_mapped) one = false;
  }

  void map(unsigned thread, std::uint64_t first, std::uint64_t count) {
    const std::array<Run, 1> runs{Run{BusAddr(bus_begin + first * page), ByteCount(count * page)}};
    operations.begin(thread);
    const auto mapped = tree.map(DeviceAddr(first * page), runs, {});
    RL_ASSERT(mapped.has_value());
    look_at(first);
    look_at(first + count - 1);
    operations.end(thread);
    for (std::uint64_t i = first; i < first + count; ++i) is_mapped[i] = true;
  }
  void map_prepared(unsigned thread, std::uint64_t first, std::uint64_t count) {
    const std::array<Run, 1> runs{Run{BusAddr(bus_begin + first * page), ByteCount(count * page)}};
    operations.begin(thread);
    auto prepared = tree.prepare(range_of(first, count), {});
    RL_ASSERT(prepared.has_value());
    tree.commit(std::move(*prepared), runs);
    look_at(first);
    look_at(first + count - 1);
    operations.end(thread);
    for (std::uint64_t i = first; i < first + count; ++i) is_mapped[i] = true;
  }
  void unmap(unsigned thread, std::uint64_t first, std::uint64_t count) {
    operations.begin(thread);
    auto gone = tree.unmap(range_of(first, count));
    RL_ASSERT(gone.has_value());
    RL_ASSERT(!tree.translate(DeviceAddr(first * page)).has_value());
    operations.end(thread);
    for (std::uint64_t i = first; i < first + count; ++i) is_mapped[i] = false;
    if (fault != TableFault::released_at_once) operations.wait_for_others(thread);
    std::move(*gone).release(mmu::InvalidationDone({0, gone->range(), {}}));
  }

  /// What a device does: it knows nothing of counts.
  void walk(unsigned thread, std::uint64_t number) {
    operations.begin(thread);
    std::uint64_t table = tree.root().value();
    for (unsigned hop = 0; hop < 3; ++hop) {
      const std::uint64_t word = memory.template load<std::uint64_t>(
          memory.at(BusAddr(table)), mmu::Geometry<F>::index(hop, number * page));
      const mmu::EntryKind kind = F::classify(hop, word);
      RL_ASSERT(kind != mmu::EntryKind::malformed);
      if (kind == mmu::EntryKind::empty) break;
      if (kind == mmu::EntryKind::leaf) {
        const std::uint64_t first = number * page & ~(mmu::Geometry<F>::span(hop) - 1);
        RL_ASSERT(F::leaf_address(hop, word).value() == bus_begin + first);
        RL_ASSERT(!never_mapped[number]);
        break;
      }
      table = F::link_address(hop, word).value();
      // A slow device: long enough for a mapping to move, where nobody waits for it.
      for (unsigned i = 0; i < patience; ++i) rl::yield(1, $);
    }
    operations.end(thread);
  }

  /// Nothing runs any more: the tree says what its threads say, and comes apart into all its tables.
  void finish() {
    tree.validate();
    for (std::uint64_t i = 0; i < pages; ++i) {
      const auto found = tree.translate(DeviceAddr(i * page));
      RL_ASSERT(found.has_value() == is_mapped[i]);
      if (found) RL_ASSERT(found->address.value() == bus_begin + i * page);
    }
    std::move(tree.detach_all()).release(mmu::InvalidationDone::never_shown());
    memory.expect_all_free();
  }

  static Range<DeviceAddr> range_of(std::uint64_t first, std::uint64_t count) {
    return {DeviceAddr(first * page), DeviceAddr((first + count) * page)};
  }
  void look_at(std::uint64_t number) {
    const auto found = tree.translate(DeviceAddr(number * page));
    RL_ASSERT(found.has_value() && found->address.value() == bus_begin + number * page);
  }

  Memory memory;
  Tree tree;
  Operations<threads> operations;
  unsigned patience = 0;
  bool is_mapped[pages];
  bool never_mapped[pages] = {};
};

/// Runs a plan: what each of three threads does in a world.
template <template <TableFault> class Plan, TableFault fault>
struct SharedTree : rl::test_suite<SharedTree<Plan, fault>, 3> {
  using ThisWorld = typename Plan<fault>::ThisWorld;

  void before() {
    world = new ThisWorld;
    Plan<fault>::begin(*world);
  }
  void after() {
    world->finish();
    delete world;
  }
  void thread(unsigned thread) { Plan<fault>::run(*world, thread); }

  ThisWorld* world;
};

/// Two pages of one table of the last hop, mapped and unmapped by two threads.
template <TableFault fault>
struct PagesOfOneTable {
  using ThisWorld = World<1, fault>;
  static void begin(ThisWorld& world) { world.never_mapped[2] = world.never_mapped[3] = true; }
  static void run(ThisWorld& world, unsigned thread) {
    if (thread == 2) {
      for (std::uint64_t i = 0; i < 3; ++i) world.walk(2, i);
      return;
    }
    world.map(thread, thread, 1);
    world.unmap(thread, thread, 1);
    world.map(thread, thread, 1);
  }
};

/// The same with tables in which few words are cleared, and not left stale.
template <TableFault fault>
struct PagesOfALargerTable {
  using ThisWorld = World<3, fault>;
  static void begin(ThisWorld& world) {
    world.map(0, 0, 1);
    for (std::uint64_t i = 3; i < 8; ++i) world.never_mapped[i] = true;
  }
  static void run(ThisWorld& world, unsigned thread) {
    if (thread == 0) {
      world.unmap(0, 0, 1);
      world.map(0, 8, 1);
      world.unmap(0, 8, 1);
    } else if (thread == 1) {
      world.map(1, 1, 2);
      world.unmap(1, 1, 2);
      world.map(1, 1, 1);
    } else {
      for (std::uint64_t i = 0; i < 4; ++i) world.walk(2, i);
    }
  }
};

/// Ranges that end inside of tables of every hop, with a large leaf in the middle of one.
template <TableFault fault>
struct RangesThatMeet {
  using ThisWorld = World<1, fault>;
  static void begin(ThisWorld&) {}
  static void run(ThisWorld& world, unsigned thread) {
    if (thread == 0) {
      world.map(0, 0, 3);
      world.unmap(0, 0, 3);
    } else if (thread == 1) {
      world.map(1, 3, 2);
      world.unmap(1, 3, 2);
      world.map(1, 4, 1);
    } else {
      world.map(2, 5, 3);
      world.walk(2, 3);
      world.unmap(2, 5, 3);
    }
  }
};

/// Two prepare what needs the same tables, which a third maps and unmaps meanwhile: whoever links
/// second writes into the tables of the first.
template <TableFault fault>
struct PreparedForTheSameTables {
  using ThisWorld = World<1, fault>;
  static void begin(ThisWorld& world) { world.map(2, 1, 1); }
  static void run(ThisWorld& world, unsigned thread) {
    if (thread == 0) {
      world.map_prepared(0, 0, 1);
      world.unmap(0, 0, 1);
    } else if (thread == 1) {
      world.map_prepared(1, 2, 3);
      world.walk(1, 0);
    } else {
      world.unmap(2, 1, 1);
      world.map_prepared(2, 1, 1);
    }
  }
};

/// A mapping that moves, so that its tables come back at other addresses, and two devices.
template <TableFault fault>
struct AMappingThatMoves {
  using ThisWorld = World<1, fault>;
  static void begin(ThisWorld& world) {
    world.patience = 50;
    world.map(0, 0, 1);
    for (const unsigned number : {1, 3}) world.never_mapped[number] = true;
  }
  static void run(ThisWorld& world, unsigned thread) {
    if (thread == 0) {
      world.unmap(0, 0, 1);
      world.map(0, 2, 1);
      world.unmap(0, 2, 1);
    } else {
      world.walk(thread, 0);
      world.walk(thread, thread);
    }
  }
};

template <template <TableFault> class Plan>
bool one_holds(const char* name, rl::iteration_t executions) {
  return holds<SharedTree<Plan, TableFault::none>>(name, executions);
}
template <template <TableFault> class Plan, TableFault fault>
bool one_is_caught(const char* name, rl::iteration_t executions) {
  return is_caught<SharedTree<Plan, fault>>(name, executions);
}

}  // namespace
}  // namespace accelmm::test

int main() {
  using namespace accelmm::test;
  constexpr rl::iteration_t executions = 20'000;
  return verdict({
      one_holds<PagesOfOneTable>("pages of one table", executions),
      one_holds<PagesOfALargerTable>("pages of a larger table", executions),
      one_holds<RangesThatMeet>("ranges that meet", executions),
      one_holds<PreparedForTheSameTables>("prepared for the same tables", executions),
      one_holds<AMappingThatMoves>("a mapping that moves", executions),
      one_is_caught<PagesOfOneTable, TableFault::link_is_relaxed>(
          "mutant: a link is seen before what it leads to", executions),
      one_is_caught<PagesOfOneTable, TableFault::link_looks_first>("mutant: two link at one place",
                                                                   executions),
      one_is_caught<PagesOfOneTable, TableFault::join_ignores_death>(
          "mutant: a dead table is joined", executions),
      one_is_caught<PagesOfOneTable, TableFault::join_is_in_two_steps>(
          "mutant: a table is joined in two steps", executions),
      one_is_caught<PagesOfALargerTable, TableFault::leave_forgets_to_kill>(
          "mutant: an empty table stays", executions),
      one_is_caught<PagesOfOneTable, TableFault::retire_does_not_compare>(
          "mutant: a table dies under the words of others", executions),
      one_is_caught<PagesOfOneTable, TableFault::stale_is_called_zero>(
          "mutant: a stale table is taken for zero", executions),
      one_is_caught<AMappingThatMoves, TableFault::released_at_once>(
          "mutant: tables are used while others pass them", executions),
      one_is_caught<PreparedForTheSameTables, TableFault::link_looks_first>(
          "mutant: prepared, two link at one place", executions),
      one_is_caught<PreparedForTheSameTables, TableFault::join_ignores_death>(
          "mutant: prepared, a dead table is joined", executions),
  });
}
