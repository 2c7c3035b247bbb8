// SPDX-License-Identifier: Apache-2.0
#include "unit/npu/fake_memory.hpp"

#include <accelmm/sim/npu_model.hpp>

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include <gtest/gtest.h>

namespace accelmm::sim {
namespace {

using test::FakeMemory;
using test::HandTables;
using test::invalidate;
using test::run;

constexpr std::uint32_t asid = 1;
constexpr std::uint64_t page = 0x40000000;  // begins a last-level table
constexpr std::uint64_t out = 0x80000000;
constexpr std::uint64_t big = 0x2 << 20;

struct Invalidation : testing::Test {
  FakeMemory memory{16 << 20};
  HandTables tables{memory, 0x100000};
  std::unique_ptr<NpuModel> model = *NpuModel::create(memory);

  void SetUp() override {
    ASSERT_TRUE(model->set_root(asid, tables.root()).has_value());
    tables.map_small(out, 0x900000);
    memory.fill(0x400000, std::vector<std::uint8_t>{'o', 'l', 'd'});
    memory.fill(0x401000, std::vector<std::uint8_t>{'n', 'e', 'w'});
    memory.fill(0x600000, std::vector<std::uint8_t>{'n', 'e', 'w'});
  }
  /// What the engine reads at an address: three letters, or "fault".
  std::string seen(std::uint64_t address) {
    const auto result = run(*model, asid, NpuCopy{DeviceAddr(address), DeviceAddr(out), 3_B});
    if (!result.status) return "fault";
    const auto bytes = memory.bytes(0x900000, 3);
    return {bytes.begin(), bytes.end()};
  }
};

TEST_F(Invalidation, ALeafThatChangedIsUsedAsItWasUntilInvalidated) {
  tables.map_small(page, 0x400000);
  EXPECT_EQ("old", seen(page));
  tables.map_small(page, 0x401000);
  EXPECT_EQ("old", seen(page));
  ASSERT_TRUE(invalidate(*model, asid, page, page + 4096).has_value());
  EXPECT_EQ("new", seen(page));
}

TEST_F(Invalidation, ALeafThatIsGoneIsUsedUntilInvalidated) {
  tables.map_small(page, 0x400000);
  EXPECT_EQ("old", seen(page));
  memory.store(tables.entry_at(4, page), 0);
  EXPECT_EQ("old", seen(page));
  ASSERT_TRUE(invalidate(*model, asid, page, page + 4096).has_value());
  EXPECT_EQ("fault", seen(page));
}

TEST_F(Invalidation, ABigLeafIsUsedAsItWasUntilAnyPartOfItIsInvalidated) {
  tables.map_big(page, 0x400000);
  EXPECT_EQ("old", seen(page));
  tables.map_big(page, 0x600000);
  EXPECT_EQ("old", seen(page));
  ASSERT_TRUE(invalidate(*model, asid, page - 4096, page).has_value());
  ASSERT_TRUE(invalidate(*model, asid, page + big, page + 2 * big).has_value());
  EXPECT_EQ("old", seen(page));
  ASSERT_TRUE(invalidate(*model, asid, page + big - 4096, page + big).has_value());
  EXPECT_EQ("new", seen(page));
}

TEST_F(Invalidation, ATableThatWasReplacedIsReadUntilInvalidated) {
  // The first page of the table is cached, its second page is not: only the pointer to the table
  // is.
  tables.map_small(page, 0x400000);
  EXPECT_EQ("old", seen(page));
  const std::uint64_t old_entry = tables.entry_at(4, page + 4096);
  HandTables others(memory, 0x200000);
  others.map_small(page + 4096, 0x401000);
  // The link of hop 3 now names the other tree's last table; the old one was given to someone else.
  const std::uint64_t new_table = others.entry_at(4, page);
  memory.store(tables.entry_at(3, page), new_table | test::link_bits);
  memory.store(old_entry, 0x400000 | test::leaf_read_write);
  EXPECT_EQ("old", seen(page + 4096));
  ASSERT_TRUE(invalidate(*model, asid, page + 4096, page + 8192).has_value());
  EXPECT_EQ("new", seen(page + 4096));
}

TEST_F(Invalidation, AnEmptyEntryIsNeverRemembered) {
  tables.map_small(page, 0x400000);
  EXPECT_EQ("old", seen(page));
  EXPECT_EQ("fault", seen(page + 4096));
  tables.map_small(page + 4096, 0x401000);
  EXPECT_EQ("new", seen(page + 4096));
}

TEST_F(Invalidation, OtherAddressSpacesAndOtherPagesKeepTheirs) {
  ASSERT_TRUE(model->set_root(asid + 1, tables.root()).has_value());
  tables.map_small(page, 0x400000);
  EXPECT_EQ("old", seen(page));
  tables.map_small(page, 0x401000);
  ASSERT_TRUE(invalidate(*model, asid + 1, 0, 1ULL << 50).has_value());
  ASSERT_TRUE(invalidate(*model, asid, page + 4096, 1ULL << 50).has_value());
  ASSERT_TRUE(invalidate(*model, asid, 0, page).has_value());
  EXPECT_EQ("old", seen(page));
}

TEST_F(Invalidation, AnEmptyRangeForgetsNothing) {
  tables.map_small(page, 0x400000);
  EXPECT_EQ("old", seen(page));
  tables.map_small(page, 0x401000);
  ASSERT_TRUE(invalidate(*model, asid, page, page).has_value());
  EXPECT_EQ("old", seen(page));
}

TEST_F(Invalidation, AClearedRootFaultsAtOnce) {
  tables.map_small(page, 0x400000);
  EXPECT_EQ("old", seen(page));
  model->clear_root(asid);
  EXPECT_EQ("fault", seen(page));
}

TEST_F(Invalidation, ANewRootDoesNotForgetWhatTheOldOneLedTo) {
  tables.map_small(page, 0x400000);
  EXPECT_EQ("old", seen(page));
  model->clear_root(asid);
  HandTables others(memory, 0x200000);
  others.map_small(page, 0x401000);
  others.map_small(out, 0x900000);
  ASSERT_TRUE(model->set_root(asid, others.root()).has_value());
  EXPECT_EQ("old", seen(page));
  ASSERT_TRUE(invalidate(*model, asid, 0, 1ULL << 50).has_value());
  EXPECT_EQ("new", seen(page));
}

TEST_F(Invalidation, TheTlbHoldsAsManyPagesAsAskedAndDropsTheOldest) {
  model = *NpuModel::create(memory, {.tlb_entries = 2, .delay_per_burst = {}});
  ASSERT_TRUE(model->set_root(asid, tables.root()).has_value());
  tables.map_small(page, 0x400000);
  tables.map_small(page + 4096, 0x401000);
  EXPECT_EQ("old", seen(page));  // holds page and out
  tables.map_small(page, 0x401000);
  EXPECT_EQ("old", seen(page));
  EXPECT_EQ("new", seen(page + 4096));  // page is the oldest
  EXPECT_EQ("new", seen(page));
}

TEST_F(Invalidation, CompletesWhileACommandRunsAndThatCommandSeesIt) {
  model = *NpuModel::create(memory,
                            {.tlb_entries = 64, .delay_per_burst = std::chrono::milliseconds(2)});
  ASSERT_TRUE(model->set_root(asid, tables.root()).has_value());
  tables.map_pages(page, 0x400000, 512);
  tables.map_pages(page + big, 0x600000, 512);
  std::promise<NpuJobResult> end;
  model->submit({asid, NpuCopy{DeviceAddr(page), DeviceAddr(page + big), ByteCount(big)},
                 [&end](const NpuJobResult& r) { end.set_value(r); }});
  while (model->statistics().bytes_written == 0) std::this_thread::yield();
  // All pages but the first are taken away while the copy is under way.
  for (std::uint64_t i = 1; i < 512; ++i) memory.store(tables.entry_at(4, page + 4096 * i), 0);
  ASSERT_TRUE(invalidate(*model, asid, page, page + big).has_value());
  const auto result = end.get_future().get();
  ASSERT_TRUE(result.fault.has_value());
  EXPECT_EQ(NpuFaultKind::not_present, result.fault->kind);
}

TEST_F(Invalidation, CommandsSubmittedAfterItSeeItDone) {
  tables.map_small(page, 0x400000);
  EXPECT_EQ("old", seen(page));
  tables.map_small(page, 0x401000);
  std::atomic<bool> done{false};
  model->invalidate(asid, {DeviceAddr(page), DeviceAddr(page + 1)},
                    Completion([&done](Result<void> r) { done = r.has_value(); }));
  EXPECT_EQ("new", seen(page));
  EXPECT_TRUE(done);
}

}  // namespace
}  // namespace accelmm::sim
