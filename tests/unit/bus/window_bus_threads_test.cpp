// SPDX-License-Identifier: Apache-2.0
//
// A device uses the bus while its owner attaches and detaches.
#include "bus/window_bus.hpp"
#include "mm/backing/sealed_memfd.hpp"

#include <atomic>
#include <cstdint>
#include <span>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

namespace accelmm {
namespace {

constexpr ByteCount buffer_size = 64_KiB;

class WindowBusThreads : public testing::Test {
 protected:
  WindowBusThreads() {
    const auto memfd = SealedMemfd::create("bus-test", buffer_size);
    EXPECT_TRUE(memfd.has_value());
    const auto placed =
        host_->place({RegionOffset(0), buffer_size}, memfd->fd(), ByteCount(), Access::read_write);
    EXPECT_TRUE(placed.has_value());
  }

  std::uint64_t word_in_memory() {
    std::uint64_t word = 0;
    EXPECT_TRUE(host_->read(RegionOffset(8), std::as_writable_bytes(std::span(&word, 1))));
    return word;
  }

  Result<MemoryWindow> host_ = MemoryWindow::create(1_MiB, Backdrop::none);
  WindowBus bus_{nullptr, *host_};
};

TEST_F(WindowBusThreads, OnceDetachReturnsNoWriteOfADeviceArrives) {
  std::atomic<bool> stop{false};
  std::atomic<std::uint64_t> arrived{0};
  std::thread device([&] {
    for (std::uint64_t value = 1; !stop; ++value)
      if (bus_.write(WindowBus::host_base + 8_B, std::as_bytes(std::span(&value, 1)))) ++arrived;
  });
  std::uint64_t late = 0;
  const Extent page{RegionOffset(0), 4_KiB};
  for (int round = 0; round < 100; ++round) {
    const auto runs = bus_.attach(std::span(&page, 1));
    const std::uint64_t before = arrived;
    while (arrived == before) std::this_thread::yield();
    bus_.detach(*runs);
    const std::uint64_t seen = word_in_memory();
    std::this_thread::yield();
    late += seen != word_in_memory();
  }
  stop = true;
  device.join();
  EXPECT_EQ(0U, late);
}

TEST_F(WindowBusThreads, OwnersOfOverlappingMemoryReachTheirOwnWhileItIsAttached) {
  std::vector<std::thread> owners;
  std::atomic<int> failures{0};
  for (std::uint64_t page = 0; page < 3; ++page)
    owners.emplace_back([this, &failures, page] {
      const Extent mine{RegionOffset(page << 12), 8_KiB};
      std::vector<std::byte> bytes(mine.length.value());
      for (int i = 0; i < 500; ++i) {
        const auto runs = bus_.attach(std::span(&mine, 1));
        failures += !runs || !bus_.read(runs->front().address, bytes);
        if (runs) bus_.detach(*runs);
      }
    });
  for (std::thread& owner : owners) owner.join();
  EXPECT_EQ(0, failures);
  std::byte byte{};
  EXPECT_FALSE(bus_.read(WindowBus::host_base + 4_KiB, std::span(&byte, 1)).has_value());
}

}  // namespace
}  // namespace accelmm
