// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "oracle/guest_memory.hpp"
#include "oracle/oracle.hpp"

#include <accelmm/check.hpp>

#include <cstdint>
#include <functional>
#include <map>
#include <utility>

namespace accelmm::test {

/// Tables of 512 words, with 9 bits of the address for each level, that a test writes by hand.
///
/// Levels count from the leaves, 0, as an address's bits do. Nothing here is the library's.
class NaiveTree {
 public:
  /// The word that links a table, at the level of the word.
  using Link = std::function<std::uint64_t(std::uint64_t table, unsigned level)>;

  NaiveTree(Oracle& oracle, unsigned levels, Link link)
      : oracle_(oracle), levels_(levels), link_(std::move(link)), root_(take()) {}

  [[nodiscard]] std::uint64_t root() const { return root_; }

  /// The bus address of the word of `address` at `level`; missing tables above it are added.
  [[nodiscard]] std::uint64_t word(std::uint64_t address, unsigned level) {
    std::uint64_t table = root_;
    for (unsigned at = levels_ - 1; at > level; --at) {
      const std::uint64_t entry = slot(table, address, at);
      if (!below_.contains(entry)) {
        below_[entry] = take();
        store(entry, link_(below_[entry], at));
      }
      table = below_[entry];
    }
    return slot(table, address, level);
  }

  [[nodiscard]] std::uint64_t load(std::uint64_t word) const {
    return load_word(oracle_.memory(), word - oracle_.base());
  }
  void store(std::uint64_t word, std::uint64_t value) {
    store_word(oracle_.memory(), word - oracle_.base(), value);
  }

 private:
  static constexpr std::uint64_t table_size = 4096;

  std::uint64_t take() {
    ACCELMM_CHECK(oracle_.memory().size() - taken_ >= table_size);
    return oracle_.base() + std::exchange(taken_, taken_ + table_size);
  }
  static std::uint64_t slot(std::uint64_t table, std::uint64_t address, unsigned level) {
    return table + 8 * (address >> (12 + 9 * level) & 511);
  }

  Oracle& oracle_;
  unsigned levels_;
  Link link_;
  std::map<std::uint64_t, std::uint64_t> below_;  // the table that a word links
  std::uint64_t taken_ = 0;
  std::uint64_t root_;
};

}  // namespace accelmm::test
