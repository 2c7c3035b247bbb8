// SPDX-License-Identifier: Apache-2.0
#include "devices/npu/npu_walker.hpp"

#include "unit/npu/fake_memory.hpp"

#include <gtest/gtest.h>

namespace accelmm::sim {
namespace {

using test::FakeMemory;
using test::HandTables;

constexpr std::uint64_t root_at = 0x10000;
// Its indices are 2, 3, 5, 7 and 11: all different, so that a swapped hop shows.
constexpr std::uint64_t address =
    (2ULL << 48) | (3ULL << 39) | (5ULL << 30) | (7ULL << 21) | (11ULL << 12) | 0x123;

struct Walker : testing::Test {
  FakeMemory memory{1 << 20};
  HandTables tables{memory, root_at};
  NpuWalker walker{memory};

  NpuWalker::Walk walk(std::uint64_t va) { return walker.walk(tables.root(), DeviceAddr(va)); }
  NpuWalkFault fault_of(std::uint64_t va) {
    const auto walked = walk(va);
    EXPECT_FALSE(walked.result.has_value());
    return walked.result ? NpuWalkFault{99, NpuFaultKind::bus_error} : walked.result.error();
  }
};

TEST_F(Walker, ReadsFiveEntriesToASmallLeaf) {
  tables.map_small(address, 0xABCDE000, test::leaf_read);
  const auto walked = walk(address);
  ASSERT_TRUE(walked.result.has_value());
  EXPECT_EQ(BusAddr(0xABCDE000), walked.result->memory);
  EXPECT_EQ(4096U, walked.result->size);
  EXPECT_EQ(4U, walked.result->level);
  EXPECT_TRUE(walked.result->readable);
  EXPECT_FALSE(walked.result->writable);
  EXPECT_EQ(5U, walked.reads);
  EXPECT_EQ(BusAddr(tables.entry_at(4, address)), walked.result->entry);
  // Five tables were made in order; the entry of index 11 lies in the fifth one.
  EXPECT_EQ(BusAddr(root_at + 4 * 4096 + 8 * 11), walked.result->entry);
  EXPECT_TRUE(walked.has_last_table);
  EXPECT_EQ(BusAddr(root_at + 4 * 4096), walked.last_table);
}

TEST_F(Walker, ReadsFourEntriesToABigLeaf) {
  tables.map_big(address, 0x40000000, test::leaf_write);
  const auto walked = walk(address);
  ASSERT_TRUE(walked.result.has_value());
  EXPECT_EQ(BusAddr(0x40000000), walked.result->memory);
  EXPECT_EQ(2U << 20, walked.result->size);
  EXPECT_EQ(3U, walked.result->level);
  EXPECT_FALSE(walked.result->readable);
  EXPECT_TRUE(walked.result->writable);
  EXPECT_EQ(4U, walked.reads);
  EXPECT_FALSE(walked.has_last_table);
}

TEST_F(Walker, NeighboursAcrossEveryIndexBoundaryHaveTheirOwnLeaves) {
  std::uint64_t memory_address = 0x100000;
  std::vector<std::pair<std::uint64_t, std::uint64_t>> mapped;
  for (const unsigned shift : {12U, 21U, 30U, 39U, 48U}) {
    const std::uint64_t boundary = 3ULL << shift;
    for (const std::uint64_t va : {boundary - 4096, boundary}) {
      tables.map_small(va, memory_address);
      mapped.emplace_back(va, memory_address);
      memory_address += 4096;
    }
  }
  const std::uint64_t last = (1ULL << 50) - 4096;
  tables.map_small(last, memory_address);
  mapped.emplace_back(last, memory_address);
  for (const auto& [va, expected] : mapped) {
    for (const std::uint64_t offset : {0ULL, 4095ULL}) {
      const auto walked = walk(va + offset);
      ASSERT_TRUE(walked.result.has_value()) << std::hex << va;
      EXPECT_EQ(BusAddr(expected), walked.result->memory) << std::hex << va;
    }
  }
}

TEST_F(Walker, AnEmptyEntryEndsTheWalkAtItsHop) {
  for (unsigned hop = 0; hop < 5; ++hop) {
    EXPECT_EQ(hop, fault_of(address).level);
    EXPECT_EQ(NpuFaultKind::not_present, fault_of(address).kind);
    if (hop < 4) (void)tables.entry_at(hop + 1, address);
  }
}

TEST_F(Walker, ATableThatTheBusDoesNotReachEndsTheWalkAtItsHop) {
  const std::uint64_t beyond = 1ULL << 40;
  EXPECT_EQ(NpuFaultKind::bus_error,
            walker.walk(BusAddr(beyond), DeviceAddr(address)).result.error().kind);
  for (unsigned hop = 4; hop > 0; --hop) {
    memory.store(tables.entry_at(hop - 1, address), beyond | test::link_bits);
    EXPECT_EQ(hop, fault_of(address).level);
    EXPECT_EQ(NpuFaultKind::bus_error, fault_of(address).kind);
    memory.store(tables.entry_at(hop - 1, address), 0);
  }
}

TEST_F(Walker, RefusesEveryReservedBitOfALeaf) {
  for (const unsigned bit : {1U, 2U, 5U, 6U, 7U, 8U, 9U, 10U}) {
    tables.map_small(address, 0x5000 | 1ULL << bit);
    EXPECT_EQ(NpuFaultKind::malformed_entry, fault_of(address).kind) << bit;
    EXPECT_EQ(4U, fault_of(address).level);
  }
}

TEST_F(Walker, RefusesEveryControlBitOfALinkButPresent) {
  for (unsigned hop = 0; hop < 4; ++hop) {
    const std::uint64_t entry = tables.entry_at(hop, address);
    for (unsigned bit = 1; bit < 11; ++bit) {
      memory.store(entry, 0x20000 | test::link_bits | 1ULL << bit);
      EXPECT_EQ(NpuFaultKind::malformed_entry, fault_of(address).kind) << hop << ' ' << bit;
      EXPECT_EQ(hop, fault_of(address).level);
    }
    memory.store(entry, 0);
  }
}

TEST_F(Walker, RefusesALeafAboveHopThree) {
  for (unsigned hop = 0; hop < 3; ++hop) {
    const std::uint64_t entry = tables.entry_at(hop, address);
    memory.store(entry, test::leaf_read_write);
    EXPECT_EQ(NpuFaultKind::malformed_entry, fault_of(address).kind);
    EXPECT_EQ(hop, fault_of(address).level);
    memory.store(entry, 0);
  }
}

TEST_F(Walker, RefusesABigLeafThatIsNotAligned) {
  for (unsigned bit = 12; bit < 21; ++bit) {
    tables.map_big(address, 1ULL << bit);
    EXPECT_EQ(NpuFaultKind::malformed_entry, fault_of(address).kind) << bit;
    EXPECT_EQ(3U, fault_of(address).level);
  }
}

TEST_F(Walker, RefusesALinkInTheLastHop) {
  tables.map_small(address, 0x5000, test::link_bits);
  EXPECT_EQ(NpuFaultKind::malformed_entry, fault_of(address).kind);
  EXPECT_EQ(4U, fault_of(address).level);
}

TEST_F(Walker, RefusesAnEntryThatIsNeitherEmptyNorPresent) {
  tables.map_small(address, 0x5000, test::leaf_read_write & ~test::link_bits);
  EXPECT_EQ(NpuFaultKind::malformed_entry, fault_of(address).kind);
}

TEST_F(Walker, ReadsOneEntryWhenTheLastTableIsKnown) {
  tables.map_small(address, 0x5000);
  const auto walked = walker.walk_last(BusAddr(root_at + 4 * 4096), DeviceAddr(address));
  ASSERT_TRUE(walked.result.has_value());
  EXPECT_EQ(BusAddr(0x5000), walked.result->memory);
  EXPECT_EQ(1U, walked.reads);
}

}  // namespace
}  // namespace accelmm::sim
