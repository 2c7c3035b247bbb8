// SPDX-License-Identifier: Apache-2.0
#include "unit/npu/fake_memory.hpp"

#include <accelmm/sim/npu_model.hpp>

#include <cstdint>
#include <limits>
#include <memory>
#include <vector>

#include <gtest/gtest.h>

namespace accelmm::sim {
namespace {

using test::FakeMemory;
using test::HandTables;
using test::run;

constexpr std::uint32_t asid = 5;
constexpr std::uint64_t source = 0x7000000000;
constexpr std::uint64_t destination = 0x1234500000;

std::vector<std::uint8_t> pattern(std::size_t size, unsigned seed) {
  std::vector<std::uint8_t> bytes(size);
  for (std::uint8_t& byte : bytes) {
    seed = seed * 1664525U + 1013904223U;  // Numerical Recipes
    byte = static_cast<std::uint8_t>(seed >> 24);
  }
  return bytes;
}

struct Copy : testing::Test {
  FakeMemory memory{16 << 20};
  HandTables tables{memory, 0x100000};
  std::unique_ptr<NpuModel> model = *NpuModel::create(memory);

  void SetUp() override { ASSERT_TRUE(model->set_root(asid, tables.root()).has_value()); }
  NpuJobResult copy(std::uint64_t from, std::uint64_t to, std::uint64_t length) {
    return run(*model, asid, NpuCopy{DeviceAddr(from), DeviceAddr(to), ByteCount(length)});
  }
};

/// What a fault says, for one comparison.
void expect_fault(const NpuJobResult& result, std::uint64_t address, Access access,
                  std::uint32_t level, NpuFaultKind kind) {
  ASSERT_TRUE(result.fault.has_value());
  ASSERT_FALSE(result.status.has_value());
  EXPECT_EQ(Errc::fault, result.status.error().code);
  EXPECT_EQ(DeviceAddr(address), result.fault->address);
  EXPECT_EQ(access, result.fault->access);
  EXPECT_EQ(asid, result.fault->asid);
  EXPECT_EQ(level, result.fault->level);
  EXPECT_EQ(kind, result.fault->kind);
}

TEST_F(Copy, MovesBytesBetweenScatteredPages) {
  // Four pages each way, in memory in reverse order, at offsets that split pages differently.
  for (std::uint64_t i = 0; i < 4; ++i) {
    tables.map_small(source + 4096 * i, 0x400000 + 4096 * (3 - i), test::leaf_read);
    tables.map_small(destination + 4096 * i, 0x500000 + 4096 * (3 - i), test::leaf_write);
  }
  const auto bytes = pattern(4 * 4096, 1);
  for (std::size_t i = 0; i < 4; ++i)
    memory.fill(0x400000 + 4096 * (3 - i), std::span(bytes).subspan(4096 * i, 4096));
  ASSERT_TRUE(copy(source + 100, destination + 1000, 10000).status.has_value());
  std::vector<std::uint8_t> copied;
  for (std::uint64_t i = 0; i < 4; ++i) {
    const auto page = memory.bytes(0x500000 + 4096 * (3 - i), 4096);
    copied.insert(copied.end(), page.begin(), page.end());
  }
  std::vector<std::uint8_t> expected(4 * 4096, 0);
  std::copy_n(bytes.begin() + 100, 10000, expected.begin() + 1000);
  EXPECT_EQ(expected, copied);
}

TEST_F(Copy, MovesBytesThroughABigLeaf) {
  tables.map_big(source, 0x400000, test::leaf_read);
  tables.map_big(destination & ~0x1FFFFFULL, 0x600000, test::leaf_write);
  const auto bytes = pattern(2 << 20, 2);
  memory.fill(0x400000, bytes);
  ASSERT_TRUE(copy(source, destination & ~0x1FFFFFULL, 2 << 20).status.has_value());
  EXPECT_EQ(bytes, memory.bytes(0x600000, 2 << 20));
  EXPECT_EQ(1U + 1U, model->statistics().tlb_misses);
}

TEST_F(Copy, OneByteIsOneByte) {
  tables.map_small(source, 0x400000);
  memory.fill(0x400000, std::vector<std::uint8_t>{1, 2, 3, 4});
  ASSERT_TRUE(copy(source + 1, source + 3, 1).status.has_value());
  EXPECT_EQ((std::vector<std::uint8_t>{1, 2, 3, 2}), memory.bytes(0x400000, 4));
}

TEST_F(Copy, DownwardOverlapIsRight) {
  tables.map_pages(source, 0x400000, 4);
  const auto bytes = pattern(4 * 4096, 3);
  memory.fill(0x400000, bytes);
  ASSERT_TRUE(copy(source + 300, source, 3 * 4096).status.has_value());
  EXPECT_EQ(std::vector<std::uint8_t>(bytes.begin() + 300, bytes.begin() + 300 + 3 * 4096),
            memory.bytes(0x400000, 3 * 4096));
}

TEST_F(Copy, FaultsWhereThePageIsMissingAfterTheBytesBeforeIt) {
  tables.map_pages(source, 0x400000, 2);
  tables.map_small(destination, 0x500000);
  memory.fill(0x400000, pattern(8192, 4));
  expect_fault(copy(source + 16, destination + 16, 5000), destination + 4096, Access::write, 4,
               NpuFaultKind::not_present);
  EXPECT_EQ(memory.bytes(0x400010, 4080), memory.bytes(0x500010, 4080));
  EXPECT_EQ(1U, model->statistics().faults);
}

TEST_F(Copy, FaultsWithoutAnAddressSpace) {
  tables.map_small(source, 0x400000);
  model->clear_root(asid);
  expect_fault(copy(source, source, 1), source, Access::read, 0, NpuFaultKind::no_address_space);
}

TEST_F(Copy, FaultsBeyondFiftyBits) {
  tables.map_small(0, 0x400000);
  const std::uint64_t end = 1ULL << 50;
  expect_fault(copy(end, 0, 1), end, Access::read, 0, NpuFaultKind::non_canonical);
  expect_fault(copy(0, end, 1), end, Access::write, 0, NpuFaultKind::non_canonical);
}

TEST_F(Copy, FaultsOnReadingAPageThatIsWriteOnlyAndTheOtherWayRound) {
  tables.map_small(source, 0x400000, test::leaf_write);
  tables.map_small(destination, 0x401000, test::leaf_read);
  expect_fault(copy(source, destination, 1), source, Access::read, 4, NpuFaultKind::not_permitted);
  tables.map_big(0, 0x600000, test::leaf_read);
  expect_fault(copy(destination, 0x1000, 1), 0x1000, Access::write, 3, NpuFaultKind::not_permitted);
}

TEST_F(Copy, ChecksPermissionsAlsoOfWhatTheTlbHolds) {
  tables.map_small(source, 0x400000, test::leaf_read);
  tables.map_small(destination, 0x401000);
  ASSERT_TRUE(copy(source, destination, 16).status.has_value());
  expect_fault(copy(destination, source, 16), source, Access::write, 4,
               NpuFaultKind::not_permitted);
}

TEST_F(Copy, FaultsOnAMalformedEntry) {
  tables.map_small(source, 0x400000, test::leaf_read | 0x100);
  expect_fault(copy(source, source, 1), source, Access::read, 4, NpuFaultKind::malformed_entry);
}

TEST_F(Copy, FaultsWhereTheBusRefusesTheMemory) {
  tables.map_small(source, 1ULL << 30);
  tables.map_small(destination, 0x400000);
  expect_fault(copy(source, destination, 1), source, Access::read, 4, NpuFaultKind::bus_error);
  expect_fault(copy(destination, source, 1), source, Access::write, 4, NpuFaultKind::bus_error);
}

TEST_F(Copy, FaultsWhereTheBusRefusesATable) {
  memory.store(tables.entry_at(1, source), 1ULL << 30 | test::link_bits);
  expect_fault(copy(source, source, 1), source, Access::read, 2, NpuFaultKind::bus_error);
}

TEST_F(Copy, WorksAgainAfterAFault) {
  tables.map_small(destination, 0x400000);
  ASSERT_TRUE(copy(source, destination, 1).fault.has_value());
  tables.map_small(source, 0x401000);
  EXPECT_TRUE(copy(source, destination, 1).status.has_value());
}

TEST_F(Copy, RefusesSizesThatMakeNoSense) {
  EXPECT_EQ(Errc::invalid_argument, copy(source, destination, 0).status.error().code);
  const std::uint64_t top = std::numeric_limits<std::uint64_t>::max();
  EXPECT_EQ(Errc::overflow, copy(top - 10, destination, 100).status.error().code);
  EXPECT_EQ(Errc::overflow, copy(source, top - 10, 100).status.error().code);
  EXPECT_EQ(Errc::overflow, copy(source, destination, top).status.error().code);
  for (const std::uint32_t wrong : {0U, NpuModel::address_spaces + 1, ~0U})
    EXPECT_EQ(Errc::invalid_argument,
              run(*model, wrong, NpuCopy{DeviceAddr(0), DeviceAddr(0), ByteCount(1)})
                  .status.error()
                  .code);
  EXPECT_EQ(0U, model->statistics().table_reads);
}

TEST_F(Copy, RefusesRootsThatMakeNoSense) {
  EXPECT_EQ(Errc::invalid_argument, model->set_root(0, BusAddr(0)).error().code);
  EXPECT_EQ(Errc::invalid_argument,
            model->set_root(NpuModel::address_spaces + 1, BusAddr(0)).error().code);
  EXPECT_EQ(Errc::invalid_argument, model->set_root(asid, BusAddr(8)).error().code);
  EXPECT_TRUE(model->set_root(NpuModel::address_spaces, BusAddr(0)).has_value());
}

TEST_F(Copy, AddressSpacesDoNotSeeEachOther) {
  HandTables others(memory, 0x200000);
  ASSERT_TRUE(model->set_root(asid + 1, others.root()).has_value());
  tables.map_pages(source, 0x400000, 2);
  others.map_pages(source, 0x410000, 2);
  memory.fill(0x400000, pattern(16, 5));
  memory.fill(0x410000, pattern(16, 6));
  ASSERT_TRUE(copy(source, source + 4096, 16).status.has_value());
  ASSERT_TRUE(
      run(*model, asid + 1, NpuCopy{DeviceAddr(source), DeviceAddr(source + 4096), ByteCount(16)})
          .status.has_value());
  EXPECT_EQ(pattern(16, 5), memory.bytes(0x401000, 16));
  EXPECT_EQ(pattern(16, 6), memory.bytes(0x411000, 16));
}

TEST_F(Copy, CountsWhatItDid) {
  tables.map_pages(source, 0x400000, 2);
  ASSERT_TRUE(copy(source, source + 4096, 4096).status.has_value());
  ASSERT_TRUE(copy(source, source + 4096, 4096).status.has_value());
  const NpuStatistics statistics = model->statistics();
  EXPECT_EQ(2U, statistics.jobs);
  EXPECT_EQ(0U, statistics.faults);
  EXPECT_EQ(8192U, statistics.bytes_read);
  EXPECT_EQ(8192U, statistics.bytes_written);
  EXPECT_EQ(2U, statistics.tlb_misses);
  EXPECT_EQ(2U, statistics.tlb_hits);
  // Five hops for the first page, one entry of the known last table for the second.
  EXPECT_EQ(6U, statistics.table_reads);
  EXPECT_GT(statistics.busy.count(), 0);
}

TEST_F(Copy, FindsTheEntryOfAnAddressInTheTables) {
  tables.map_small(source, 0x400000);
  EXPECT_EQ(BusAddr(tables.entry_at(4, source)), *model->find_entry(asid, DeviceAddr(source + 9)));
  EXPECT_EQ(Errc::fault, model->find_entry(asid, DeviceAddr(destination)).error().code);
  EXPECT_EQ(Errc::fault, model->find_entry(asid + 1, DeviceAddr(source)).error().code);
  EXPECT_EQ(Errc::fault, model->find_entry(asid, DeviceAddr(~0ULL)).error().code);
  EXPECT_EQ(Errc::fault, model->find_entry(~0U, DeviceAddr(source)).error().code);
}

TEST(NpuModel, RefusesATlbWithoutEntries) {
  FakeMemory memory(4096);
  const auto model = NpuModel::create(memory, {.tlb_entries = 0, .delay_per_burst = {}});
  ASSERT_FALSE(model.has_value());
  EXPECT_EQ(Errc::invalid_argument, model.error().code);
}

}  // namespace
}  // namespace accelmm::sim
