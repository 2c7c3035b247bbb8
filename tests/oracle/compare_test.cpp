// SPDX-License-Identifier: Apache-2.0
// What the comparison itself notices, with an oracle that says what it is told to.

#include "oracle/compare.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace accelmm::test {
namespace {

class ScriptedOracle final : public Oracle {
 public:
  explicit ScriptedOracle(Result<std::vector<std::optional<OracleAnswer>>> answers)
      : answers_(std::move(answers)) {}
  std::span<std::byte> memory() override { return {}; }
  std::uint64_t base() const override { return 0; }
  Result<std::vector<std::optional<OracleAnswer>>> translate(std::uint64_t /*root*/,
                                                             std::span<const std::uint64_t> asked,
                                                             Access wanted) override {
    asked_.assign(asked.begin(), asked.end());
    wanted_ = wanted;
    return answers_;
  }

  std::vector<std::uint64_t> asked_;
  Access wanted_ = Access::read;

 private:
  Result<std::vector<std::optional<OracleAnswer>>> answers_;
};

using Answers = std::vector<std::optional<OracleAnswer>>;

testing::AssertionResult compare_one(const std::optional<OracleAnswer>& expected,
                                     const std::optional<OracleAnswer>& answer) {
  ScriptedOracle oracle{Answers{answer}};
  const Expectation expectation{0x1000, expected};
  return compare(oracle, 0, std::span(&expectation, 1));
}

TEST(Compare, AgreesWithTheSameAnswersOnly) {
  const OracleAnswer answer{0x5000, 0x1000};
  EXPECT_TRUE(compare_one(answer, answer));
  EXPECT_TRUE(compare_one(std::nullopt, std::nullopt));
  EXPECT_FALSE(compare_one(answer, OracleAnswer{0x5001, 0x1000}));
  EXPECT_FALSE(compare_one(answer, OracleAnswer{0x5000, 0x2000}));
  EXPECT_FALSE(compare_one(answer, std::nullopt));
  EXPECT_FALSE(compare_one(std::nullopt, answer));
}

TEST(Compare, ASizeThatNobodyKnowsFitsAny) {
  EXPECT_TRUE(compare_one(OracleAnswer{0x5000, 0}, OracleAnswer{0x5000, 0x1000}));
  EXPECT_TRUE(compare_one(OracleAnswer{0x5000, 0x1000}, OracleAnswer{0x5000, 0}));
  EXPECT_FALSE(compare_one(OracleAnswer{0x5000, 0}, OracleAnswer{0x6000, 0}));
}

TEST(Compare, AsksForEachAddressAndTheAccess) {
  ScriptedOracle oracle{Answers(2)};
  const std::vector<Expectation> expected{{0x1000, std::nullopt}, {0x3000, std::nullopt}};
  EXPECT_TRUE(compare(oracle, 0, expected, Access::write));
  EXPECT_EQ((std::vector<std::uint64_t>{0x1000, 0x3000}), oracle.asked_);
  EXPECT_EQ(Access::write, oracle.wanted_);
}

TEST(Compare, AnErrorOrAMissingAnswerIsAMismatch) {
  const Expectation expectation{0x1000, std::nullopt};
  ScriptedOracle broken{fail(Errc::io_error, "it has gone")};
  const auto failed = compare(broken, 0, std::span(&expectation, 1));
  EXPECT_FALSE(failed);
  EXPECT_NE(std::string::npos, std::string(failed.message()).find("it has gone"));
  ScriptedOracle silent{Answers{}};
  EXPECT_FALSE(compare(silent, 0, std::span(&expectation, 1)));
}

TEST(Compare, ListsTheFirstMismatchesAndCountsAll) {
  ScriptedOracle oracle{Answers(100)};
  std::vector<Expectation> expected;
  for (std::uint64_t page = 0; page < 100; ++page)
    expected.push_back({page << 12, OracleAnswer{0x5000, 0x1000}});
  const auto result = compare(oracle, 0, expected);
  const std::string message = result.message();
  EXPECT_NE(std::string::npos, message.find("100 of 100"));
  EXPECT_NE(std::string::npos,
            message.find("0x7000: expected 0x5000 in a leaf of 0x1000, the oracle says a fault"));
  EXPECT_EQ(std::string::npos, message.find("0x8000:"));
}

}  // namespace
}  // namespace accelmm::test
