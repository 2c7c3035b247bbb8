// SPDX-License-Identifier: Apache-2.0
//
// Host memory as an application asks for it, from the C++ interface down to the pages and back.
#include "support/npu_host.hpp"

#include <accelmm/client.hpp>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <fstream>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

namespace accelmm {
namespace {

using test::NpuHost;
using test::Path;
using test::value;

constexpr ByteCount size{std::uint64_t{32} << 20};

class BackingOver : public testing::TestWithParam<Path> {
 protected:
  BackingOver() { host_.add(); }
  NpuHost host_{GetParam()};
};
INSTANTIATE_TEST_SUITE_P(Each, BackingOver, testing::Values(Path::socket, Path::embedded));

TEST_P(BackingOver, APrefaultIsWatchedAndThenTheMemoryIsThere) {
  const Client client = host_.connect();
  const Buffer buffer = value(client.allocate(size, {.backing = {.prefault = PrefaultPages::yes}}));
  ByteCount last;
  while (true) {
    const auto report = value(buffer.backing());
    EXPECT_GE(report.prefaulted, last);
    last = report.prefaulted;
    if (report.prefault != PrefaultState::running) break;
  }
  const auto report = value(buffer.backing(no_deadline));
  EXPECT_EQ(PrefaultState::done, report.prefault);
  EXPECT_EQ(size, report.prefaulted);
  EXPECT_EQ(size, report.populated);
  EXPECT_EQ(report.sample.taken, report.sample.present);
  const auto mapping = value(buffer.map_cpu());
  EXPECT_EQ(std::byte{0}, mapping.bytes()[size.value() - 1]);
}

TEST_P(BackingOver, AWaitHoldsNoOtherCallUp) {
  const Client client = host_.connect();
  const Buffer buffer = value(client.allocate(size, {.backing = {.prefault = PrefaultPages::yes}}));
  std::thread waiter(
      [&] { EXPECT_EQ(PrefaultState::done, value(buffer.backing(no_deadline)).prefault); });
  for (int i = 0; i < 20; ++i) {
    const Buffer other = value(client.allocate(ByteCount(4096)));
    EXPECT_EQ(PageSize::base, value(other.backing()).pages);
  }
  waiter.join();
}

TEST_P(BackingOver, ASessionThatEndsWhileItsPagesAreMadeLeavesNothing) {
  for (int i = 0; i < 3; ++i) {
    const Client client = host_.connect();
    std::vector<Buffer> buffers;
    for (int k = 0; k < 3; ++k)
      buffers.push_back(
          value(client.allocate(size, {.backing = {.prefault = PrefaultPages::yes}})));
    for (Buffer& buffer : buffers) static_cast<void>(buffer.release());
  }
  const Client watcher = host_.connect();
  // The end of a session is noticed when its turn comes.
  const auto deadline = test::soon();
  while (value(watcher.usage()).host_used != 0) {
    ASSERT_LT(std::chrono::steady_clock::now(), deadline);
    std::this_thread::yield();
  }
}

TEST_P(BackingOver, WhatCannotBeHadIsAnErrorOrInTheReport) {
  const Client client = host_.connect();
  BackingRequest request{.nodes = {NodeRule::bind, {std::uint64_t{1} << 63}},
                         .rule = BackingRule::exact};
  EXPECT_EQ(Errc::not_supported, test::code(client.allocate(size, {.backing = request})));
  request.rule = BackingRule::best_effort;
  const Buffer buffer = value(client.allocate(size, {.backing = request}));
  EXPECT_EQ(Errc::not_supported, value(buffer.backing()).refused.nodes);

  // A session may lock 64 MiB.
  const BackingRequest locked{.rule = BackingRule::exact, .lock = MemoryLock::locked};
  EXPECT_EQ(Errc::over_quota,
            test::code(client.allocate(ByteCount(65ULL << 20), {.backing = locked})));
  // Pages of a pool are for read-only buffers.
  const BackingRequest pool{.pages = PageSize::huge_2m, .rule = BackingRule::exact};
  EXPECT_EQ(Errc::not_permitted, test::code(client.allocate(size, {.backing = pool})));
  EXPECT_EQ(Errc::invalid_argument,
            test::code(client.allocate(size, {.domain = Domain::device, .backing = locked})));
  const Buffer device = value(client.allocate(ByteCount(4096), {.domain = Domain::device}));
  EXPECT_EQ(Errc::not_supported, test::code(device.backing()));
}

TEST_P(BackingOver, TheDeviceReachesMemoryOfEveryKind) {
  const Client client = host_.connect();
  constexpr ByteCount piece{64 << 10};
  const BackingRequest requests[] = {
      {.pages = PageSize::transparent, .lock = MemoryLock::locked},
      {.pages = PageSize::huge_2m, .dumps = CoreDumps::excluded, .prefault = PrefaultPages::yes},
      {.nodes = {NodeRule::preferred, {1}}, .zero_on_free = ZeroOnFree::yes},
      {.importable = Importable::needed}};
  const Buffer source = value(client.allocate(piece));
  const auto source_bytes = value(source.map_cpu());
  std::ranges::fill(source_bytes.bytes(), std::byte{0x5a});
  const auto source_at = value(source.map_device());
  for (const BackingRequest& request : requests)
    for (const CpuVisibility cpu : {CpuVisibility::by_domain, CpuVisibility::read_only}) {
      const Buffer buffer = value(client.allocate(piece, {.cpu = cpu, .backing = request}));
      const BufferRange front{BufferOffset(0), BufferOffset(piece.value())};
      const auto at = value(buffer.map_device(front, Access::read_write));
      value(test::copy_and_wait(client, source_at.address(), at.address(), piece));
      const auto bytes = value(buffer.map_cpu(front, Access::read));
      EXPECT_EQ(0, std::memcmp(bytes.bytes().data(), source_bytes.bytes().data(), piece.value()));
    }
}

std::uint64_t free_pool_pages() {
  std::ifstream file("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages");
  std::uint64_t pages = 0;
  file >> pages;
  return pages;
}

class PoolOver : public BackingOver {
 protected:
  void SetUp() override {
    if (free_pool_pages() < 4) GTEST_SKIP() << "fewer than 4 free 2 MiB pages in the kernel's pool";
  }
  static constexpr BackingRequest pool{.pages = PageSize::huge_2m, .rule = BackingRule::exact};
};
INSTANTIATE_TEST_SUITE_P(Each, PoolOver, testing::Values(Path::socket, Path::embedded));

TEST_P(PoolOver, AReadOnlyBufferHasItsPagesAndTheDeviceWritesThem) {
  const std::uint64_t before = free_pool_pages();
  {
    const Client client = host_.connect();
    const Buffer buffer =
        value(client.allocate(ByteCount(4096), {.cpu = CpuVisibility::read_only, .backing = pool}));
    EXPECT_EQ(2_MiB, buffer.size()) << "whole pages of the pool";
    const auto report = value(buffer.backing());
    EXPECT_EQ(PageSize::huge_2m, report.pages);
    EXPECT_EQ(2_MiB, report.populated);
    EXPECT_EQ(before - 1, free_pool_pages());
    const Buffer source = value(client.allocate(2_MiB));
    const auto source_bytes = value(source.map_cpu());
    std::memset(source_bytes.bytes().data(), 0x5a, 2 << 20);
    const auto bytes = value(buffer.map_cpu(Access::read));
    EXPECT_EQ(std::byte{0}, bytes.bytes().back());
    const auto from = value(source.map_device());
    const auto to = value(buffer.map_device());
    value(test::copy_and_wait(client, from.address(), to.address(), 2_MiB));
    EXPECT_EQ(0, std::memcmp(bytes.bytes().data(), source_bytes.bytes().data(), 2 << 20));
    EXPECT_EQ(Errc::not_permitted, test::code(buffer.map_cpu(Access::read_write)));
    // A part of it, where no page of the pool begins: mapped, read and unmapped all the same.
    for (const std::uint64_t offset : {0U, 4096U, (2U << 20) - 4096U}) {
      const auto part =
          value(buffer.map_cpu({BufferOffset(offset), BufferOffset(offset + 4096)}, Access::read));
      EXPECT_EQ(4096U, part.bytes().size());
      EXPECT_EQ(std::byte{0x5a}, part.bytes()[0]);
    }
    const auto exported = value(buffer.export_view());
    EXPECT_EQ(Errc::not_supported, test::code(client.import_view(exported)));
  }
  const Client client = host_.connect();
  const auto deadline = test::soon();
  while (free_pool_pages() != before) {
    ASSERT_LT(std::chrono::steady_clock::now(), deadline);
    std::this_thread::yield();
  }
}

TEST_P(PoolOver, AnEmptyPoolGivesWayToOrdinaryPages) {
  const Client client = host_.connect();
  const ByteCount more((free_pool_pages() + 1) << 21);
  BackingRequest request = pool;
  EXPECT_EQ(Errc::no_memory, test::code(client.allocate(
                                 more, {.cpu = CpuVisibility::read_only, .backing = request})));
  request.rule = BackingRule::best_effort;
  const Buffer buffer =
      value(client.allocate(more, {.cpu = CpuVisibility::read_only, .backing = request}));
  const auto report = value(buffer.backing());
  EXPECT_TRUE(report.pages == PageSize::base || report.pages == PageSize::transparent);
  EXPECT_EQ(Errc::no_memory, report.refused.pages);
}

TEST(BackingOfARuntime, ThatTrustsItsSessionsGivesThemWritablePagesOfAPool) {
  if (free_pool_pages() < 4) GTEST_SKIP() << "fewer than 4 free 2 MiB pages in the kernel's pool";
  test::TemporaryFolder folder;
  const auto runtime =
      value(Runtime::create({.directory = folder.path(),
                             .host_backing = {.pages = PageSize::huge_2m},
                             .backing_policy = {.hugetlb = HugetlbUse::every_buffer}}));
  value(runtime->register_device(sim::npu_description({}), value(sim::make_npu_driver({}))));
  const Client client = value(Client::connect(0, NodeKind::compute, folder.path()));
  const Buffer buffer = value(client.allocate(3_MiB));
  EXPECT_EQ(PageSize::huge_2m, value(buffer.backing()).pages);
  const auto bytes = value(buffer.map_cpu());
  EXPECT_EQ(4U << 20, bytes.bytes().size());
  std::memset(bytes.bytes().data(), 1, bytes.bytes().size());
}

TEST(BackingOfARuntime, ItsOptionsAreForWhoAsksForNothing) {
  test::TemporaryFolder folder;
  const auto runtime = value(Runtime::create(
      {.directory = folder.path(),
       .host_backing = {.dumps = CoreDumps::excluded, .prefault = PrefaultPages::yes},
       .backing_policy = {.prefault_threads = 1}}));
  value(runtime->register_device(sim::npu_description({}), value(sim::make_npu_driver({}))));
  const Client client = value(Client::connect(0, NodeKind::compute, folder.path()));
  const Buffer buffer = value(client.allocate(size));
  EXPECT_EQ(PrefaultState::done, value(buffer.backing(no_deadline)).prefault);
  EXPECT_EQ(Errc::invalid_argument,
            test::code(Runtime::create(
                {.directory = folder.path(), .host_backing = {.nodes = {NodeRule::bind, {}}}})));
}

}  // namespace
}  // namespace accelmm
