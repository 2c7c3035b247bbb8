// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "oracle/compare.hpp"
#include "property/mm/steps.hpp"

#include <accelmm/access.hpp>

#include <cstdint>
#include <iterator>
#include <map>
#include <optional>
#include <span>
#include <utility>
#include <vector>

namespace accelmm::test {

/// What a test has mapped, by its first address, to say what a walker must answer.
class NaiveMap {
 public:
  struct Leaf {
    std::uint64_t address;
    std::uint64_t bus_address;
    std::uint64_t size;
    Access access;
  };

  /// Refuses what overlaps another.
  [[nodiscard]] bool add(const Leaf& leaf) {
    const auto after = leaves_.lower_bound(leaf.address);
    if (after != leaves_.end() && after->first - leaf.address < leaf.size) return false;
    if (after != leaves_.begin()) {
      const Leaf& before = std::prev(after)->second;
      if (leaf.address - before.address < before.size) return false;
    }
    leaves_.emplace_hint(after, leaf.address, leaf);
    return true;
  }

  [[nodiscard]] Expectation expect(std::uint64_t address, Access wanted) const {
    const auto after = leaves_.upper_bound(address);
    if (after == leaves_.begin()) return {address, std::nullopt};
    const Leaf& leaf = std::prev(after)->second;
    const std::uint64_t offset = address - leaf.address;
    if (offset >= leaf.size || !allows(leaf.access, wanted)) return {address, std::nullopt};
    return {address, OracleAnswer{leaf.bus_address + offset, leaf.size}};
  }

  [[nodiscard]] const std::map<std::uint64_t, Leaf>& leaves() const { return leaves_; }

 private:
  std::map<std::uint64_t, Leaf> leaves_;
};

/// What random leaves may be.
struct RandomLeaves {
  unsigned address_bits;
  bool sign_extended;
  unsigned first_bus_bit = 33;  ///< each bus address is at least 2 to that
  unsigned bus_bits;
  std::vector<std::uint64_t> sizes;
  std::vector<Access> accesses{Access::read, Access::read_write};
};

/// The address that stands for its lower bits.
[[nodiscard]] inline std::uint64_t extended(const RandomLeaves& kind, std::uint64_t address) {
  const unsigned unused = 64 - kind.address_bits;
  if (!kind.sign_extended) return address << unused >> unused;
  return static_cast<std::uint64_t>(static_cast<std::int64_t>(address << unused) >> unused);
}

/// Maps `count` leaves at random and through `write`, some of them close to others.
template <class Write>
[[nodiscard]] NaiveMap map_at_random(const RandomLeaves& kind, Dice& dice, std::uint64_t count,
                                     Write write) {
  NaiveMap map;
  std::uint64_t last = 0;
  while (map.leaves().size() < count) {
    const std::uint64_t size = kind.sizes[dice.roll(kind.sizes.size())];
    const bool near = dice.roll(4) != 0;
    const std::uint64_t address = near ? last + (dice.roll(8) - 4) * size : dice.roll(~0ULL);
    const std::uint64_t bus =
        dice.roll((std::uint64_t{1} << kind.bus_bits) - (std::uint64_t{1} << kind.first_bus_bit)) +
        (std::uint64_t{1} << kind.first_bus_bit);
    const NaiveMap::Leaf leaf{extended(kind, address) / size * size, bus / size * size, size,
                              kind.accesses[dice.roll(kind.accesses.size())]};
    if (leaf.bus_address >> kind.first_bus_bit == 0 || !map.add(leaf)) continue;
    write(leaf);
    last = leaf.address;
  }
  return map;
}

/// `count` addresses with what they must lead to: most in leaves, others beside them and anywhere.
[[nodiscard]] inline std::vector<Expectation> ask_at_random(const NaiveMap& map,
                                                            const RandomLeaves& kind, Dice& dice,
                                                            std::uint64_t count, Access wanted) {
  std::vector<NaiveMap::Leaf> leaves;
  for (const auto& [address, leaf] : map.leaves()) leaves.push_back(leaf);
  std::vector<Expectation> expectations;
  while (expectations.size() < count) {
    const NaiveMap::Leaf& leaf = leaves[dice.roll(leaves.size())];
    std::uint64_t address = leaf.address + dice.roll(leaf.size);
    if (dice.roll(8) == 0) address = extended(kind, leaf.address + leaf.size);
    if (dice.roll(8) == 0) address = extended(kind, leaf.address - 1);
    if (dice.roll(16) == 0) address = extended(kind, dice.roll(~0ULL));
    expectations.push_back(map.expect(address, wanted));
  }
  return expectations;
}

}  // namespace accelmm::test
