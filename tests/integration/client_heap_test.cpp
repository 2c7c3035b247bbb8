// SPDX-License-Identifier: Apache-2.0
//
// An application's heap over its session's buffers: what the device does with pieces of it.
#include "support/census.hpp"
#include "support/npu_host.hpp"

#include <accelmm/client_heap.hpp>
#include <accelmm/heap_resource.hpp>
#include <accelmm/jemalloc_heap.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

namespace accelmm {
namespace {

using test::code;
using test::copy_and_wait;
using test::NpuHost;
using test::Path;
using test::value;

class ClientHeapTest : public testing::TestWithParam<Path> {
 protected:
  NpuHost host_{GetParam()};
};

void fill(const HeapPiece& piece, std::uint64_t size, unsigned seed) {
  std::mt19937 random(seed);
  auto* const bytes = static_cast<std::byte*>(piece.pointer);
  for (std::uint64_t i = 0; i < size; ++i) bytes[i] = static_cast<std::byte>(random());
}

TEST_P(ClientHeapTest, AJobOnPiecesMovesExactlyTheirBytes) {
  host_.add();
  const Client client = host_.connect();
  ClientHeap heap = value(ClientHeap::create(client));
  unsigned seed = 1;
  for (const std::uint64_t size : {64U, 1000U, 16384U, 20000U, 300000U, 3000000U, 33000000U}) {
    const HeapPiece from = value(heap->allocate(ByteCount(size)));
    const HeapPiece before = value(heap->allocate(ByteCount(size)));
    const HeapPiece to = value(heap->allocate(ByteCount(size)));
    const HeapPiece after = value(heap->allocate(ByteCount(size)));
    fill(from, size, seed);
    for (const HeapPiece& piece : {before, to, after}) std::memset(piece.pointer, 0x5a, size);
    value(copy_and_wait(client, from.address, to.address, ByteCount(size)));
    EXPECT_EQ(0, std::memcmp(from.pointer, to.pointer, size)) << size;
    for (const HeapPiece& piece : {before, after}) {
      const auto* const bytes = static_cast<const std::byte*>(piece.pointer);
      EXPECT_EQ(std::byte{0x5a}, bytes[0]);
      EXPECT_EQ(0, std::memcmp(bytes, bytes + 1, size - 1)) << size;
    }
    for (const HeapPiece& piece : {from, before, to, after}) value(heap->free(piece.pointer));
    ++seed;
  }
  heap->validate();
}

TEST_P(ClientHeapTest, PiecesComeFromTheHeapWithoutACall) {
  host_.add();
  const Client client = host_.connect();
  ClientHeap heap = value(ClientHeap::create(client));
  static_cast<void>(value(heap->allocate(64_B)));
  const auto before = value(client.usage());
  for (int i = 0; i < 1000; ++i) static_cast<void>(value(heap->allocate(64_B)));
  const auto after = value(client.usage());
  EXPECT_EQ(before.ioctls_total + 1, after.ioctls_total) << "that is usage() itself";
  EXPECT_EQ(2_MiB, heap->statistics().from_source);
}

TEST_P(ClientHeapTest, WhatIsTrimmedGoesBackToTheDriverProcess) {
  host_.add();
  const Client client = host_.connect();
  const auto none = value(client.usage());
  ClientHeap heap = value(ClientHeap::create(client));
  std::vector<HeapPiece> pieces;
  for (int i = 0; i < 200; ++i) pieces.push_back(value(heap->allocate(100_KiB)));
  EXPECT_GT(value(client.usage()).host_used, none.host_used);
  for (const HeapPiece& piece : pieces) value(heap->free(piece.pointer));
  heap->trim();
  EXPECT_EQ(none.host_used, value(client.usage()).host_used);
}

TEST_P(ClientHeapTest, TheQuotaComesThroughAndIsUsedToItsEnd) {
  auto description = sim::npu_description({});
  description.session_quota = {.bytes = 5_MiB};
  value(host_.runtime().register_device(description, value(sim::make_npu_driver({}))));
  const Client client = host_.connect();
  ClientHeap heap = value(ClientHeap::create(client));
  EXPECT_EQ(Errc::over_quota, code(heap->allocate(6_MiB)));
  std::uint64_t bytes = 0;
  Result<HeapPiece> piece = heap->allocate(60_KiB);
  for (; piece; piece = heap->allocate(60_KiB)) bytes += piece->size.value();
  EXPECT_EQ(Errc::over_quota, code(piece));
  EXPECT_GE(bytes, 7U << 19);
  heap->validate();
  // Another session has its own.
  const Client other = host_.connect();
  ClientHeap other_heap = value(ClientHeap::create(other));
  EXPECT_TRUE(other_heap->allocate(64_KiB));
}

TEST_P(ClientHeapTest, DeviceMemoryThatTheProcessorSees) {
  host_.add();
  const Client client = host_.connect();
  ClientHeap heap = value(ClientHeap::create(
      client, {.memory = {.buffer = {.domain = Domain::device, .cpu = CpuVisibility::visible}}}));
  const HeapPiece from = value(heap->allocate(5000_B));
  const HeapPiece to = value(heap->allocate(5000_B));
  fill(from, 5000, 7);
  value(copy_and_wait(client, from.address, to.address, 5000_B));
  EXPECT_EQ(0, std::memcmp(from.pointer, to.pointer, 5000));
}

TEST_P(ClientHeapTest, ContainersAndJemallocLiveThereToo) {
  host_.add();
  const Client client = host_.connect();
  ClientHeap heap = value(ClientHeap::create(client));
  HeapResource resource(heap.heap());
  std::pmr::vector<std::uint32_t> from(10000, 0x01020304, &resource);
  std::pmr::vector<std::uint32_t> to(10000, 0, &resource);
  value(copy_and_wait(client, value(heap->device_address(from.data())),
                      value(heap->device_address(to.data())), 40000_B));
  EXPECT_EQ(from, to);
  const auto source = value(ClientHeapSource::create(client, {}));
  JemallocHeap jemalloc = value(JemallocHeap::create({.source = source.get()}));
  const HeapPiece piece = value(jemalloc.allocate(40000_B));
  value(copy_and_wait(client, value(heap->device_address(from.data())), piece.address, 40000_B));
  EXPECT_EQ(0, std::memcmp(piece.pointer, from.data(), 40000));
}

TEST_P(ClientHeapTest, ThreadsShareIt) {
  host_.add();
  const Client client = host_.connect();
  ClientHeap heap = value(ClientHeap::create(client, {.heap = {.spare_chunks = 0}}));
  std::vector<std::thread> threads;
  for (unsigned number = 0; number < 4; ++number)
    threads.emplace_back([&, number] {
      std::mt19937 random(number);
      for (int round = 0; round < 20; ++round) {
        const std::uint64_t size = 1 + random() % (number == 0 ? 3000000 : 30000);
        const HeapPiece from = value(heap->allocate(ByteCount(size)));
        const HeapPiece to = value(heap->allocate(ByteCount(size)));
        std::memset(from.pointer, static_cast<int>(random()), size);
        value(copy_and_wait(client, from.address, to.address, ByteCount(size)));
        ACCELMM_CHECK(std::memcmp(from.pointer, to.pointer, size) == 0);
        value(heap->free(from.pointer));
        value(heap->free(to.pointer));
      }
    });
  for (auto& thread : threads) thread.join();
  heap->validate();
}

// A driver process does not fork: over the socket only.
TEST(ForkedClientHeap, IsToldSoAndItsParentIsNotDisturbed) {
  NpuHost host;
  host.add();
  const Client client = host.connect();
  ClientHeap heap = value(ClientHeap::create(client));
  const HeapPiece piece = value(heap->allocate(64_B));
  const pid_t child = ::fork();
  if (child == 0) {
    int wrong = 0;
    if (code(heap->allocate(64_B)) != Errc::no_device) wrong |= 1;
    if (code(heap->allocate(10_MiB)) != Errc::no_device) wrong |= 2;
    if (code(heap->free(piece.pointer)) != Errc::no_device) wrong |= 4;
    if (code(heap->reallocate(piece.pointer, 1_KiB)) != Errc::no_device) wrong |= 8;
    ::_exit(wrong);
  }
  int status = -1;
  ASSERT_EQ(child, ::waitpid(child, &status, 0));
  EXPECT_EQ(0, status);
  const HeapPiece other = value(heap->allocate(64_B));
  std::memset(piece.pointer, 1, 64);
  value(copy_and_wait(client, piece.address, other.address, 64_B));
  EXPECT_EQ(0, std::memcmp(piece.pointer, other.pointer, 64));
}

TEST_P(ClientHeapTest, LeavesNothingBehind) {
  host_.add();
  const Client client = host_.connect();
  const auto usage = value(client.usage());
  const test::Census before = test::take_census();
  {
    ClientHeap heap = value(ClientHeap::create(client));
    for (int i = 0; i < 100; ++i) static_cast<void>(value(heap->allocate(200_KiB)));
  }
  const test::Census after = test::take_census();
  EXPECT_TRUE(before.matches(after)) << before << "; " << after;
  EXPECT_EQ(usage.host_used, value(client.usage()).host_used);
}

INSTANTIATE_TEST_SUITE_P(Paths, ClientHeapTest, testing::Values(Path::socket, Path::embedded),
                         [](const auto& path) {
                           return path.param == Path::socket ? "socket" : "embedded";
                         });

}  // namespace
}  // namespace accelmm
