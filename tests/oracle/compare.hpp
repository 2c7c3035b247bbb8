// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "oracle/oracle.hpp"
#include "property/mm/steps.hpp"

#include <accelmm/access.hpp>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <iterator>
#include <optional>
#include <ostream>
#include <span>
#include <sstream>
#include <vector>

#include <gtest/gtest.h>

namespace accelmm::test {

/// What we hold to be true of one device address.
struct Expectation {
  std::uint64_t address;
  std::optional<OracleAnswer> answer;  ///< nothing: it faults; leaf_size 0: any
};

/// How many translations a test compares: so many, or a tenth of ACCELMM_STEPS if that is more. An
/// oracle takes longer for one than a model for a step.
[[nodiscard]] inline std::uint64_t translations(std::uint64_t otherwise = 10'000) {
  return std::max(otherwise, number_from_environment("ACCELMM_STEPS", 0) / 10);
}

inline std::ostream& operator<<(std::ostream& out, const std::optional<OracleAnswer>& answer) {
  if (!answer) return out << "a fault";
  out << "0x" << std::hex << answer->bus_address;
  if (answer->leaf_size != 0) out << " in a leaf of 0x" << answer->leaf_size;
  return out << std::dec;
}

/// Tells whether two answers say the same, as far as both know the leaf's size.
[[nodiscard]] inline bool agree(const std::optional<OracleAnswer>& one,
                                const std::optional<OracleAnswer>& other) {
  if (!one || !other) return one.has_value() == other.has_value();
  return one->bus_address == other->bus_address &&
         (one->leaf_size == 0 || other->leaf_size == 0 || one->leaf_size == other->leaf_size);
}

/// Asks the oracle for each address below `root` and compares; a failure lists the first mismatches.
[[nodiscard]] inline testing::AssertionResult compare(Oracle& oracle, std::uint64_t root,
                                                      std::span<const Expectation> expectations,
                                                      Access wanted = Access::read) {
  constexpr std::size_t listed = 8;
  std::vector<std::uint64_t> addresses;
  std::ranges::transform(expectations, std::back_inserter(addresses), &Expectation::address);
  const auto answers = oracle.translate(root, addresses, wanted);
  if (!answers)
    return testing::AssertionFailure() << "the oracle gave up: " << answers.error().what;
  if (answers->size() != expectations.size())
    return testing::AssertionFailure() << "the oracle gave " << answers->size() << " answers to "
                                       << expectations.size() << " questions";
  std::size_t mismatches = 0;
  std::ostringstream text;
  for (std::size_t at = 0; at < expectations.size(); ++at) {
    if (agree(expectations[at].answer, (*answers)[at])) continue;
    if (++mismatches > listed) continue;
    text << "\n  0x" << std::hex << expectations[at].address << std::dec << ": expected "
         << expectations[at].answer << ", the oracle says " << (*answers)[at];
  }
  if (mismatches == 0) return testing::AssertionSuccess();
  return testing::AssertionFailure() << mismatches << " of " << expectations.size()
                                     << " translations differ, among them" << text.str();
}

/// Prints how fast an oracle answered, for those who choose how much to ask.
class Speed {
 public:
  explicit Speed(const char* oracle) : oracle_(oracle) {}
  void print(std::uint64_t answered) const {
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - begin_;
    std::fprintf(stderr, "%s: %llu translations, %.0f a second\n", oracle_,
                 static_cast<unsigned long long>(answered),
                 static_cast<double>(answered) / taken.count());
  }

 private:
  const char* oracle_;
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
};

}  // namespace accelmm::test
