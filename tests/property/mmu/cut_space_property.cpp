// SPDX-License-Identifier: Apache-2.0
#include "property/mm/steps.hpp"
#include "property/mmu/cut_space.hpp"

#include <array>
#include <cstdint>
#include <iterator>
#include <string>
#include <utility>

#include <gtest/gtest.h>

namespace accelmm::mmu {
namespace {

using accelmm::test::Dice;
using accelmm::test::number_from_environment;
using accelmm::test::Tally;
using test::CutSpace;
using test::run;

constexpr std::uint64_t page = CutSpace::page;
constexpr std::uint64_t large = CutSpace::large;

class RandomCuts {
 public:
  RandomCuts(const char* name, std::uint32_t tables, Range<DeviceAddr> range)
      : name_(name), dice_(name), space_(tables, range) {}
  ~RandomCuts() {
    for (const auto& [what, tally] : tallies()) tally->print((std::string(name_) + what).c_str());
  }
  RandomCuts(const RandomCuts&) = delete;
  RandomCuts& operator=(const RandomCuts&) = delete;

  CutSpace& space() { return space_; }
  [[nodiscard]] bool all_succeed_at_times() const {
    // Maps are aimed at free addresses, which the space runs short of.
    return maps_.succeeded * 4 >= maps_.tried && replaces_.mostly_succeeded() &&
           unmaps_.mostly_succeeded() && protects_.mostly_succeeded() && merges_ > 0;
  }

  void step() {
    switch (dice_.roll(13)) {
      case 0:
      case 1: {
        const auto [begin, end] = free_range();
        maps_.note(space_.map(begin, memory(begin, end - begin), access()));
        break;
      }
      case 2:
        (void)space_.map_anywhere(memory(dice_.roll(64) * page, length()), access());
        break;
      case 3:
      case 4: {
        const auto [begin, end] = any_range();
        replaces_.note(space_.replace(begin, memory(begin, end - begin), access()));
        break;
      }
      case 5:
      case 6:
      case 7: {
        const auto [begin, end] = mapped_range();
        unmaps_.note(space_.unmap(begin, end));
        break;
      }
      case 8:
      case 9: {
        const auto [begin, end] = mapped_range();
        protects_.note(space_.protect(begin, end, access()));
        break;
      }
      case 10: {
        const auto [begin, end] = dice_.roll(2) == 0 ? any_range() : neighbours();
        (void)space_.protect(begin, end, access());
        if (space_.merge(begin, end)) ++merges_;
        break;
      }
      case 11:
        reserve_or_end();
        break;
      default:
        if (dice_.roll(2) == 0) {
          const auto [begin, end] = free_range();
          (void)space_.map_null(begin, end);
        } else {
          space_.release_all();
        }
    }
    if (space_.pending() > 40) space_.release_all();
  }

 private:
  using Interval = std::pair<std::uint64_t, std::uint64_t>;

  [[nodiscard]] std::array<std::pair<const char*, const Tally*>, 4> tallies() const {
    return {{{" map", &maps_},
             {" replace", &replaces_},
             {" unmap", &unmaps_},
             {" protect", &protects_}}};
  }

  std::uint64_t length() {
    const std::uint64_t sizes[] = {1 + dice_.roll(4), 1 + dice_.roll(64), 512 * (1 + dice_.roll(3)),
                                   1 + dice_.roll(1500)};
    return sizes[dice_.roll(4)] * page;
  }
  Access access() {
    constexpr std::array all{Access::read, Access::write, Access::read_write};
    return all[dice_.roll(all.size())];
  }
  // Often congruent to the address, so that large leaves fit.
  Run memory(std::uint64_t va, std::uint64_t length) {
    const std::uint64_t bus = (1 + dice_.roll(256)) * large;
    return run(dice_.roll(4) == 0 ? bus + dice_.roll(512) * page : bus + va % large, length);
  }
  Interval any_range() {
    const std::uint64_t pages = space_.range().size().value() / page;
    std::uint64_t begin = space_.range().begin.value() + dice_.roll(pages) * page;
    if (dice_.roll(3) == 0) begin = std::max(begin & ~(large - 1), space_.range().begin.value());
    return {begin, std::min(begin + length(), space_.range().end.value())};
  }
  Interval free_range() {
    Interval found = any_range();
    for (int i = 0; i < 8 && space_.model().mapped(found.first, found.second) > 0; ++i)
      found = any_range();
    return found;
  }
  // Some of one interval, or of more.
  Interval mapped_range() {
    const auto& intervals = space_.model().intervals();
    if (intervals.empty() || dice_.roll(8) == 0) return any_range();
    const auto& [begin, interval] =
        *std::next(intervals.begin(), static_cast<std::ptrdiff_t>(dice_.roll(intervals.size())));
    const std::uint64_t pages = (interval.end - begin) / page;
    if (dice_.roll(3) == 0) return {begin, interval.end};
    const std::uint64_t from = dice_.roll(pages);
    return {begin + from * page, begin + (from + 1 + dice_.roll(pages - from)) * page};
  }
  // Some intervals side by side: perhaps what protect() made of one.
  Interval neighbours() {
    const auto& intervals = space_.model().intervals();
    if (intervals.empty()) return any_range();
    auto at =
        std::next(intervals.begin(), static_cast<std::ptrdiff_t>(dice_.roll(intervals.size())));
    while (at != intervals.begin() && std::prev(at)->second.end == at->first) --at;
    const std::uint64_t begin = at->first;
    std::uint64_t end = at->second.end;
    while (++at != intervals.end() && at->first == end) end = at->second.end;
    return {begin, end};
  }
  void reserve_or_end() {
    const auto& reservations = space_.reservations();
    if (reservations.size() < 4 && dice_.roll(2) == 0) {
      const auto [begin, end] = free_range();
      (void)space_.reserve(begin, end);
    } else if (!reservations.empty()) {
      (void)space_.end_reservation(
          std::next(reservations.begin(),
                    static_cast<std::ptrdiff_t>(dice_.roll(reservations.size())))
              ->first);
    }
  }

  const char* name_;
  Dice dice_;
  CutSpace space_;
  Tally maps_;
  Tally replaces_;
  Tally unmaps_;
  Tally protects_;
  std::uint64_t merges_ = 0;  // that saved tables
};

TEST(CutSpaceProperty, AgreesWithTheIntervalModelAndTheNaiveWalker) {
  const std::uint64_t begin = (1ULL << 40) - 32 * large;
  RandomCuts cuts("cut_space", 96, {DeviceAddr(begin), DeviceAddr(begin + 64 * large)});
  const std::uint64_t steps = number_from_environment("ACCELMM_STEPS", 20'000);
  for (std::uint64_t i = 0; i < steps; ++i) {
    cuts.step();
    if (i % 2500 == 2499) cuts.space().judge_everything();
  }
  cuts.space().judge_everything();
  EXPECT_TRUE(cuts.all_succeed_at_times());
}

TEST(CutSpaceProperty, IsValidAfterEachStepThoughTablesRunOut) {
  const std::uint64_t begin = (1ULL << 48) - 4 * large;
  RandomCuts cuts("cut_space_small", 20, {DeviceAddr(begin), DeviceAddr(begin + 12 * large)});
  const std::uint64_t steps = number_from_environment("ACCELMM_STEPS", 20'000) / 100;
  for (std::uint64_t i = 0; i < steps; ++i) {
    cuts.step();
    cuts.space().judge_everything();
  }
}

}  // namespace
}  // namespace accelmm::mmu
