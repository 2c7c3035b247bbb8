// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "oracle/compare.hpp"
#include "oracle/naive_tree.hpp"
#include "oracle/oracle.hpp"

#include <accelmm/access.hpp>

#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

namespace accelmm::test {

/// A test that finds all tables zero, skipped where QEMU is not installed.
///
/// The tests of a suite share the oracle for each number of levels: starting QEMU takes longer than
/// a test.
template <class AnOracle>
class OracleTest : public testing::Test {
 protected:
  static void TearDownTestSuite() { oracles().clear(); }

  void open(unsigned levels) {
    auto& oracle = oracles()[levels];
    if (oracle == nullptr) {
      auto created = AnOracle::create({.levels = levels, .memory = ByteCount(16 << 20)});
      if (!created && created.error().code == Errc::no_entry) GTEST_SKIP() << created.error().what;
      ASSERT_TRUE(created) << created.error().what;
      oracle = std::move(*created);
    }
    oracle_ = oracle.get();
    std::memset(oracle_->memory().data(), 0, oracle_->memory().size());
  }

  /// What reading and writing at an address find.
  [[nodiscard]] std::vector<std::optional<OracleAnswer>> ask(std::uint64_t root,
                                                             std::uint64_t address) {
    std::vector<std::optional<OracleAnswer>> answers;
    for (const Access wanted : {Access::read, Access::write}) {
      const auto answer = oracle_->translate(root, std::span(&address, 1), wanted);
      if (!answer) {
        ADD_FAILURE() << answer.error().what;
        return {};
      }
      answers.push_back(answer->front());
    }
    return answers;
  }

  /// Tells whether the answers change with a bit of the word, and come back with it.
  [[nodiscard]] testing::AssertionResult notices(NaiveTree& tree, std::uint64_t word, unsigned bit,
                                                 std::uint64_t address) {
    const auto right = ask(tree.root(), address);
    tree.store(word, tree.load(word) ^ std::uint64_t{1} << bit);
    const auto wrong = ask(tree.root(), address);
    tree.store(word, tree.load(word) ^ std::uint64_t{1} << bit);
    if (ask(tree.root(), address) != right)
      return testing::AssertionFailure() << "the right answer does not come back";
    if (right == wrong)
      return testing::AssertionFailure() << "bit " << bit << " of the word makes no difference";
    return testing::AssertionSuccess();
  }

  AnOracle* oracle_ = nullptr;

 private:
  static std::map<unsigned, std::unique_ptr<AnOracle>>& oracles() {
    static std::map<unsigned, std::unique_ptr<AnOracle>> all;
    return all;
  }
};

}  // namespace accelmm::test
