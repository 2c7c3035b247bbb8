// SPDX-License-Identifier: Apache-2.0
//
// The k-th allocation fails, for each k until there is none left to fail.
#include "unit/mm/failing_new.hpp"
#include "unit/mmu/tables_fixture.hpp"

#include <accelmm/mmu/address_space.hpp>
#include <accelmm/mmu/npu1.hpp>

#include <cstdint>
#include <iostream>
#include <memory>
#include <optional>
#include <span>
#include <utility>

#include <gtest/gtest.h>

namespace accelmm::mmu {
namespace {

using test::range;
using test::release;
using test::run;
using test::Runs;
using test::Tables;

constexpr std::uint64_t page = 0x1000;
constexpr std::uint64_t large = 0x20'0000;

using accelmm::test::FailingNew;

// Runs `operation` with a failure after 0, 1, 2, ... allocations, until it ends without having met
// one. Returns how many it met. `judge` looks at the outcome, with nothing failing any more.
template <class Operation, class Judge>
long fail_each_allocation(Operation&& operation, Judge&& judge) {
  for (long k = 0;; ++k) {
    bool met = false;
    {
      FailingNew failing(k);
      operation();
      met = failing.happened();
    }
    judge();
    if (!met) {
      std::cout << "allocations made to fail: " << k << '\n';
      return k;
    }
  }
}

TEST(OutOfMemory, CreatingAPoolFailsCleanly) {
  alignas(4096) static std::byte memory[4 * 4096];
  // Made anew rather than assigned: g++ 12 warns falsely of what the assignment would destroy.
  std::optional<Result<TablePool>> pool;
  const long failed = fail_each_allocation(
      [&] { pool.emplace(TablePool::create({BusAddr(0), ByteCount(sizeof memory), memory})); },
      [&] { EXPECT_TRUE(pool->has_value() || pool->error().code == Errc::no_memory); });
  EXPECT_TRUE(pool->has_value());
  EXPECT_EQ(failed, 2);
}

TEST(OutOfMemory, MakingAnAddressSpaceFailsCleanly) {
  Tables tables(4);
  const auto before = tables.snapshot();
  Result<std::unique_ptr<AddressSpace>> made = fail(Errc::busy, "not tried");
  const long failed = fail_each_allocation(
      [&] { made = make_address_space<Npu1>(tables.pool(), range(0, 1ULL << 50)); },
      [&] {
        EXPECT_TRUE(made.has_value() || made.error().code == Errc::no_memory);
        EXPECT_EQ(tables.pool().tables_in_use(), made ? 1u : 0u);
        EXPECT_EQ(tables.snapshot(), before);
        tables.pool().validate();
      });
  ASSERT_TRUE(made.has_value());
  EXPECT_GT(failed, 1) << "the address space itself, and its allocator's books";
  release((*made)->unmap_all());
}

class OutOfMemoryTest : public ::testing::TestWithParam<Placement> {};

TEST_P(OutOfMemoryTest, MappingFailsCleanly) {
  Tables tables(16);
  auto space = std::move(*make_address_space<Npu1>(tables.pool(), range(large, 64 * large)));
  const Runs other{run(0, page)};
  ASSERT_TRUE(space->map(other, {Placement::Kind::fixed, DeviceAddr(2 * large)}, Access::read));
  auto before = tables.snapshot();
  const std::uint32_t in_use = tables.pool().tables_in_use();
  const Runs runs{run(8 * large - page, large + page), run(page, 2 * page)};
  long refused = 0;
  Result<MappedRange> mapped = fail(Errc::busy, "not tried");
  const auto judge = [&] {
    space->validate();
    if (mapped) {  // without a failure, or with one that only cost the best address
      release(std::move(*space->unmap(mapped->range.begin)));
    } else {
      ++refused;
      EXPECT_EQ(mapped.error().code, Errc::no_memory);
      EXPECT_EQ(tables.snapshot(), before);
    }
    EXPECT_EQ(space->mappings(), 1u);
    EXPECT_EQ(space->mapped_bytes(), ByteCount(page));
    EXPECT_EQ(tables.pool().tables_in_use(), in_use);
    // Not one address got lost: the rest of the space can be mapped as a whole.
    const Runs rest{run(large, 61 * large)};
    auto all = space->map(rest, {Placement::Kind::fixed, DeviceAddr(3 * large)}, Access::read);
    ASSERT_TRUE(all.has_value());
    release(std::move(*space->unmap(all->range.begin)));
    before = tables.snapshot();  // free tables may hold what they held last
  };
  const long failed = fail_each_allocation(
      [&] { mapped = space->map(runs, GetParam(), Access::read_write); }, judge);
  EXPECT_TRUE(mapped.has_value()) << "with no failure";
  EXPECT_GE(failed, 1);
  EXPECT_GT(refused, 0);
  release(space->unmap_all());
}

INSTANTIATE_TEST_SUITE_P(
    EachPlacement, OutOfMemoryTest,
    ::testing::Values(Placement{}, Placement{Placement::Kind::hint, DeviceAddr(9 * large)},
                      Placement{Placement::Kind::fixed, DeviceAddr(9 * large)}));

// A space with a mapping of one large leaf at 4 large, and what a failure must leave of it.
class OutOfMemoryInChange : public ::testing::Test {
 protected:
  OutOfMemoryInChange() {
    const VaWindow window{VaUse::any, range(large, 64 * large)};
    SpaceOptions options;
    options.windows = std::span(&window, 1);
    options.default_page = run(0, page);
    space = std::move(*make_address_space<Npu1>(tables.pool(), options));
    const Runs runs{run(8 * large, large)};
    EXPECT_TRUE(space->map(runs, fixed(4 * large), {}).has_value());
  }
  ~OutOfMemoryInChange() override {
    release(space->unmap_all());
    space.reset();
    EXPECT_EQ(tables.pool().tables_in_use(), 0u);
  }
  static Placement fixed(std::uint64_t va) { return {Placement::Kind::fixed, DeviceAddr(va)}; }
  // Fails each allocation of `operation`, which must be refused and change nothing, or succeed and be
  // undone by `undo`. Returns how often it was refused.
  template <class Answer, class Operation, class Undo>
  long fail_each(Operation&& operation, Undo&& undo) {
    std::optional<Answer> answer;
    long refused = 0;
    const std::size_t mappings = space->mappings();
    const std::uint32_t in_use = tables.pool().tables_in_use();
    const long failed = fail_each_allocation([&] { answer.emplace(operation()); },
                                             [&] {
                                               space->validate();
                                               if (!*answer) {
                                                 ++refused;
                                                 EXPECT_EQ(answer->error().code, Errc::no_memory);
                                                 EXPECT_EQ(space->mappings(), mappings);
                                                 EXPECT_EQ(tables.pool().tables_in_use(), in_use);
                                               } else {
                                                 undo(std::move(**answer));
                                                 space->validate();
                                               }
                                             });
    EXPECT_TRUE(answer->has_value()) << "with no failure";
    EXPECT_GE(failed, 1);
    return refused;
  }

  Tables tables{32};
  std::unique_ptr<AddressSpace> space;
};

TEST_F(OutOfMemoryInChange, PartialUnmapHasRecordsSetAsideAndSucceeds) {
  const Runs runs{run(8 * large, large)};
  const long refused = fail_each<Result<Unmapped>>(
      [&] { return space->unmap(range(4 * large + page, 5 * large - page)); },
      [&](Unmapped gone) {
        EXPECT_EQ(space->mappings(), 2u);
        release(std::move(gone));
        release(std::move(*space->unmap(range(4 * large, 5 * large))));
        EXPECT_TRUE(space->map(runs, fixed(4 * large), {}).has_value());
      });
  EXPECT_EQ(refused, 0);
}

TEST_F(OutOfMemoryInChange, ReplaceFailsCleanly) {
  const Runs runs{run(16 * large, 3 * large)};
  const Runs old{run(8 * large, large)};
  const long refused =
      fail_each<Result<Replaced>>([&] { return space->replace(runs, fixed(4 * large + page), {}); },
                                  [&](Replaced replaced) {
                                    release(std::move(replaced.gone));
                                    release(std::move(*space->unmap(range(4 * large, 8 * large))));
                                    EXPECT_TRUE(space->map(old, fixed(4 * large), {}).has_value());
                                  });
  EXPECT_GT(refused, 0);
}

TEST_F(OutOfMemoryInChange, ReservingFailsCleanly) {
  const long refused = fail_each<Result<Range<DeviceAddr>>>(
      [&] { return space->reserve(ByteCount(large), {}); },
      [&](Range<DeviceAddr> reserved) {
        EXPECT_TRUE(space->end_reservation(reserved.begin).has_value());
      });
  EXPECT_GT(refused, 0);
}

TEST_F(OutOfMemoryInChange, NullMappingFailsCleanly) {
  const long refused = fail_each<Result<MappedRange>>(
      [&] { return space->map_null(ByteCount(large), {}, Access::read); },
      [&](MappedRange mapped) { release(std::move(*space->unmap(mapped.range.begin))); });
  EXPECT_GT(refused, 0);
}

TEST(OutOfMemory, UnmapReleaseAndTranslateNeverAllocate) {
  Tables tables(16);
  auto space = std::move(*make_address_space<Npu1>(tables.pool(), range(large, 64 * large)));
  const Runs runs{run(8 * large - page, large + page), run(page, 2 * page)};
  const auto first = space->map(runs, {}, Access::read);
  const auto second = space->map(runs, {}, Access::read);
  ASSERT_TRUE(first && second);
  {
    const std::int64_t calls = accelmm::test::heap.calls;
    auto gone = space->unmap(first->range.begin);
    release(std::move(*gone));
    ASSERT_TRUE(space->translate(second->range.begin).has_value());
    ASSERT_EQ(space->walk(second->range.begin).steps().size(), 5u);
    release(space->unmap_all());
    space.reset();
    EXPECT_EQ(accelmm::test::heap.calls, calls);
  }
  EXPECT_EQ(tables.pool().tables_in_use(), 0u);
}

}  // namespace
}  // namespace accelmm::mmu
