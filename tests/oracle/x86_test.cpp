// SPDX-License-Identifier: Apache-2.0
// The oracle of x86-64's tables, against words written by hand. Sources: Intel SDM 3A, 4.5.

#include "oracle/naive_map.hpp"
#include "oracle/naive_tree.hpp"
#include "oracle/oracle_fixture.hpp"
#include "oracle/x86_oracle.hpp"

namespace accelmm::test {
namespace {

constexpr std::uint64_t present = 1;
constexpr std::uint64_t writable = 2;
constexpr std::uint64_t user = 4;
constexpr std::uint64_t large = 1 << 7;
constexpr std::uint64_t kib4 = std::uint64_t{1} << 12;
constexpr std::uint64_t mib2 = std::uint64_t{1} << 21;
constexpr std::uint64_t gib1 = std::uint64_t{1} << 30;

std::uint64_t link(std::uint64_t table, unsigned /*level*/) {
  return table | present | writable | user;
}

class X86OracleTest : public OracleTest<X86Oracle>, public testing::WithParamInterface<unsigned> {
 protected:
  void SetUp() override {
    open(GetParam());
    if (oracle_ != nullptr) tree_.emplace(*oracle_, GetParam(), link);
  }
  [[nodiscard]] std::uint64_t root() const { return tree_->root(); }
  std::optional<NaiveTree> tree_;
};
INSTANTIATE_TEST_SUITE_P(Levels, X86OracleTest, testing::Values(4U, 5U),
                         [](const auto& test) { return std::to_string(test.param); });

TEST_P(X86OracleTest, TranslatesGoldenWordsOfEachLeafSize) {
  tree_->store(tree_->word(0x4020'1000, 0), 0x0000'0012'3456'7007);
  tree_->store(tree_->word(0x4040'0000, 1), 0x0000'0012'3460'0087);
  tree_->store(tree_->word(0x8000'0000, 2), 0x0000'0AB0'0000'0087);
  const std::vector<Expectation> expected{
      {0x4020'1abc, OracleAnswer{0x12'3456'7abc, kib4}},
      {0x4041'2345, OracleAnswer{0x12'3461'2345, mib2}},
      {0x8123'4567, OracleAnswer{0xAB0'0123'4567, gib1}},
      {0x4020'0abc, std::nullopt},
      {0xC000'0000, std::nullopt},
  };
  EXPECT_TRUE(compare(*oracle_, root(), expected));
  EXPECT_TRUE(compare(*oracle_, root(), expected, Access::write));
}

TEST_P(X86OracleTest, TellsALargeLeafAloneFromAHugeOne) {
  tree_->store(tree_->word(0x4000'0000, 1), 0x0000'0012'4000'0087);
  tree_->store(tree_->word(0x8000'0000, 1), 0x0000'0012'4000'0087);
  tree_->store(tree_->word(0x8020'0000, 1), 0x0000'0012'4020'0087);
  const std::vector<Expectation> expected{{0x4000'0000, OracleAnswer{0x12'4000'0000, mib2}},
                                          {0x8000'0000, OracleAnswer{0x12'4000'0000, mib2}},
                                          {0x8030'0000, OracleAnswer{0x12'4030'0000, mib2}},
                                          {0x4020'0000, std::nullopt}};
  EXPECT_TRUE(compare(*oracle_, root(), expected));
}

TEST_P(X86OracleTest, AddressesThatAreNotSignExtendedFault) {
  const std::uint64_t top = std::uint64_t{1} << (GetParam() == 4 ? 47 : 56);
  tree_->store(tree_->word(top, 0), 0x0000'0012'3456'7007);
  const std::uint64_t extended = 0 - top;
  const std::vector<Expectation> expected{{extended, OracleAnswer{0x12'3456'7000, kib4}},
                                          {top, std::nullopt},
                                          {extended - 1, std::nullopt}};
  EXPECT_TRUE(compare(*oracle_, root(), expected));
  EXPECT_TRUE(compare(*oracle_, root(), expected, Access::read_write));
}

TEST_P(X86OracleTest, WritingNeedsPermissionOnEachLevel) {
  const std::uint64_t leaf = tree_->word(0x4020'1000, 0);
  tree_->store(leaf, 0x0000'0012'3456'7005);
  const std::vector<Expectation> readable{{0x4020'1abc, OracleAnswer{0x12'3456'7abc, kib4}}};
  const std::vector<Expectation> fault{{0x4020'1abc, std::nullopt}};
  EXPECT_TRUE(compare(*oracle_, root(), readable));
  EXPECT_TRUE(compare(*oracle_, root(), fault, Access::write));
  tree_->store(leaf, 0x0000'0012'3456'7007);
  EXPECT_TRUE(compare(*oracle_, root(), readable, Access::write));
  for (unsigned level = 1; level < GetParam(); ++level) {
    const std::uint64_t above = tree_->word(0x4020'1000, level);
    tree_->store(above, tree_->load(above) & ~writable);
    EXPECT_TRUE(compare(*oracle_, root(), readable)) << level;
    EXPECT_TRUE(compare(*oracle_, root(), fault, Access::write)) << level;
    tree_->store(above, tree_->load(above) | writable);
  }
}

TEST_P(X86OracleTest, AWrongBitAnywhereChangesTheAnswer) {
  const std::uint64_t small = 0x4020'1000;
  const std::uint64_t middle = 0x4040'0000;
  const std::uint64_t huge = 0x8000'0000;
  tree_->store(tree_->word(small, 0), 0x0000'0012'3456'7007);
  tree_->store(tree_->word(middle, 1), 0x0000'0012'3460'0087);
  tree_->store(tree_->word(huge, 2), 0x0000'0AB0'0000'0087);
  const std::vector<unsigned> of_small{0, 1, 12, 21, 30, 51};
  const std::vector<unsigned> of_middle{0, 1, 7, 21, 30, 51};
  const std::vector<unsigned> of_huge{0, 1, 7, 30, 51};
  for (const unsigned bit : of_small)
    EXPECT_TRUE(notices(*tree_, tree_->word(small, 0), bit, small));
  for (const unsigned bit : of_middle)
    EXPECT_TRUE(notices(*tree_, tree_->word(middle, 1), bit, middle));
  for (const unsigned bit : of_huge) EXPECT_TRUE(notices(*tree_, tree_->word(huge, 2), bit, huge));
  for (unsigned level = 1; level < GetParam(); ++level) {
    for (const unsigned bit : {0U, 1U, 12U, 13U, 40U, 51U})
      EXPECT_TRUE(notices(*tree_, tree_->word(small, level), bit, small)) << "level " << level;
  }
  for (const unsigned level : {1U, 2U})
    EXPECT_TRUE(notices(*tree_, tree_->word(small, level), 7, small)) << "level " << level;
}

TEST_P(X86OracleTest, AgreesWithANaiveWriterOnRandomAddresses) {
  Dice dice("oracle/x86");
  const RandomLeaves kind{.address_bits = GetParam() == 4 ? 48U : 57U,
                          .sign_extended = true,
                          .bus_bits = 52,
                          .sizes = {kib4, kib4, mib2, gib1}};
  const NaiveMap map = map_at_random(kind, dice, 300, [&](const NaiveMap::Leaf& leaf) {
    const unsigned level = leaf.size == kib4 ? 0 : leaf.size == mib2 ? 1 : 2;
    tree_->store(tree_->word(leaf.address, level),
                 leaf.bus_address | present | user | (level == 0 ? 0 : large) |
                     (allows(leaf.access, Access::write) ? writable : 0));
  });
  const std::uint64_t count = translations(1000);
  for (const Access wanted : {Access::read, Access::write}) {
    const Speed speed("oracle/x86");
    EXPECT_TRUE(compare(*oracle_, root(), ask_at_random(map, kind, dice, count, wanted), wanted));
    speed.print(count);
  }
}

}  // namespace
}  // namespace accelmm::test
