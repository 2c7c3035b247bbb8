// SPDX-License-Identifier: Apache-2.0
// The oracle of RISC-V's tables, against words written by hand. Sources: RISC-V Privileged
// Architecture, chapters "Sv39", "Sv48", "Sv57" and "Svnapot".

#include "oracle/naive_map.hpp"
#include "oracle/naive_tree.hpp"
#include "oracle/oracle_fixture.hpp"
#include "oracle/riscv_oracle.hpp"

namespace accelmm::test {
namespace {

constexpr std::uint64_t valid = 1;
constexpr std::uint64_t readable = 2;
constexpr std::uint64_t writable = 4;
constexpr std::uint64_t user = 16;
constexpr std::uint64_t accessed = 1 << 6;
constexpr std::uint64_t dirty = 1 << 7;
constexpr std::uint64_t napot = std::uint64_t{1} << 63;
constexpr std::uint64_t kib4 = std::uint64_t{1} << 12;
constexpr std::uint64_t kib64 = std::uint64_t{1} << 16;
constexpr std::uint64_t mib2 = std::uint64_t{1} << 21;
constexpr std::uint64_t gib1 = std::uint64_t{1} << 30;
constexpr std::uint64_t gib512 = std::uint64_t{1} << 39;

std::uint64_t link(std::uint64_t table, unsigned /*level*/) {
  return table >> 12 << 10 | valid;
}

class RiscvOracleTest : public OracleTest<RiscvOracle>,
                        public testing::WithParamInterface<unsigned> {
 protected:
  void SetUp() override {
    open(GetParam());
    if (oracle_ != nullptr) tree_.emplace(*oracle_, GetParam(), link);
  }
  [[nodiscard]] std::uint64_t root() const { return tree_->root(); }
  void write_napot(std::uint64_t address, std::uint64_t word) {
    for (std::uint64_t part = 0; part < kib64; part += kib4)
      tree_->store(tree_->word(address + part, 0), word);
  }
  std::optional<NaiveTree> tree_;
};
INSTANTIATE_TEST_SUITE_P(Levels, RiscvOracleTest, testing::Values(3U, 4U, 5U),
                         [](const auto& test) { return std::to_string(test.param); });

TEST_P(RiscvOracleTest, TranslatesGoldenWordsOfEachLeafSize) {
  tree_->store(tree_->word(0x4020'1000, 0), 0x0000'0004'8D15'9CD7);  // D A U W R V, page 0x1234567
  tree_->store(tree_->word(0x4040'0000, 1), 0x0000'0004'8D18'00D7);
  tree_->store(tree_->word(0x8000'0000, 2), 0x0000'02AC'0000'00D7);
  write_napot(0x4021'0000, 0x8000'0004'8D1A'20D7);  // N: pages 0x1234680 to 8F
  const std::vector<Expectation> expected{
      {0x4020'1abc, OracleAnswer{0x12'3456'7abc, 0}},
      {0x4041'2345, OracleAnswer{0x12'3461'2345, 0}},
      {0x8123'4567, OracleAnswer{0xAB0'0123'4567, 0}},
      {0x4021'5abc, OracleAnswer{0x12'3468'5abc, 0}},
      {0x4020'0abc, std::nullopt},
      {0xC000'0000, std::nullopt},
  };
  EXPECT_TRUE(compare(*oracle_, root(), expected));
  EXPECT_TRUE(compare(*oracle_, root(), expected, Access::write));
}

TEST_P(RiscvOracleTest, AddressesThatAreNotSignExtendedFault) {
  const std::uint64_t top = std::uint64_t{1} << (11 + 9 * GetParam());
  tree_->store(tree_->word(top, 0), 0x0000'0004'8D15'9CD7);
  const std::uint64_t extended = 0 - top;
  const std::vector<Expectation> expected{{extended, OracleAnswer{0x12'3456'7000, 0}},
                                          {top, std::nullopt},
                                          {extended - 1, std::nullopt}};
  EXPECT_TRUE(compare(*oracle_, root(), expected));
  EXPECT_TRUE(compare(*oracle_, root(), expected, Access::read_write));
}

TEST_P(RiscvOracleTest, AWrongBitAnywhereChangesTheAnswer) {
  const std::uint64_t small = 0x4020'1000;
  const std::uint64_t group = 0x4021'5000;
  const std::uint64_t middle = 0x4040'0000;
  const std::uint64_t huge = 0x8000'0000;
  tree_->store(tree_->word(small, 0), 0x0000'0004'8D15'9CD7);
  write_napot(0x4021'0000, 0x8000'0004'8D1A'20D7);
  tree_->store(tree_->word(middle, 1), 0x0000'0004'8D18'00D7);
  tree_->store(tree_->word(huge, 2), 0x0000'02AC'0000'00D7);
  // V, R, W, U, bits of the page number, PBMT, N
  for (const unsigned bit : {0U, 1U, 2U, 4U, 10U, 20U, 53U, 61U, 62U, 63U})
    EXPECT_TRUE(notices(*tree_, tree_->word(small, 0), bit, small));
  for (const unsigned bit : {0U, 1U, 2U, 4U, 13U, 14U, 53U, 63U})
    EXPECT_TRUE(notices(*tree_, tree_->word(group, 0), bit, group));
  for (const unsigned bit : {0U, 1U, 2U, 4U, 10U, 19U, 53U})
    EXPECT_TRUE(notices(*tree_, tree_->word(middle, 1), bit, middle));
  for (const unsigned bit : {0U, 1U, 2U, 4U, 10U, 28U, 53U})
    EXPECT_TRUE(notices(*tree_, tree_->word(huge, 2), bit, huge));
  for (unsigned level = 1; level < GetParam(); ++level)
    for (const unsigned bit : {0U, 1U, 10U, 11U, 40U, 53U})
      EXPECT_TRUE(notices(*tree_, tree_->word(small, level), bit, small)) << "level " << level;
}

TEST_P(RiscvOracleTest, AgreesWithANaiveWriterOnRandomAddresses) {
  Dice dice("oracle/riscv");
  RandomLeaves kind{.address_bits = 12 + 9 * GetParam(),
                    .sign_extended = true,
                    .bus_bits = 56,
                    .sizes = {kib4, kib4, kib64, mib2, gib1}};
  if (GetParam() > 3) kind.sizes.push_back(gib512);
  const NaiveMap map = map_at_random(kind, dice, 300, [&](const NaiveMap::Leaf& leaf) {
    const std::uint64_t bits = valid | readable | user | accessed | dirty |
                               (allows(leaf.access, Access::write) ? writable : 0);
    const std::uint64_t word = leaf.bus_address >> 12 << 10 | bits;
    if (leaf.size == kib64) {
      constexpr std::uint64_t eighth_page = 8 << 10;
      write_napot(leaf.address, napot | word | eighth_page);
      return;
    }
    unsigned level = 0;
    while (kib4 << 9 * level < leaf.size) ++level;
    tree_->store(tree_->word(leaf.address, level), word);
  });
  const std::uint64_t count = translations(1000);
  for (const Access wanted : {Access::read, Access::write}) {
    const Speed speed("oracle/riscv");
    EXPECT_TRUE(compare(*oracle_, root(), ask_at_random(map, kind, dice, count, wanted), wanted));
    speed.print(count);
  }
}

TEST_P(RiscvOracleTest, OnlyASupervisorUsesPagesWithoutU) {
  const auto created = RiscvOracle::create({.levels = GetParam(),
                                            .privilege = RiscvPrivilege::supervisor,
                                            .memory = ByteCount(16 << 20)});
  ASSERT_TRUE(created) << created.error().what;
  const std::uint64_t leaf = tree_->word(0x4020'1000, 0);
  const std::vector<Expectation> mapped{{0x4020'1abc, OracleAnswer{0x12'3456'7abc, 0}}};
  const std::vector<Expectation> fault{{0x4020'1abc, std::nullopt}};
  for (const std::uint64_t word : {0x0000'0004'8D15'9CD7ULL, 0x0000'0004'8D15'9CC7ULL}) {
    tree_->store(leaf, word);
    std::ranges::copy(oracle_->memory().first(1 << 20), (*created)->memory().begin());
    EXPECT_TRUE(compare(**created, root(), mapped, Access::read_write));
    EXPECT_TRUE(compare(*oracle_, root(), (word & user) != 0 ? mapped : fault));
  }
}

}  // namespace
}  // namespace accelmm::test
