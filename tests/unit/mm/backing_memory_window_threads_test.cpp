// SPDX-License-Identifier: Apache-2.0
//
// Devices read and write a window without a pause while its owner places and removes files in it.
#include "mm/backing/memory_window.hpp"
#include "mm/backing/sealed_memfd.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <random>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

namespace accelmm {
namespace {

constexpr std::uint64_t slots = 16;
constexpr std::uint64_t slot_size = 16 << 10;
constexpr int rounds = 2000;

Extent slot_extent(std::uint64_t slot) {
  return {RegionOffset(slot * slot_size), ByteCount(slot_size)};
}

/// Every byte of a slot is its number, or `backdrop` where nothing is placed.
std::byte slot_mark(std::uint64_t slot) {
  return std::byte(static_cast<unsigned char>(slot + 1));
}

/// One device: random reads and writes within slots. Whatever succeeds shows the slot's own byte,
/// or zeroes before its owner has filled it: never a neighbour's.
class Device {
 public:
  Device(MemoryWindow& window, unsigned seed) : window_(window), random_(seed) {}

  void access_once() {
    const std::uint64_t slot = random_() % slots;
    const std::uint64_t size = 1 + random_() % bytes_.size();
    const RegionOffset offset(slot * slot_size + random_() % (slot_size - size));
    const std::span<std::byte> bytes(bytes_.data(), size);
    if (random_() % 4 == 0) {
      std::ranges::fill(bytes, slot_mark(slot));
      faults_ += !window_.write(offset, bytes);
      return;
    }
    if (!window_.read(offset, bytes)) {
      ++faults_;
      return;
    }
    ++reads_;
    wrong_ += !std::ranges::all_of(
        bytes, [slot](std::byte each) { return each == slot_mark(slot) || each == std::byte{}; });
  }

  [[nodiscard]] std::uint64_t reads() const { return reads_; }
  [[nodiscard]] std::uint64_t faults() const { return faults_; }
  [[nodiscard]] std::uint64_t wrong() const { return wrong_; }

 private:
  MemoryWindow& window_;
  std::mt19937 random_;
  std::array<std::byte, 256> bytes_{};
  std::uint64_t reads_ = 0;
  std::uint64_t faults_ = 0;
  std::uint64_t wrong_ = 0;
};

/// The owner: toggles slots, and looks at its own removals as a device would.
void toggle_slots(MemoryWindow& window) {
  std::mt19937 random(1);
  std::array<bool, slots> placed{};
  const std::vector<std::byte> content(slot_size);
  for (int round = 0; round < rounds; ++round) {
    const std::uint64_t slot = random() % slots;
    const Extent extent = slot_extent(slot);
    if (placed[slot]) {
      ASSERT_EQ(Removal::done, window.remove(extent));
      std::byte stale{};
      ASSERT_EQ(window.backdrop() == Backdrop::zero,
                window.read(extent.offset, std::span(&stale, 1)).has_value());
    } else {
      const auto memfd = SealedMemfd::create("threads-test", extent.length);
      ASSERT_TRUE(memfd.has_value());
      ASSERT_TRUE(window.place(extent, memfd->fd(), ByteCount(), Access::read_write).has_value());
    }
    placed[slot] = !placed[slot];
  }
}

class Devices : public testing::TestWithParam<Backdrop> {};
INSTANTIATE_TEST_SUITE_P(MemoryWindow, Devices, testing::Values(Backdrop::none, Backdrop::zero));

TEST_P(Devices, ThatNeverPauseSeeOnlyWhatTheirOffsetsHold) {
  auto window = MemoryWindow::create(ByteCount(slots * slot_size), GetParam());
  ASSERT_TRUE(window.has_value());
  std::atomic<bool> stop{false};
  std::array<Device, 3> devices{Device(*window, 2), Device(*window, 3), Device(*window, 4)};
  std::vector<std::thread> threads;
  for (Device& device : devices)
    threads.emplace_back([&device, &stop] {
      // At least so many, however late the thread starts: about half the slots are placed in the
      // end.
      for (int i = 0; i < 1000; ++i) device.access_once();
      while (!stop) device.access_once();
    });
  toggle_slots(*window);
  stop = true;
  for (std::thread& thread : threads) thread.join();
  for (const Device& device : devices) {
    EXPECT_EQ(0U, device.wrong());
    EXPECT_GT(device.reads(), 0U);
    if (GetParam() == Backdrop::none) {
      EXPECT_GT(device.faults(), 0U);
    }
  }
}

TEST(MemoryWindow, OwnersPlaceAndRemoveDifferentPlacesAtOnce) {
  auto window = MemoryWindow::create(ByteCount(slots * slot_size), Backdrop::none);
  ASSERT_TRUE(window.has_value());
  std::vector<std::thread> owners;
  std::atomic<int> failures{0};
  for (std::uint64_t slot = 0; slot < 4; ++slot)
    owners.emplace_back([&window, &failures, slot] {
      const Extent extent = slot_extent(slot);
      const auto memfd = SealedMemfd::create("threads-test", extent.length);
      for (int i = 0; memfd && i < rounds / 4; ++i) {
        std::byte byte = slot_mark(slot);
        failures += !window->place(extent, memfd->fd(), ByteCount(), Access::read_write);
        failures += !window->write(extent.offset, std::span(&byte, 1));
        failures += !window->read(extent.offset, std::span(&byte, 1));
        failures += byte != slot_mark(slot);
        failures += window->remove(extent) != Removal::done;
      }
    });
  for (std::thread& owner : owners) owner.join();
  EXPECT_EQ(0, failures.load());
  EXPECT_EQ(0U, window->placements());
}

}  // namespace
}  // namespace accelmm
