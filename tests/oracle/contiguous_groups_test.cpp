// SPDX-License-Identifier: Apache-2.0
// The rule of the contiguous hint on tables that keep it and on tables that break it.
#include "oracle/contiguous_groups.hpp"

#include "oracle/encodings.hpp"
#include "oracle/random_tables.hpp"
#include "property/mm/steps.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace accelmm::test {
namespace {

constexpr std::uint64_t base = 0x8000'0000;

class ContiguousGroupsOf : public ::testing::TestWithParam<Encoding> {
 protected:
  [[nodiscard]] ContiguousGroups judge(const RandomTables& tables) const {
    const Read read = [&](std::uint64_t where, unsigned bytes) {
      return tables.read(where, bytes);
    };
    unsigned granule_shift = 12;
    while (1ULL << granule_shift < GetParam().table_alignment) ++granule_shift;
    return ContiguousJudge::judge(read, tables.root(), granule_shift, 48);
  }
  [[nodiscard]] bool is_group(const RandomTables::Mapping& mapping) const {
    return GetParam().entries_of(mapping.kind) > 1;
  }
  std::vector<std::byte> memory = std::vector<std::byte>(std::size_t{32} << 20);
};

TEST_P(ContiguousGroupsOf, AreCountedWhereTheyAreRight) {
  Dice dice("contiguous_groups");
  RandomTables tables(GetParam(), memory, base);
  tables.fill(dice, 200);
  std::uint64_t groups = 0;
  std::uint64_t largest = 0;
  for (const RandomTables::Mapping& mapping : tables.mappings()) {
    if (!is_group(mapping)) continue;
    ++groups;
    largest = std::max(largest, mapping.kind.size);
  }
  const ContiguousGroups found = judge(tables);
  EXPECT_EQ(found.wrong, "");
  EXPECT_EQ(found.groups, groups);
  EXPECT_EQ(found.largest, largest);
  EXPECT_GT(groups, 10U);
}

TEST_P(ContiguousGroupsOf, AreWrongWithAnyBitOfAnyItemChanged) {
  Dice dice("contiguous_groups, wrong bits");
  RandomTables tables(GetParam(), memory, base);
  tables.fill(dice, 4);
  unsigned planted = 0;
  for (const RandomTables::Mapping& mapping : tables.mappings()) {
    if (!is_group(mapping)) continue;
    const std::uint64_t count = GetParam().entries_of(mapping.kind);
    const std::uint64_t before = judge(tables).groups;
    for (const std::uint64_t item : {std::uint64_t{0}, dice.roll(count), count - 1}) {
      const std::uint64_t address = mapping.address + item * GetParam().span(mapping.kind.hop);
      const auto place = *tables.place_of(mapping.kind.hop, address);
      const std::uint64_t word = tables.read(place, 8);
      for (const unsigned bit : {0U, 6U, 7U, 11U, 30U, 47U, 52U, 54U, 55U}) {
        tables.write(place, word ^ 1ULL << bit);
        const ContiguousGroups found = judge(tables);
        ASSERT_NE(found.wrong, "") << "bit " << bit << " of item " << item;
        ASSERT_EQ(found.groups, before - 1);
        ++planted;
      }
      tables.write(place, word);
    }
  }
  EXPECT_GE(planted, 27U) << "at least one group of each kind";
}

TEST_P(ContiguousGroupsOf, AreWrongWhereAllTheirMemoryIsShifted) {
  Dice dice("contiguous_groups, shifted");
  RandomTables tables(GetParam(), memory, base);
  tables.fill(dice, 40);
  for (const RandomTables::Mapping& mapping : tables.mappings()) {
    if (!is_group(mapping)) continue;
    const std::uint64_t span = GetParam().span(mapping.kind.hop);
    const std::uint64_t count = GetParam().entries_of(mapping.kind);
    const auto move = [&](std::uint64_t by) {
      for (std::uint64_t item = 0; item < count; ++item) {
        const auto place = *tables.place_of(mapping.kind.hop, mapping.address + item * span);
        tables.write(place, tables.read(place, 8) + by);
      }
    };
    move(span);
    EXPECT_NE(judge(tables).wrong, "");
    move(0 - span);
    EXPECT_EQ(judge(tables).wrong, "");
  }
}

INSTANTIATE_TEST_SUITE_P(EachFormat, ContiguousGroupsOf,
                         ::testing::Values(aarch64_encoding(12), aarch64_encoding(14),
                                           aarch64_encoding(16), intel_npu_encoding()),
                         [](const auto& each) { return each.param.name; });

TEST(ContiguousGroups, HaveNoPlaceInATable) {
  std::vector<std::byte> memory(0x3000);
  const auto put = [&](std::uint64_t at, std::uint64_t word) {
    std::memcpy(memory.data() + at, &word, sizeof word);
  };
  const Read read = [&](std::uint64_t where, unsigned bytes) {
    std::uint64_t word = 0;
    if (where >= base && where - base <= memory.size() - bytes)
      std::memcpy(&word, memory.data() + (where - base), bytes);
    return word;
  };
  put(0, (base + 0x1000) | 3);
  EXPECT_EQ(ContiguousJudge::judge(read, base, 12, 48).wrong, "");
  put(0, (base + 0x1000) | 3 | 1ULL << 52);
  EXPECT_EQ(ContiguousJudge::judge(read, base, 12, 48).wrong,
            "entry at 0x80000000: is a table with the hint");
}

}  // namespace
}  // namespace accelmm::test
