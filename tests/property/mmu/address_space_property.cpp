// SPDX-License-Identifier: Apache-2.0
#include "property/mm/steps.hpp"
#include "property/mmu/judged_space.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <iterator>
#include <string>

#include <gtest/gtest.h>

namespace accelmm::mmu {
namespace {

using accelmm::test::Dice;
using accelmm::test::number_from_environment;
using accelmm::test::Tally;
using test::JudgedSpace;
using test::run;
using test::Runs;

constexpr std::uint64_t page = JudgedSpace::page;
constexpr std::uint64_t large = JudgedSpace::large;

class RandomOperations {
 public:
  RandomOperations(const char* name, std::uint32_t tables, Range<DeviceAddr> range)
      : name_(name), dice_(name), space_(tables, range) {}

  ~RandomOperations() {
    maps_.print((std::string(name_) + " map").c_str());
    unmaps_.print((std::string(name_) + " unmap").c_str());
    remaps_.print((std::string(name_) + " remap").c_str());
    translations_.print((std::string(name_) + " translate").c_str());
  }
  RandomOperations(const RandomOperations&) = delete;
  RandomOperations& operator=(const RandomOperations&) = delete;

  JudgedSpace& space() { return space_; }
  [[nodiscard]] bool mostly_succeeded() const {
    return maps_.mostly_succeeded() && unmaps_.mostly_succeeded() &&
           translations_.mostly_succeeded();
  }
  /// Of remaps fewer do: each wants all of its tables at once, and the pool is nearly full.
  [[nodiscard]] bool remapped_enough() const { return remaps_.succeeded * 100 >= remaps_.tried; }

  void step() {
    const std::uint64_t kind = dice_.roll(10);
    // Grows to some 100 mappings, then stays there.
    if (kind < 3 || (kind == 3 && space_.mappings().size() < 100)) {
      maps_.note(space_.map(random_runs(), random_placement(), random_access()));
    } else if (kind == 5) {
      space_.release_all();  // a remap wants all of its tables at once
      const std::uint64_t start = random_start();
      remaps_.note(space_.remap(start, runs_like(start)));
    } else if (kind < 6) {
      unmaps_.note(space_.unmap(random_start()));
    } else {
      translations_.note(space_.translate(random_address()));
    }
    // Invalidations come late, and not in order.
    if (space_.pending() > 0 && dice_.roll(3) == 0)
      space_.release_one(dice_.roll(space_.pending()));
    if (space_.pending() > 24) space_.release_all();
  }

 private:
  Runs random_runs() {
    Runs runs;
    std::uint64_t bus = dice_.roll(1 << 20) * page;
    for (std::uint64_t left = 1 + dice_.roll(4); left > 0; --left) {
      const std::uint64_t sizes[] = {1 + dice_.roll(4), 1 + dice_.roll(64), 512,
                                     1 + dice_.roll(1500)};
      const std::uint64_t length =
          sizes[dice_.roll(8) < 6 ? dice_.roll(2) : 2 + dice_.roll(2)] * page;
      if (dice_.roll(2) == 0) bus = (bus + large - 1) / large * large;
      runs.push_back(run(bus, length));
      bus += length + (dice_.roll(2) == 0 ? 0 : (1 + dice_.roll(600)) * page);
    }
    return runs;
  }

  // Other runs, mostly as long as the mapping that begins there, cut and aligned anew.
  Runs runs_like(std::uint64_t start) {
    const auto known = space_.mappings().find(start);
    if (known == space_.mappings().end() || dice_.roll(16) == 0) return random_runs();
    Runs runs;
    std::uint64_t bus = dice_.roll(1 << 20) * page;
    for (std::uint64_t left = known->second.length; left > 0;) {
      const std::uint64_t length =
          dice_.roll(2) == 0 ? left : std::min(left, (1 + dice_.roll(700)) * page);
      if (dice_.roll(2) == 0) bus = (bus & ~(large - 1)) + large + (start & (large - 1));
      runs.push_back(run(bus, length));
      left -= length;
      bus += length + dice_.roll(3) * page;
    }
    return runs;
  }

  Placement random_placement() {
    const std::uint64_t kind = dice_.roll(8);
    if (kind < 5) return {};
    const std::uint64_t pages = space_.range().size().value() / page;
    std::uint64_t va = space_.range().begin.value() + dice_.roll(pages) * page;
    if (dice_.roll(16) == 0) va += 0x10;
    if (dice_.roll(32) == 0) va += space_.range().size().value();
    return {kind < 7 ? Placement::Kind::hint : Placement::Kind::fixed, DeviceAddr(va)};
  }

  Access random_access() {
    constexpr std::array all{Access::read, Access::write, Access::read_write};
    return all[dice_.roll(all.size())];
  }

  std::uint64_t random_start() {
    if (space_.mappings().empty() || dice_.roll(8) == 0) return random_address();
    return std::next(space_.mappings().begin(),
                     static_cast<std::ptrdiff_t>(dice_.roll(space_.mappings().size())))
        ->first;
  }

  std::uint64_t random_address() {
    if (space_.mappings().empty() || dice_.roll(8) == 0)
      return space_.range().begin.value() + dice_.roll(space_.range().size().value());
    const auto& [begin, mapping] =
        *std::next(space_.mappings().begin(),
                   static_cast<std::ptrdiff_t>(dice_.roll(space_.mappings().size())));
    return begin + dice_.roll(mapping.length + 8);
  }

  const char* name_;
  Dice dice_;
  JudgedSpace space_;
  Tally maps_;
  Tally unmaps_;
  Tally remaps_;
  Tally translations_;
};

TEST(AddressSpaceProperty, AgreesWithTheModelAndTheNaiveWalker) {
  // 256 MiB across a boundary of hop 2, in a pool that runs out of tables now and then.
  const std::uint64_t begin = (1ULL << 40) - 128 * large / 2;
  RandomOperations operations("address_space", 112,
                              {DeviceAddr(begin), DeviceAddr(begin + 128 * large)});
  const std::uint64_t steps = number_from_environment("ACCELMM_STEPS", 100'000);
  for (std::uint64_t i = 0; i < steps; ++i) {
    operations.step();
    if (i % 5000 == 4999) operations.space().judge_everything();
  }
  operations.space().judge_everything();
  EXPECT_TRUE(operations.mostly_succeeded());
  EXPECT_TRUE(operations.remapped_enough());
}

TEST(AddressSpaceProperty, IsValidAfterEachStep) {
  const std::uint64_t begin = (1ULL << 48) - 8 * large;
  RandomOperations operations("address_space_small", 32,
                              {DeviceAddr(begin), DeviceAddr(begin + 24 * large)});
  const std::uint64_t steps = number_from_environment("ACCELMM_STEPS", 100'000) / 200;
  for (std::uint64_t i = 0; i < steps; ++i) {
    operations.step();
    operations.space().judge_everything();
  }
}

}  // namespace
}  // namespace accelmm::mmu
