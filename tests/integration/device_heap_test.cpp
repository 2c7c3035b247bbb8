// SPDX-License-Identifier: Apache-2.0
//
// Device memory of an MMU with large native pages, through the client: what small buffers cost, who
// shares a native page with whom, and what the sessions of one user may hold together.
#include "support/npu_host.hpp"
#include "support/temporary_folder.hpp"

#include <accelmm/client.hpp>
#include <accelmm/runtime.hpp>

#include <atomic>
#include <memory>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

namespace accelmm {
namespace {

using test::code;
using test::value;

constexpr ByteCount native = 2_MiB;
constexpr ByteCount small = 4_KiB;
constexpr BufferOptions device_memory{.domain = Domain::device};

/// The NPU's driver, which is asked to evict.
class EvictingDriver final : public Driver {
 public:
  explicit EvictingDriver(std::unique_ptr<Driver> driver, std::atomic<std::uint64_t>& asked)
      : driver_(std::move(driver)), asked_(asked) {}
  void probe(Device& device, Completion done) override { driver_->probe(device, std::move(done)); }
  void remove(Device& device) noexcept override { driver_->remove(device); }
  void open(Session& session, Completion done) override { driver_->open(session, std::move(done)); }
  void stop(Session& session, Completion done) override { driver_->stop(session, std::move(done)); }
  void close(Session& session) noexcept override { driver_->close(session); }
  ByteCount evict(ByteCount needed) noexcept override {
    asked_ = needed.value();
    return ByteCount(0);
  }
  void ioctls(IoctlTable& table) override { driver_->ioctls(table); }
  MmuHardware* mmu() override { return driver_->mmu(); }

 private:
  std::unique_ptr<Driver> driver_;
  std::atomic<std::uint64_t>& asked_;
};

class DeviceHeapIntegration : public testing::Test {
 protected:
  void host(Quota uid_quota = Quota::unlimited()) {
    sim::NpuOptions npu;
    npu.memory = 128_MiB;
    npu.private_memory = 16_MiB;
    DeviceDescription description = sim::npu_description(npu);
    description.memory->native_page = native;
    description.uid_quota = uid_quota;
    value(host_.runtime().register_device(
        std::move(description),
        std::make_unique<EvictingDriver>(value(sim::make_npu_driver(npu)), asked_)));
    control_.emplace(host_.connect(0, NodeKind::control));
  }
  [[nodiscard]] ByteCount used() const { return ByteCount(value(control_->usage()).memory_used); }

  /// Whether a condition comes true that another thread, or the device, brings about.
  template <class Condition>
  [[nodiscard]] static bool soon(Condition condition) {
    const auto deadline = test::soon();
    while (!condition())
      if (std::chrono::steady_clock::now() > deadline) return false;
    return true;
  }
  [[nodiscard]] bool all_free() const {
    return soon([this] { return used() == ByteCount(0); });
  }

  test::NpuHost host_;
  std::optional<Client> control_;
  std::atomic<std::uint64_t> asked_ = 0;
};

TEST_F(DeviceHeapIntegration, SmallBuffersOfASessionShareANativePage) {
  host();
  const Client client = host_.connect();
  std::vector<Buffer> buffers;
  for (int i = 0; i < 100; ++i) {
    buffers.push_back(value(client.allocate(small, device_memory)));
    EXPECT_EQ(small, buffers.back().size());
  }
  EXPECT_EQ(native, used());
  buffers.push_back(value(client.allocate(native + small, device_memory)));
  EXPECT_EQ(ByteCount(3 * native.value()), used());
  EXPECT_EQ(ByteCount(2 * native.value()), buffers.back().size());
  buffers.clear();
  EXPECT_TRUE(all_free());
}

TEST_F(DeviceHeapIntegration, TwoSessionsNeverShareANativePage) {
  host();
  std::vector<Client> clients;
  for (int i = 0; i < 8; ++i) clients.push_back(host_.connect());
  std::vector<Buffer> buffers;
  for (int round = 0; round < 16; ++round)
    for (const Client& client : clients)
      buffers.push_back(value(client.allocate(small, device_memory)));
  // All of it would fit into one; each session has one of its own.
  EXPECT_EQ(ByteCount(8 * native.value()), used());
  buffers.clear();
  EXPECT_TRUE(all_free());
}

TEST_F(DeviceHeapIntegration, WhatIsFreedReadsZeroToTheNextOfTheSession) {
  host();
  const Client client = host_.connect();
  const auto copy = [&](const DeviceMapping& from, const DeviceMapping& to) {
    value(test::copy_and_wait(client, from.address(), to.address(), small));
  };
  const Buffer host_buffer = value(client.allocate(small));
  const CpuMapping bytes = value(host_buffer.map_cpu());
  const DeviceMapping host_at = value(host_buffer.map_device());
  const Buffer neighbour = value(client.allocate(small, device_memory));
  const DeviceMapping neighbour_at = value(neighbour.map_device());
  std::ranges::fill(bytes.bytes(), std::byte{0x5a});
  copy(host_at, neighbour_at);
  {
    const Buffer passing = value(client.allocate(small, device_memory));
    const DeviceMapping passing_at = value(passing.map_device());
    copy(host_at, passing_at);
  }
  const Buffer next = value(client.allocate(small, device_memory));
  const DeviceMapping next_at = value(next.map_device());
  copy(next_at, host_at);
  EXPECT_TRUE(std::ranges::all_of(bytes.bytes(), [](std::byte b) { return b == std::byte{0}; }));
  copy(neighbour_at, host_at);
  EXPECT_TRUE(std::ranges::all_of(bytes.bytes(), [](std::byte b) { return b == std::byte{0x5a}; }));
}

TEST_F(DeviceHeapIntegration, TheSessionsOfAUserShareItsQuota) {
  host({.bytes = 8_MiB, .buffers = 5, .mappings = 2, .waits = 4});
  const Client one = host_.connect();
  const Client two = host_.connect();
  std::optional<Buffer> most = value(one.allocate(6_MiB, device_memory));
  EXPECT_EQ(Errc::over_quota, code(two.allocate(4_MiB, device_memory)));
  EXPECT_EQ(Errc::over_quota, code(two.allocate(4_MiB)));  // host memory counts too
  const Buffer rest = value(two.allocate(small, device_memory));
  EXPECT_EQ(Errc::over_quota, code(two.allocate(small)));
  const Buffer again = value(two.allocate(small, device_memory));  // of the same native page
  most.reset();
  std::vector<Buffer> buffers;
  for (int i = 0; i < 3; ++i) buffers.push_back(value(one.allocate(small)));
  EXPECT_EQ(Errc::over_quota, code(one.allocate(small)));
  EXPECT_EQ(Errc::over_quota, code(two.allocate(small)));
  std::optional<DeviceMapping> mapping = value(buffers[0].map_device());
  const DeviceMapping other = value(rest.map_device());
  EXPECT_EQ(Errc::over_quota, code(again.map_device()));
  EXPECT_EQ(Errc::over_quota, code(buffers[1].map_device()));
  mapping.reset();  // which ends once the device was invalidated
  EXPECT_TRUE(soon([&] { return again.map_device().has_value(); }));
}

TEST_F(DeviceHeapIntegration, AQuotaIsFreeAgainWhenASessionEnds) {
  host({.bytes = 8_MiB, .buffers = 100, .mappings = 100, .waits = 4});
  {
    const Client one = host_.connect();
    const Buffer most = value(one.allocate(8_MiB, device_memory));
  }
  const Client two = host_.connect();
  // The other session is just ending.
  EXPECT_TRUE(soon([&] { return two.allocate(8_MiB, device_memory).has_value(); }));
}

TEST_F(DeviceHeapIntegration, TheDriverIsAskedToEvictBeforeMemoryIsOut) {
  host();
  const Client client = host_.connect();
  const Buffer most = value(client.allocate(100_MiB, device_memory));
  EXPECT_EQ(0U, asked_.load());
  EXPECT_EQ(Errc::no_memory, code(client.allocate(14_MiB - small, device_memory)));
  EXPECT_EQ((14_MiB).value(), asked_.load());
}

}  // namespace
}  // namespace accelmm
