// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>

namespace accelmm::test {

inline std::uint64_t number_from_environment(const char* name, std::uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 0);
}

/// The random numbers of a property test. Its seed is on stderr before the first step, where an
/// abort does not lose it; ACCELMM_SEED replays it.
class Dice {
 public:
  explicit Dice(const char* test)
      : seed_(number_from_environment("ACCELMM_SEED", std::random_device{}())), engine_(seed_) {
    std::fprintf(stderr, "%s: ACCELMM_SEED=%llu\n", test, static_cast<unsigned long long>(seed_));
  }
  /// A number in [0, sides).
  [[nodiscard]] std::uint64_t roll(std::uint64_t sides) { return engine_() % sides; }

 private:
  std::uint64_t seed_;
  std::mt19937_64 engine_;
};

/// How many operations a property test tried, and how many of them succeeded.
struct Tally {
  std::uint64_t tried = 0;
  std::uint64_t succeeded = 0;

  void note(bool success) {
    ++tried;
    if (success) ++succeeded;
  }
  [[nodiscard]] bool mostly_succeeded() const { return succeeded * 2 >= tried; }
  void print(const char* test) const {
    std::fprintf(
        stderr, "%s: %llu operations, %.1f %% successful\n", test,
        static_cast<unsigned long long>(tried),
        tried == 0 ? 0.0 : 100.0 * static_cast<double>(succeeded) / static_cast<double>(tried));
  }
};

}  // namespace accelmm::test
