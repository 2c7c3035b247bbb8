// SPDX-License-Identifier: Apache-2.0
// The naive walkers against lists of what random tables map.
#include "oracle/encodings.hpp"
#include "oracle/naive_walk.hpp"
#include "oracle/random_tables.hpp"
#include "property/mm/steps.hpp"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <set>
#include <vector>

#include <gtest/gtest.h>

namespace accelmm::test {
namespace {

constexpr std::uint64_t base = 0x1'0000'0000;

class NaiveWalkers : public ::testing::TestWithParam<Encoding> {
 protected:
  // Rockchip's first version has links of 32 bits.
  static std::uint64_t base_of(const Encoding& encoding) {
    return encoding.bus_bits == 32 ? 0x4000'0000 : base;
  }
  static std::optional<NaiveAnswer> walk(const Encoding& encoding, const RandomTables& tables,
                                         std::uint64_t address) {
    const Read read = [&](std::uint64_t where, unsigned bytes) {
      return tables.read(where, bytes);
    };
    return naive_walk(encoding.format, encoding.levels, read, tables.root(), address);
  }
};

TEST_P(NaiveWalkers, FindWhatRandomTablesMapAndNothingElse) {
  const Encoding& encoding = GetParam();
  Dice dice(encoding.name.c_str());
  const std::uint64_t steps = number_from_environment("ACCELMM_STEPS", 20'000);
  std::uint64_t mapped = 0;
  std::set<std::uint64_t> sizes;
  for (std::uint64_t step = 0; step < steps;) {
    std::vector<std::byte> memory(std::size_t{32} << 20);
    RandomTables tables(encoding, memory, base_of(encoding));
    tables.fill(dice, 400);
    for (const RandomTables::Mapping& mapping : tables.mappings()) sizes.insert(mapping.kind.size);
    for (unsigned i = 0; i < 5'000; ++i, ++step) {
      const std::uint64_t address = tables.random_address(dice);
      const auto expected = tables.expected(address);
      if (expected) ++mapped;
      ASSERT_EQ(walk(encoding, tables, address), expected) << "address " << std::hex << address;
      const std::uint64_t outside = address ^ 1ULL << (63 - dice.roll(7));
      if (outside == encoding.canonical(outside)) continue;
      ASSERT_EQ(walk(encoding, tables, outside), std::nullopt) << "address " << std::hex << outside;
    }
  }
  EXPECT_GT(mapped * 2, steps) << "most addresses must be mapped for this to mean anything";
  std::set<std::uint64_t> all;
  for (const LeafKind& kind : encoding.leaves) all.insert(kind.size);
  EXPECT_EQ(sizes, all);
}

TEST_P(NaiveWalkers, SeeEachPlantedWrongBit) {
  const Encoding& encoding = GetParam();
  Dice dice(encoding.name.c_str());
  std::vector<std::byte> memory(std::size_t{32} << 20);
  RandomTables tables(encoding, memory, base_of(encoding));
  tables.fill(dice, 200);
  std::uint64_t planted = 0;
  for (const RandomTables::Mapping& mapping : tables.mappings()) {
    const std::uint64_t address = mapping.address + dice.roll(mapping.kind.size);
    const auto right = walk(encoding, tables, address);
    ASSERT_TRUE(right);
    for (int hop = static_cast<int>(mapping.kind.hop); hop >= 0;) {
      const auto here = static_cast<unsigned>(hop);
      const bool is_leaf = here == mapping.kind.hop;
      auto place = *tables.place_of(here, address);
      std::uint64_t bits = encoding.leaf_flags | encoding.leaf_address_bits(mapping.kind);
      if (!is_leaf) {
        unsigned child = mapping.kind.hop;
        while (encoding.parent(child) != hop) child = static_cast<unsigned>(encoding.parent(child));
        const unsigned part = encoding.hops[child].part;
        place += part * encoding.word_bytes;
        // The address is aligned to the table's size, or to 4 KiB, whatever is more.
        unsigned lowest = 12;
        while (1ULL << lowest < encoding.table_alignment) ++lowest;
        bits = encoding.link_flags | encoding.link_address_bits(here, lowest);
        if (part == 1) bits &= ~1ULL;  // says nothing in the second word
      }
      const std::uint64_t word = tables.read(place, encoding.word_bytes);
      for (unsigned bit = 0; bit < encoding.word_bytes * 8; ++bit) {
        if ((bits >> bit & 1) == 0) continue;
        tables.write(place, word ^ 1ULL << bit);
        ASSERT_NE(walk(encoding, tables, address), right)
            << "bit " << bit << " of hop " << hop << ", address " << std::hex << address;
        ++planted;
      }
      tables.write(place, word);
      hop = encoding.parent(here);
    }
  }
  EXPECT_GT(planted, 1'000U);
}

INSTANTIATE_TEST_SUITE_P(EachFormat, NaiveWalkers, ::testing::ValuesIn(encodings()),
                         [](const auto& each) { return each.param.name; });

// Links of these formats have permissions too: what one of them lacks is lacking.
TEST(NaiveWalkersOfLinks, AllowWhatIsAllowedOnTheWholeWay) {
  struct Case {
    Encoding encoding;
    std::uint64_t taken;  ///< bits cleared in a link
    std::optional<Allowed> left;
  };
  const std::uint64_t amd_read = 1ULL << 61;
  const std::uint64_t amd_write = 1ULL << 62;
  for (const Case& each : {
           Case{x86_64_encoding(4), 2, Allowed::read},
           Case{x86_64_encoding(5), 4, std::nullopt},
           Case{vtd_second_stage_encoding(4), 2, Allowed::read},
           Case{vtd_second_stage_encoding(4), 1, Allowed::write},
           Case{vtd_second_stage_encoding(4), 3, std::nullopt},
           Case{amd_iommu_v1_encoding(4), amd_write, Allowed::read},
           Case{amd_iommu_v1_encoding(4), amd_read, Allowed::write},
           Case{amd_iommu_v1_encoding(4), amd_read | amd_write, std::nullopt},
       }) {
    const Encoding& encoding = each.encoding;
    std::vector<std::byte> memory(std::size_t{1} << 20);
    RandomTables tables(encoding, memory, base);
    const LeafKind kind = encoding.leaves.front();
    ASSERT_TRUE(tables.map({0x5000, 0x1234'5000, kind, Allowed::both}));
    const Read read = [&](std::uint64_t where, unsigned bytes) {
      return tables.read(where, bytes);
    };
    for (unsigned hop = 0; hop < kind.hop; ++hop) {
      const auto place = *tables.place_of(hop, 0x5000);
      const std::uint64_t word = tables.read(place, 8);
      tables.write(place, word & ~each.taken);
      const auto found = naive_walk(encoding.format, encoding.levels, read, tables.root(), 0x5000);
      const auto allowed = found ? std::optional(found->allowed) : std::nullopt;
      EXPECT_EQ(allowed, each.left) << encoding.name << ", hop " << hop;
      tables.write(place, word);
    }
  }
}

// Pages of 48 MiB (or 40) keep their number and their offset; only where they begin changes.
TEST(NaiveGaudi2Hmmu, FindsPagesThatAreNoPowerOfTwo) {
  constexpr std::uint64_t memory_begin = 0x1001'0000'0000'0000;
  const Encoding encoding = gaudi2_hmmu_encoding();
  Dice dice("gaudi2_hmmu, scrambled");
  for (const unsigned stacks : {5U, 6U}) {
    const std::uint64_t page = stacks * 8 * mib;
    std::vector<std::byte> memory(std::size_t{4} << 20);
    RandomTables tables(encoding, memory, base);
    // Each page number n of the table below: what it is mapped to, and the first of its leaf.
    struct Page {
      std::uint64_t to;
      std::uint64_t pages;
    };
    std::vector<std::optional<Page>> pages(4096);
    for (unsigned i = 0; i < 500; ++i) {
      const LeafKind kind = encoding.leaves[dice.roll(2)];
      const std::uint64_t count = kind.size / (64 * mib);
      const std::uint64_t from = dice.roll(4096 / count) * count;
      const std::uint64_t to = dice.roll(1024) * count;
      if (!tables.map(
              {memory_begin + from * 64 * mib, memory_begin + to * 64 * mib, kind, Allowed::both}))
        continue;
      for (std::uint64_t n = 0; n < count; ++n) pages[from + n] = Page{to + n, count};
    }
    const Read read = [&](std::uint64_t where, unsigned bytes) {
      return tables.read(where, bytes);
    };
    std::uint64_t found = 0;
    for (unsigned i = 0; i < 20'000; ++i) {
      const std::uint64_t n = dice.roll(4096);
      const std::uint64_t offset = dice.roll(page);
      const auto answer = naive_gaudi2_hmmu::translate(read, tables.root(),
                                                       memory_begin + n * page + offset, stacks);
      ASSERT_EQ(answer.has_value(), pages[n].has_value());
      if (!answer) continue;
      ++found;
      ASSERT_EQ(answer->bus_address, memory_begin + pages[n]->to * page + offset);
      ASSERT_EQ(answer->leaf_size, pages[n]->pages * page);
    }
    EXPECT_GT(found, 5'000U);
  }
}

}  // namespace
}  // namespace accelmm::test
