// SPDX-License-Identifier: Apache-2.0
//
// Several threads in one address space. Run under the thread sanitizer too.
#include "unit/mmu/tables_fixture.hpp"

#include <accelmm/mmu/address_space.hpp>
#include <accelmm/mmu/npu1.hpp>

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

namespace accelmm::mmu {
namespace {

using test::range;
using test::release;
using test::run;
using test::Runs;
using test::Tables;

constexpr std::uint64_t page = 0x1000;
constexpr std::uint64_t large = 0x20'0000;
constexpr std::uint64_t base = 1ULL << 40;

Placement fixed(std::uint64_t offset) {
  return {Placement::Kind::fixed, DeviceAddr(base + offset)};
}

TEST(ConcurrentSpace, ThreadsMapAndUnmapNeighbouringRangesOfTheSameTables) {
  // Enough for all rounds of three threads while the fourth stands still within an operation, and
  // what they release waits for its end.
  Tables tables(2048);
  auto space = std::move(*make_address_space<Npu1>(tables.pool(), range(base, base + 64 * large)));
  constexpr std::uint64_t threads = 4;
  constexpr std::uint64_t own = large / 2 + 3 * page;  // off the boundaries of tables
  std::atomic<std::uint64_t> wrong{0};
  const auto work = [&](std::uint64_t number) {
    const std::uint64_t begin = number * own;
    const std::uint64_t bus = (number + 1) << 32;
    for (std::uint64_t round = 0; round < 60; ++round) {
      const Runs runs{run(bus + begin, own)};
      const auto mapped = space->map(runs, fixed(begin), {});
      if (!mapped) {
        ++wrong;
        continue;
      }
      const Range<DeviceAddr> part =
          range(base + begin + (1 + round % 7) * page, base + begin + (9 + round) * page);
      auto gone = space->unmap(part);
      if (!gone || space->translate(part.begin).has_value()) ++wrong;
      if (!space->protect(range(base + begin, part.begin.value()), Access::read)) ++wrong;
      const auto kept = space->translate(DeviceAddr(base + begin));
      if (!kept || kept->address != BusAddr(bus + begin)) ++wrong;
      (void)space->translate(DeviceAddr(base + (begin + own * 2) % (threads * own)));
      const Runs other{run(bus, own)};
      auto replaced = space->replace(other, fixed(begin), {});
      if (!replaced) ++wrong;
      if (gone) release(std::move(*gone));
      if (replaced) release(std::move(replaced->gone));
      auto all = space->unmap(DeviceAddr(base + begin));
      if (!all) ++wrong;
      if (all) release(std::move(*all));
    }
  };
  std::vector<std::thread> running;
  for (std::uint64_t i = 0; i < threads; ++i) running.emplace_back(work, i);
  for (std::thread& one : running) one.join();
  EXPECT_EQ(wrong, 0u);
  space->validate();
  EXPECT_EQ(space->mappings(), 0u);
  EXPECT_EQ(tables.pool().tables_in_use(), 1u) << "the root";
  tables.pool().validate();
  release(space->unmap_all());
}

TEST(ConcurrentSpace, ThreadsCutPiecesOutOfOneMapping) {
  Tables tables(256);
  auto space = std::move(*make_address_space<Npu1>(tables.pool(), range(base, base + 64 * large)));
  const Runs runs{run(16 * large, 32 * large)};
  ASSERT_TRUE(space->map(runs, fixed(0), {}).has_value());
  std::atomic<std::uint64_t> wrong{0};
  const auto work = [&](std::uint64_t number) {
    for (std::uint64_t i = number; i < 32 * 4; i += 4) {  // four threads in each large leaf
      const std::uint64_t begin = base + i * (large / 4) + page;
      auto gone = space->unmap(range(begin, begin + 2 * page));
      if (!gone || gone->is_empty()) ++wrong;
      if (gone) release(std::move(*gone));
    }
  };
  std::vector<std::thread> running;
  for (std::uint64_t i = 0; i < 4; ++i) running.emplace_back(work, i);
  for (std::thread& one : running) one.join();
  EXPECT_EQ(wrong, 0u);
  space->validate();
  EXPECT_EQ(space->mappings(), 32u * 4 + 1);
  EXPECT_EQ(space->mapped_bytes(), ByteCount(32 * large - 32 * 4 * 2 * page));
  release(space->unmap_all());
}

TEST(ConcurrentSpace, ThreadsGetDifferentAddresses) {
  Tables tables(64);
  auto space = std::move(*make_address_space<Npu1>(tables.pool(), range(base, base + 16 * large)));
  const auto work = [&] {
    const Runs runs{run(0, 3 * page)};
    for (int i = 0; i < 200; ++i)
      if (!space->map(runs, {}, {})) break;
  };
  std::vector<std::thread> running;
  for (int i = 0; i < 4; ++i) running.emplace_back(work);
  for (std::thread& one : running) one.join();
  space->validate();
  EXPECT_EQ(space->mappings(), 800u);
  release(space->unmap_all());
}

// NPU1 as if a device had to forget an entry before its size changes: a cut stops in forget_now.
struct Breaking : Npu1 {
  static constexpr bool breaks_before_make = true;
};

class StoppedOperation : public ::testing::Test {
 protected:
  StoppedOperation() {
    const VaWindow window{VaUse::any, range(base, base + 64 * large)};
    SpaceOptions options;
    options.windows = std::span(&window, 1);
    options.forget_now = [this](Range<DeviceAddr> forgotten) {
      last_forgotten = forgotten;
      stopped = true;
      stopped.notify_all();
      goes_on.wait(false);
    };
    space = std::move(*make_address_space<Breaking>(tables.pool(), options));
    const Runs large_leaf{run(8 * large, large)};
    EXPECT_TRUE(space->map(large_leaf, fixed(0), {}).has_value());
    EXPECT_TRUE(space->map(small, fixed(4 * large), {}).has_value());
  }
  ~StoppedOperation() override {
    space->validate();
    release(space->unmap_all());
    space.reset();
    EXPECT_EQ(tables.pool().tables_in_use(), 0u);
  }
  // A cut inside the large leaf, up to where the leaf is cleared and to be forgotten.
  void begin_cut() {
    cutting = std::thread([this] {
      auto gone = space->unmap(range(base, base + page));
      EXPECT_TRUE(gone.has_value());
      release(std::move(*gone));
      cut_ended = true;
    });
    stopped.wait(false);
  }
  void end_cut() {
    goes_on = true;
    goes_on.notify_all();
    cutting.join();
  }

  Tables tables{64};
  const Runs small{run(0, page)};
  Range<DeviceAddr> last_forgotten{};
  std::atomic<bool> stopped{false};
  std::atomic<bool> goes_on{false};
  std::atomic<bool> cut_ended{false};
  std::thread cutting;
  std::unique_ptr<AddressSpace> space;
};

TEST_F(StoppedOperation, HoldsUpNobodyOutsideOfItsLeaves) {
  begin_cut();
  EXPECT_EQ(last_forgotten, range(base, base + large)) << "the whole leaf";
  EXPECT_TRUE(space->map(small, fixed(large), {}).has_value());
  auto gone = space->unmap(DeviceAddr(base + 4 * large));
  EXPECT_TRUE(gone.has_value());
  EXPECT_FALSE(cut_ended);
  end_cut();
  release(std::move(*gone));
}

TEST_F(StoppedOperation, OthersInItsLeavesWaitForItsEnd) {
  begin_cut();
  std::atomic<bool> read{false};
  std::thread reader([&] {
    const auto found = space->translate(DeviceAddr(base + 5 * page));  // not of the cut range
    EXPECT_TRUE(found.has_value()) << "never the moment in which the leaf is cleared";
    read = true;
  });
  std::this_thread::yield();
  EXPECT_FALSE(read);
  end_cut();
  reader.join();
  EXPECT_TRUE(read);
}

TEST_F(StoppedOperation, TablesOfALaterUnmapWaitForItsEnd) {
  begin_cut();
  const std::uint32_t before = tables.pool().tables_in_use();
  auto gone = space->unmap(DeviceAddr(base + 4 * large));
  ASSERT_TRUE(gone.has_value());
  EXPECT_EQ(gone->tables(), 1u);
  release(std::move(*gone));
  EXPECT_EQ(tables.pool().tables_in_use(), before) << "released, but the cut may pass it still";
  EXPECT_TRUE(space->map(small, fixed(4 * large), {}).has_value()) << "the addresses are free";
  auto again = space->unmap(DeviceAddr(base + 4 * large));
  release(std::move(*again));
  EXPECT_EQ(tables.pool().tables_in_use(), before + 1);
  end_cut();
  EXPECT_LE(tables.pool().tables_in_use(), before) << "all came back";
}

TEST(BreakBeforeMake, CutIsRefusedWhereNobodyCanMakeTheDeviceForget) {
  Tables tables(64);
  auto space =
      std::move(*make_address_space<Breaking>(tables.pool(), range(base, base + 64 * large)));
  const Runs runs{run(8 * large, 2 * large)};
  ASSERT_TRUE(space->map(runs, fixed(0), {}).has_value());
  EXPECT_EQ(space->unmap(range(base, base + page)).error().code, Errc::not_supported);
  space->validate();
  EXPECT_EQ(space->mappings(), 1u);
  auto whole_leaf = space->unmap(range(base, base + large));
  ASSERT_TRUE(whole_leaf.has_value()) << "no leaf changes its size";
  release(std::move(*whole_leaf));
  release(space->unmap_all());
}

}  // namespace
}  // namespace accelmm::mmu
