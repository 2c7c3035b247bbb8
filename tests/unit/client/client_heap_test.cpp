// SPDX-License-Identifier: Apache-2.0
#include "support/census.hpp"
#include "support/failing_calls.hpp"
#include "unit/client/fake_driver.hpp"

#include <accelmm/client_heap.hpp>

#include <cerrno>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

namespace accelmm {
namespace {

using test::FakeChannel;
using test::FakeDriver;
using test::Reply;

constexpr Alignment unit = HeapSource::unit;

class ClientHeapSourceTest : public testing::Test {
 protected:
  void SetUp() override {
    auto client = Client::connect(std::make_unique<FakeChannel>(driver_));
    ASSERT_TRUE(client);
    client_ = std::move(*client);
    before_ = test::take_census();
    make({});
  }
  void make(const ClientHeapSource::Options& options) {
    source_.reset();
    auto source = ClientHeapSource::create(*client_, options);
    ASSERT_TRUE(source);
    source_ = std::move(*source);
  }
  // Has the device map the next buffer there.
  void map_next_at(std::uint64_t address) {
    driver_->tamper(ACCELMM_IOCTL_MAP_DEVICE,
                    [=](Reply& reply) { reply.as<accelmm_map_device>().address = address; });
  }
  void expect_nothing_left() {
    EXPECT_EQ(0U, driver_->buffers.size());
    EXPECT_EQ(driver_->count(ACCELMM_IOCTL_MAP_DEVICE),
              driver_->count(ACCELMM_IOCTL_UNMAP_DEVICE) + refused_maps_);
    EXPECT_EQ(0U, test::count_maps("/memfd:"));
  }

  std::shared_ptr<FakeDriver> driver_ = std::make_shared<FakeDriver>();
  std::optional<Client> client_;
  test::Census before_;
  std::unique_ptr<ClientHeapSource> source_;
  std::size_t refused_maps_ = 0;
};

TEST_F(ClientHeapSourceTest, AChunkIsABufferMappedForBoth) {
  map_next_at(0x4000'0000);
  const auto chunk = source_->grow(2_MiB, unit);
  ASSERT_TRUE(chunk) << chunk.error().what;
  EXPECT_EQ(DeviceAddr(0x4000'0000), chunk->address);
  EXPECT_EQ(2_MiB, chunk->size);
  EXPECT_EQ(Contents::zeros, chunk->contents);
  EXPECT_TRUE(unit.divides(reinterpret_cast<std::uintptr_t>(chunk->pointer)));
  const HeapRange range = source_->range();
  EXPECT_LE(range.base, chunk->pointer);
  EXPECT_GE(range.base + range.size.value(), chunk->pointer + chunk->size.value());
  // What the processor writes is in the buffer.
  chunk->pointer[5] = std::byte{0x77};
  std::byte seen{};
  ASSERT_EQ(1, ::pread(driver_->buffers.begin()->second.get(), &seen, 1, 5));
  EXPECT_EQ(std::byte{0x77}, seen);
  source_->give_back(*chunk);
  expect_nothing_left();
}

TEST_F(ClientHeapSourceTest, ChunksDoNotTouch) {
  make({.device = DeviceUse::none, .range = 16_MiB});
  const auto first = source_->grow(2_MiB, unit);
  const auto second = source_->grow(100_KiB, unit);
  const auto third = source_->grow(2_MiB, Alignment(4 << 20));
  ASSERT_TRUE(first && second && third);
  EXPECT_FALSE(first->address);
  EXPECT_EQ(first->pointer + (4 << 20), second->pointer);
  EXPECT_EQ(Errc::no_memory, source_->grow(16_MiB, unit).error().code);
  EXPECT_EQ(Errc::no_memory, source_->grow(1_MiB, Alignment(1 << 30)).error().code);
  EXPECT_EQ(3U, driver_->buffers.size()) << "what found no place was given up again";
  source_.reset();
  expect_nothing_left();
}

TEST_F(ClientHeapSourceTest, WhereTheDeviceHasAnotherPhaseALargerBufferHoldsAnAlignedPart) {
  driver_->fd_offset = 4096;
  int maps = 0;
  const auto odd = [&](Reply& reply) {
    reply.as<accelmm_map_device>().address =
        0x4010'3000U + 0x1000'0000U * static_cast<unsigned>(maps++);
  };
  driver_->tamper(ACCELMM_IOCTL_MAP_DEVICE, odd);
  // The fake's next own address is no multiple of 2 MiB either.
  const auto chunk = source_->grow(2_MiB, unit);
  ASSERT_TRUE(chunk) << chunk.error().what;
  ASSERT_TRUE(chunk->address);
  EXPECT_TRUE(unit.divides(*chunk->address));
  EXPECT_GE(chunk->size, 2_MiB);
  EXPECT_EQ(2U, driver_->count(ACCELMM_IOCTL_ALLOC));
  EXPECT_EQ(1U, driver_->buffers.size());
  const auto skip = driver_->last<accelmm_map_cpu>().offset;
  chunk->pointer[0] = std::byte{0x55};
  std::byte seen{};
  ASSERT_EQ(1, ::pread(driver_->buffers.begin()->second.get(), &seen, 1,
                       static_cast<off_t>(driver_->fd_offset + skip)));
  EXPECT_EQ(std::byte{0x55}, seen);
  source_->give_back(*chunk);
  expect_nothing_left();
}

TEST_F(ClientHeapSourceTest, RefusalsComeThroughAndLeaveNothing) {
  const std::pair<std::uint32_t, int> refusals[] = {
      {ACCELMM_IOCTL_ALLOC, EDQUOT},      {ACCELMM_IOCTL_ALLOC, ENOMEM},
      {ACCELMM_IOCTL_MAP_DEVICE, EDQUOT}, {ACCELMM_IOCTL_MAP_DEVICE, EOPNOTSUPP},
      {ACCELMM_IOCTL_MAP_CPU, EDQUOT},    {ACCELMM_IOCTL_WAIT, EFAULT}};
  for (const auto& [command, error] : refusals) {
    if (command != ACCELMM_IOCTL_MAP_DEVICE) map_next_at(0x4000'0000);
    driver_->refuse(command, error);
    const auto chunk = source_->grow(2_MiB, unit);
    ASSERT_FALSE(chunk) << command;
    EXPECT_EQ(static_cast<Errc>(error), chunk.error().code);
    if (command == ACCELMM_IOCTL_MAP_DEVICE) ++refused_maps_;
    driver_->tamper(0, nullptr);
    expect_nothing_left();
  }
}

TEST_F(ClientHeapSourceTest, AReplyThatLiesAboutTheFileIsRefused) {
  for (const std::uint64_t offset : {std::uint64_t{4096}, std::uint64_t{1} << 40}) {
    make({.device = DeviceUse::none});
    driver_->tamper(ACCELMM_IOCTL_MAP_CPU,
                    [=](Reply& reply) { reply.as<accelmm_map_cpu>().fd_offset = offset; });
    EXPECT_EQ(Errc::protocol_error, source_->grow(2_MiB, unit).error().code);
    expect_nothing_left();
  }
  driver_->fd_offset = 100;  // a file that has it, at no page
  driver_->tamper(ACCELMM_IOCTL_MAP_CPU, nullptr);
  EXPECT_EQ(Errc::protocol_error, source_->grow(2_MiB, unit).error().code);
}

TEST_F(ClientHeapSourceTest, EverySystemCallMayFail) {
  make({.device = DeviceUse::none});
  long calls = 0;
  {
    const test::FailingCall counter(0, 0);
    const auto chunk = source_->grow(2_MiB, unit);
    ASSERT_TRUE(chunk);
    calls = counter.calls();
    source_->give_back(*chunk);
  }
  ASSERT_GE(calls, 3) << "fstat, mmap, madvise";
  for (long k = 1; k <= calls; ++k) {
    const test::FailingCall failing(k, EIO);
    const auto chunk = source_->grow(2_MiB, unit);
    ASSERT_FALSE(chunk) << k;
    EXPECT_EQ(Errc::io_error, chunk.error().code);
    expect_nothing_left();
  }
  {
    const test::FailingCall counter(0, 0);
    ASSERT_TRUE(ClientHeapSource::create(*client_, {}));
    calls = counter.calls();
  }
  const test::Census before = test::take_census();
  for (long k = 1; k <= calls; ++k) {
    const test::FailingCall failing(k, EIO);
    EXPECT_FALSE(ClientHeapSource::create(*client_, {})) << k;
    EXPECT_TRUE(before.matches(test::take_census()));
  }
}

TEST_F(ClientHeapSourceTest, APlaceThatCannotBeUnmappedIsNotUsedAgain) {
  make({.device = DeviceUse::none, .range = 8_MiB});
  const auto chunk = source_->grow(2_MiB, unit);
  ASSERT_TRUE(chunk);
  {
    const test::FailingSite failing("mmap", ENOMEM);
    source_->give_back(*chunk);
    EXPECT_EQ(1, failing.failures());
  }
  EXPECT_EQ(0U, driver_->buffers.size());
  const auto other = source_->grow(2_MiB, unit);
  ASSERT_TRUE(other);
  EXPECT_NE(chunk->pointer, other->pointer);
  EXPECT_FALSE(source_->grow(2_MiB, unit)) << "two of the places of the range";
}

TEST_F(ClientHeapSourceTest, RefusesOptionsThatContradict) {
  const auto code = [&](const ClientHeapSource::Options& options) {
    return ClientHeapSource::create(*client_, options).error().code;
  };
  EXPECT_EQ(Errc::invalid_argument, code({.range = 1_MiB}));
  EXPECT_EQ(Errc::invalid_argument, code({.range = ByteCount(std::uint64_t{1} << 50)}));
  EXPECT_EQ(Errc::invalid_argument, code({.access = static_cast<Access>(9)}));
  EXPECT_EQ(Errc::invalid_argument, code({.buffer = {.domain = static_cast<Domain>(7)}}));
}

TEST_F(ClientHeapSourceTest, AHeapAfterTheDriverProcessDiedServesWhatItHas) {
  auto heap = ClientHeap::create(*client_, {.memory = {.device = DeviceUse::none}});
  ASSERT_TRUE(heap);
  const auto piece = heap->heap().allocate(64_B);
  ASSERT_TRUE(piece);
  driver_->die();
  EXPECT_TRUE((*heap)->allocate(64_B));
  EXPECT_EQ(Errc::no_device, (*heap)->allocate(10_MiB).error().code);
  static_cast<char*>(piece->pointer)[0] = 1;
  EXPECT_TRUE((*heap)->free(piece->pointer));
}

TEST_F(ClientHeapSourceTest, KeepsTheSessionWhenTheClientGoes) {
  auto heap = ClientHeap::create(*client_, {.memory = {.device = DeviceUse::none}});
  ASSERT_TRUE(heap);
  client_.reset();
  EXPECT_TRUE((*heap)->allocate(64_B));
}

TEST_F(ClientHeapSourceTest, AForkedChildIsToldSoAndUnmapsNothing) {
  make({.device = DeviceUse::none});
  auto heap = ClientHeap::create(*client_, {.memory = {.device = DeviceUse::none}});
  ASSERT_TRUE(heap);
  const auto piece = (*heap)->allocate(64_B);
  ASSERT_TRUE(piece);
  const auto chunk = source_->grow(2_MiB, unit);
  ASSERT_TRUE(chunk);
  const pid_t child = ::fork();
  if (child == 0) {
    int wrong = 0;
    if ((*heap)->allocate(64_B) || (*heap)->allocate(64_B).error().code != Errc::no_device)
      wrong |= 1;
    if ((*heap)->allocate(64_KiB)) wrong |= 2;
    if ((*heap)->free(piece->pointer)) wrong |= 4;
    if (source_->grow(2_MiB, unit)) wrong |= 8;
    // The child may have put something else where the chunk is in its parent.
    void* const own = ::mmap(chunk->pointer, 4096, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    *static_cast<volatile char*>(own) = 3;
    source_->give_back(*chunk);
    source_.reset();
    {
      const ClientHeap ended = std::move(*heap);
    }
    if (*static_cast<volatile char*>(own) != 3) wrong |= 16;
    ::_exit(wrong);
  }
  int status = -1;
  ASSERT_EQ(child, ::waitpid(child, &status, 0));
  EXPECT_EQ(0, status) << WEXITSTATUS(status);
  EXPECT_TRUE((*heap)->free(piece->pointer));
  source_->give_back(*chunk);
}

}  // namespace
}  // namespace accelmm
