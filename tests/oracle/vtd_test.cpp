// SPDX-License-Identifier: Apache-2.0
// The oracle of VT-d's second-stage tables, against words written by hand. Source: Intel VT-d
// specification, revision 3, 9.8 "Second-Stage Paging Entries".

#include "oracle/naive_map.hpp"
#include "oracle/naive_tree.hpp"
#include "oracle/oracle_fixture.hpp"
#include "oracle/vtd_oracle.hpp"

namespace accelmm::test {
namespace {

constexpr std::uint64_t readable = 1;
constexpr std::uint64_t writable = 2;
constexpr std::uint64_t large = 1 << 7;
constexpr std::uint64_t kib4 = std::uint64_t{1} << 12;
constexpr std::uint64_t mib2 = std::uint64_t{1} << 21;
constexpr std::uint64_t gib1 = std::uint64_t{1} << 30;

std::uint64_t link(std::uint64_t table, unsigned /*level*/) {
  return table | readable | writable;
}

class VtdOracleTest : public OracleTest<VtdOracle>, public testing::WithParamInterface<unsigned> {
 protected:
  void SetUp() override {
    open(GetParam());
    if (oracle_ != nullptr) tree_.emplace(*oracle_, GetParam(), link);
  }
  [[nodiscard]] std::uint64_t root() const { return tree_->root(); }
  std::optional<NaiveTree> tree_;
};
INSTANTIATE_TEST_SUITE_P(Levels, VtdOracleTest, testing::Values(3U, 4U),
                         [](const auto& test) { return std::to_string(test.param); });

TEST_P(VtdOracleTest, TranslatesGoldenWordsOfEachLeafSize) {
  tree_->store(tree_->word(0x4020'1000, 0), 0x0000'0012'3456'7003);
  tree_->store(tree_->word(0x4040'0000, 1), 0x0000'0012'3460'0083);
  tree_->store(tree_->word(0x8000'0000, 2), 0x0000'0AB0'0000'0083);
  const std::vector<Expectation> expected{
      {0x4020'1abc, OracleAnswer{0x12'3456'7abc, kib4}},
      {0x4041'2345, OracleAnswer{0x12'3461'2345, mib2}},
      {0x8123'4567, OracleAnswer{0xAB0'0123'4567, gib1}},
      {0x4020'0abc, std::nullopt},
      {0xC000'0000, std::nullopt},
      {std::uint64_t{1} << (12 + 9 * GetParam()), std::nullopt},
  };
  for (const Access wanted : {Access::read, Access::write, Access::read_write})
    EXPECT_TRUE(compare(*oracle_, root(), expected, wanted));
}

TEST_P(VtdOracleTest, TranslatesToMemoryThatTheTablesLieIn) {
  const std::uint64_t leaf = tree_->word(0x4020'1000, 0);
  tree_->store(leaf, root() | readable | writable);
  const std::vector<Expectation> expected{{0x4020'1008, OracleAnswer{root() + 8, kib4}}};
  const auto tables = oracle_->memory().first(1 << 20);
  const std::vector<std::byte> before(tables.begin(), tables.end());
  EXPECT_TRUE(compare(*oracle_, root(), expected, Access::read_write));
  EXPECT_TRUE(std::ranges::equal(before, tables)) << "a DMA wrote into the tables";
}

TEST_P(VtdOracleTest, EachAccessNeedsItsPermissionOnEachLevel) {
  for (unsigned level = 0; level < GetParam(); ++level) {
    const std::uint64_t leaf = tree_->word(0x4020'1000, 0);
    tree_->store(leaf, 0x0000'0012'3456'7003);
    const std::vector<Expectation> mapped{{0x4020'1abc, OracleAnswer{0x12'3456'7abc, kib4}}};
    const std::vector<Expectation> fault{{0x4020'1abc, std::nullopt}};
    const std::uint64_t word = tree_->word(0x4020'1000, level);
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

TEST_P(VtdOracleTest, AWrongBitAnywhereChangesTheAnswer) {
  const std::uint64_t small = 0x4020'1000;
  const std::uint64_t middle = 0x4040'0000;
  const std::uint64_t huge = 0x8000'0000;
  tree_->store(tree_->word(small, 0), 0x0000'0012'3456'7003);
  tree_->store(tree_->word(middle, 1), 0x0000'0012'3460'0083);
  tree_->store(tree_->word(huge, 2), 0x0000'0AB0'0000'0083);
  for (const unsigned bit : {0U, 1U, 12U, 21U, 30U, 47U, 51U})
    EXPECT_TRUE(notices(*tree_, tree_->word(small, 0), bit, small));
  for (const unsigned bit : {0U, 1U, 7U, 12U, 20U, 21U, 30U, 47U})
    EXPECT_TRUE(notices(*tree_, tree_->word(middle, 1), bit, middle));
  for (const unsigned bit : {0U, 1U, 7U, 12U, 29U, 30U, 47U})
    EXPECT_TRUE(notices(*tree_, tree_->word(huge, 2), bit, huge));
  for (unsigned level = 1; level < GetParam(); ++level)
    for (const unsigned bit : {0U, 1U, 7U, 12U, 13U, 40U, 47U})
      EXPECT_TRUE(notices(*tree_, tree_->word(small, level), bit, small)) << "level " << level;
}

TEST_P(VtdOracleTest, AgreesWithANaiveWriterOnRandomAddresses) {
  Dice dice("oracle/vtd");
  const RandomLeaves kind{.address_bits = 12 + 9 * GetParam(),
                          .sign_extended = false,
                          .bus_bits = 48,
                          .sizes = {kib4, kib4, mib2, gib1},
                          .accesses = {Access::read, Access::write, Access::read_write}};
  const NaiveMap map = map_at_random(kind, dice, 300, [&](const NaiveMap::Leaf& leaf) {
    const unsigned level = leaf.size == kib4 ? 0 : leaf.size == mib2 ? 1 : 2;
    tree_->store(tree_->word(leaf.address, level),
                 leaf.bus_address | (level == 0 ? 0 : large) |
                     (allows(leaf.access, Access::read) ? readable : 0) |
                     (allows(leaf.access, Access::write) ? writable : 0));
  });
  const std::uint64_t count = translations(1000);
  for (const Access wanted : {Access::read, Access::write}) {
    const Speed speed("oracle/vtd");
    EXPECT_TRUE(compare(*oracle_, root(), ask_at_random(map, kind, dice, count, wanted), wanted));
    speed.print(count);
  }
}

TEST(VtdOracle, HasNoFiveLevels) {
  const auto created = VtdOracle::create({.levels = 5});
  ASSERT_FALSE(created);
  EXPECT_EQ(Errc::not_supported, created.error().code);
}

}  // namespace
}  // namespace accelmm::test
