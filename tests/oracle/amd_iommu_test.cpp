// SPDX-License-Identifier: Apache-2.0
// The oracle of the AMD IOMMU's tables, against words written by hand. Source: AMD IOMMU
// specification, revision 3.07, 2.2.3 "I/O Page Tables for Host Translations".

#include "oracle/amd_iommu_oracle.hpp"
#include "oracle/naive_map.hpp"
#include "oracle/naive_tree.hpp"
#include "oracle/oracle_fixture.hpp"

namespace accelmm::test {
namespace {

constexpr std::uint64_t present = 1;
constexpr std::uint64_t readable = std::uint64_t{1} << 61;
constexpr std::uint64_t writable = std::uint64_t{1} << 62;
constexpr std::uint64_t sized = 7 << 9;  // the size is in the address
constexpr unsigned readable_bit = 61;
constexpr unsigned writable_bit = 62;
constexpr std::uint64_t kib4 = std::uint64_t{1} << 12;
constexpr std::uint64_t kib8 = std::uint64_t{1} << 13;
constexpr std::uint64_t kib64 = std::uint64_t{1} << 16;
constexpr std::uint64_t mib2 = std::uint64_t{1} << 21;
constexpr std::uint64_t mib32 = std::uint64_t{1} << 25;
constexpr std::uint64_t gib1 = std::uint64_t{1} << 30;
constexpr std::uint64_t gib8 = std::uint64_t{1} << 33;

// A word at `level` (from 0) says the number of the level below, counted from 1.
std::uint64_t link(std::uint64_t table, unsigned level) {
  return table | std::uint64_t{level} << 9 | readable | writable | present;
}

// Which level has leaves of that size: of its own, or of up to 256 of its own.
unsigned level_of(std::uint64_t size) {
  unsigned level = 0;
  while (size >= kib4 << 9 * (level + 1)) ++level;
  return level;
}

class AmdIommuOracleTest : public OracleTest<AmdIommuOracle>,
                           public testing::WithParamInterface<unsigned> {
 protected:
  void SetUp() override {
    open(GetParam());
    if (oracle_ != nullptr) tree_.emplace(*oracle_, GetParam(), link);
  }
  [[nodiscard]] std::uint64_t root() const { return tree_->root(); }
  [[nodiscard]] static std::uint64_t end() { return std::uint64_t{1} << (12 + 9 * GetParam()); }
  // The same word in each entry that the leaf covers.
  void write_leaf(std::uint64_t address, std::uint64_t size, std::uint64_t word) {
    const unsigned level = level_of(size);
    for (std::uint64_t part = 0; part < size; part += kib4 << 9 * level)
      tree_->store(tree_->word(address + part, level), word);
  }
  std::optional<NaiveTree> tree_;
};
INSTANTIATE_TEST_SUITE_P(Levels, AmdIommuOracleTest, testing::Values(3U, 4U, 5U),
                         [](const auto& test) { return std::to_string(test.param); });

TEST_P(AmdIommuOracleTest, TranslatesGoldenWordsOfEachLeafSize) {
  write_leaf(0x4020'1000, kib4, 0x6000'0012'3456'7001);
  write_leaf(0x4020'2000, kib8, 0x6000'0012'3456'8E01);
  write_leaf(0x4021'0000, kib64, 0x6000'0012'3457'7E01);
  write_leaf(0x4040'0000, mib2, 0x6000'0012'3460'0001);
  write_leaf(0x5000'0000, mib32, 0x6000'0012'40FF'FE01);
  write_leaf(0x8000'0000, gib1, 0x6000'0AB0'0000'0001);
  write_leaf(0x4'0000'0000, gib8, 0x6000'0AB0'FFFF'FE01);
  const std::vector<Expectation> expected{
      {0x4020'1abc, OracleAnswer{0x12'3456'7abc, kib4}},
      {0x4020'3abc, OracleAnswer{0x12'3456'9abc, kib8}},
      {0x4021'5abc, OracleAnswer{0x12'3457'5abc, kib64}},
      {0x4041'2345, OracleAnswer{0x12'3461'2345, mib2}},
      {0x5123'4567, OracleAnswer{0x12'4123'4567, mib32}},
      {0x8123'4567, OracleAnswer{0xAB0'0123'4567, gib1}},
      {0x5'2123'4567, OracleAnswer{0xAB1'2123'4567, gib8}},
      {0x4020'0abc, std::nullopt},
      {0xC000'0000, std::nullopt},
      {end(), std::nullopt},
  };
  for (const Access wanted : {Access::read, Access::write, Access::read_write})
    EXPECT_TRUE(compare(*oracle_, root(), expected, wanted));
}

TEST_P(AmdIommuOracleTest, TranslatesToMemoryThatTheTablesLieIn) {
  write_leaf(0x4020'1000, kib4, root() | readable | writable | present);
  write_leaf(0x4040'0000, mib2, mib2 | readable | writable | present);
  write_leaf(0x4060'0000, mib2, mib2 | readable | writable | present);
  const std::vector<Expectation> expected{
      {0x4020'1008, OracleAnswer{root() + 8, kib4}},
      {0x4040'0000, OracleAnswer{mib2, mib2}},
      {0x407F'FFFF, OracleAnswer{2 * mib2 - 1, mib2}},
  };
  const auto tables = oracle_->memory().first(1 << 20);
  const std::vector<std::byte> before(tables.begin(), tables.end());
  EXPECT_TRUE(compare(*oracle_, root(), expected, Access::read_write));
  EXPECT_TRUE(std::ranges::equal(before, tables)) << "a DMA wrote into the tables";
}

TEST_P(AmdIommuOracleTest, TellsOneLargeLeafFromManySmallOnesSideBySide) {
  const std::uint64_t rights = readable | writable | present;
  write_leaf(0x4040'0000, mib2, 0x12'3460'0000 | rights);
  for (std::uint64_t part = 0; part < mib2; part += kib4)
    write_leaf(0x4060'0000 + part, kib4, (0x12'3460'0000 + part) | rights);
  for (std::uint64_t part = 0; part < kib64; part += kib4)
    write_leaf(0x4080'0000 + part, kib4, 0x12'3460'0000 | rights);
  const std::vector<Expectation> expected{
      {0x4040'0000, OracleAnswer{0x12'3460'0000, mib2}},
      {0x4050'0123, OracleAnswer{0x12'3470'0123, mib2}},
      {0x4060'0000, OracleAnswer{0x12'3460'0000, kib4}},
      {0x4070'0123, OracleAnswer{0x12'3470'0123, kib4}},
      {0x4080'0000, OracleAnswer{0x12'3460'0000, kib4}},
      {0x4080'4123, OracleAnswer{0x12'3460'0123, kib4}},
  };
  EXPECT_TRUE(compare(*oracle_, root(), expected));
  EXPECT_TRUE(compare(*oracle_, root(), expected, Access::write));
}

TEST_P(AmdIommuOracleTest, EachAccessNeedsItsPermissionOnEachLevel) {
  const std::uint64_t address = 0x4020'1000;  // mapped to itself: refusal must not look the same
  for (unsigned level = 0; level < GetParam(); ++level) {
    write_leaf(address, kib4, address | readable | writable | present);
    const std::vector<Expectation> mapped{{address + 0xabc, OracleAnswer{address + 0xabc, kib4}}};
    const std::vector<Expectation> fault{{address + 0xabc, std::nullopt}};
    const std::uint64_t word = tree_->word(address, level);
    const std::uint64_t right = tree_->load(word);
    tree_->store(word, right & ~writable);
    EXPECT_TRUE(compare(*oracle_, root(), mapped, Access::read)) << level;
    EXPECT_TRUE(compare(*oracle_, root(), fault, Access::write)) << level;
    EXPECT_TRUE(compare(*oracle_, root(), fault, Access::read_write)) << level;
    tree_->store(word, right & ~readable);
    EXPECT_TRUE(compare(*oracle_, root(), fault, Access::read)) << level;
    EXPECT_TRUE(compare(*oracle_, root(), mapped, Access::write)) << level;
    tree_->store(word, right);
  }
}

TEST_P(AmdIommuOracleTest, AWrongBitAnywhereChangesTheAnswer) {
  // Another index on each level: QEMU does not mind a table that links itself, and goes round.
  const std::uint64_t small = 0x2'80A0'7000 + (GetParam() > 3 ? 0x6'0180'0000'0000 : 0) % end();
  const std::uint64_t group = small + 0x1'E000;
  const std::uint64_t middle = small + 0xFF'9000;
  const std::uint64_t huge = small + 0xFF5F'9000;
  write_leaf(small, kib4, 0x6000'0012'3456'7001);
  write_leaf(group / kib64 * kib64, kib64, 0x6000'0012'3457'7E01);
  write_leaf(middle, mib2, 0x6000'0012'3460'0001);
  write_leaf(huge, gib1, 0x6000'0AB0'0000'0001);
  for (const unsigned bit : {9U, 10U, 11U, 12U, 21U, 30U, 51U, readable_bit, writable_bit})
    EXPECT_TRUE(notices(*tree_, tree_->word(small, 0), bit, small));
  for (const unsigned bit : {9U, 12U, 13U, 15U, 16U, 51U, readable_bit, writable_bit})
    EXPECT_TRUE(notices(*tree_, tree_->word(group, 0), bit, group));
  for (const unsigned bit : {9U, 21U, 30U, 51U, readable_bit, writable_bit})
    EXPECT_TRUE(notices(*tree_, tree_->word(middle, 1), bit, middle));
  for (const unsigned bit : {9U, 30U, 51U, readable_bit, writable_bit})
    EXPECT_TRUE(notices(*tree_, tree_->word(huge, 2), bit, huge));
  for (unsigned level = 1; level < GetParam(); ++level)
    for (const unsigned bit : {0U, 9U, 10U, 12U, 13U, 40U, 51U, readable_bit, writable_bit})
      EXPECT_TRUE(notices(*tree_, tree_->word(small, level), bit, small)) << "level " << level;
}

TEST_P(AmdIommuOracleTest, DoesNotSeeThatALeafIsNotPresent) {
  write_leaf(0x4020'1000, kib4, 0x6000'0012'3456'7000);
  const std::vector<Expectation> expected{{0x4020'1abc, OracleAnswer{0x12'3456'7abc, kib4}}};
  EXPECT_TRUE(compare(*oracle_, root(), expected)) << "QEMU has learned it: say so in the docs";
}

TEST_P(AmdIommuOracleTest, AgreesWithANaiveWriterOnRandomAddresses) {
  Dice dice("oracle/amd_iommu");
  const RandomLeaves kind{.address_bits = 12 + 9 * GetParam(),
                          .sign_extended = false,
                          .bus_bits = 52,
                          .sizes = {kib4, kib4, kib8, kib64, kib64, mib2, mib32, gib1, gib8},
                          .accesses = {Access::read, Access::write, Access::read_write}};
  const NaiveMap map = map_at_random(kind, dice, 300, [&](const NaiveMap::Leaf& leaf) {
    const std::uint64_t own = kib4 << 9 * level_of(leaf.size);
    const std::uint64_t size_bits = leaf.size == own ? 0 : (leaf.size / 2 - kib4) | sized;
    write_leaf(leaf.address, leaf.size,
               leaf.bus_address | size_bits | present |
                   (allows(leaf.access, Access::read) ? readable : 0) |
                   (allows(leaf.access, Access::write) ? writable : 0));
  });
  const std::uint64_t count = translations(1000);
  for (const Access wanted : {Access::read, Access::write}) {
    const Speed speed("oracle/amd_iommu");
    EXPECT_TRUE(compare(*oracle_, root(), ask_at_random(map, kind, dice, count, wanted), wanted));
    speed.print(count);
  }
}

}  // namespace
}  // namespace accelmm::test
