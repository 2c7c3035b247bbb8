// SPDX-License-Identifier: Apache-2.0
//
// Memory of the process itself, in no buffer, that a device behind an IOMMU reaches as it lies there.
#include "unit/edu/edu_driver_fixture.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <limits>
#include <memory>
#include <span>
#include <vector>

#include <sys/mman.h>

namespace accelmm::edu {
namespace {

constexpr std::size_t page = test::FakeVfio::page;
constexpr std::size_t size = 2 * page;

struct Free {
  void operator()(std::byte* memory) const { std::free(memory); }
};

class MemoryInPlace : public EduDriverTest {
 protected:
  void SetUp() override {
    ASSERT_TRUE(start().has_value());
    for (std::size_t i = 0; i < size; ++i) memory()[i] = static_cast<std::byte>(i * 7 + i / 256);
  }
  [[nodiscard]] std::span<std::byte> memory() { return {memory_.get(), size}; }
  static Errc error(const Client& client, std::span<std::byte> memory,
                    Access access = Access::read_write) {
    const auto mapped = client.map_in_place(memory, access);
    return mapped ? Errc{} : mapped.error().code;
  }

  std::unique_ptr<std::byte[], Free> memory_{
      static_cast<std::byte*>(std::aligned_alloc(page, size))};
};

TEST_F(MemoryInPlace, IsReadAndWrittenWhereItLies) {
  const Client client = connect();
  const auto there = client.map_in_place(memory());
  ASSERT_TRUE(there.has_value()) << there.error().what;
  EXPECT_TRUE(client.wait(there->point()).has_value());
  EXPECT_EQ(ByteCount(size), there->size());
  const std::uint64_t address = there->address().value();
  const std::vector<std::byte> before(memory().begin(), memory().end());
  ASSERT_TRUE(copy(client, ACCELMM_IOCTL_EDU_COPY_IN, address + 100, 0, 3000).has_value());
  ASSERT_TRUE(copy(client, ACCELMM_IOCTL_EDU_COPY_OUT, address + 5000, 0, 3000).has_value());
  EXPECT_TRUE(
      std::ranges::equal(std::span(before).subspan(100, 3000), memory().subspan(5000, 3000)));
  EXPECT_TRUE(std::ranges::equal(std::span(before).first(5000), memory().first(5000)));
  EXPECT_EQ(0, hardware_.missed);
}

TEST_F(MemoryInPlace, IsNoBufferAndCountsAsAMapping) {
  const Client client = connect();
  const auto there = client.map_in_place(memory());
  const auto info = client.session_info();
  EXPECT_EQ(0U, info->buffers);
  EXPECT_EQ(1U, info->mappings);
  EXPECT_EQ(size, info->mapped_bytes);
  EXPECT_EQ(ByteCount(size), kernel_.lock.locked);
}

TEST_F(MemoryInPlace, IsOutOfReachAndUnpinnedOnceItsMappingEnds) {
  const Client client = connect();
  std::uint64_t address = 0;
  {
    const auto there = client.map_in_place(memory());
    address = there->address().value();
  }
  EXPECT_EQ(0U, client.session_info()->mapped_bytes);
  EXPECT_EQ(0_B, kernel_.lock.locked);
  EXPECT_TRUE(kernel_.mapped.empty());
  EXPECT_EQ(Errc::fault, copy(client, ACCELMM_IOCTL_EDU_COPY_OUT, address, 0, 8).error().code);
  EXPECT_EQ(address, client.last_fault()->address);
}

TEST_F(MemoryInPlace, IsUnpinnedWhenItsSessionEnds) {
  {
    const Client client = connect();
    (void)client.map_in_place(memory())->release();
    (void)client.map_in_place(memory(), Access::read)->release();
    EXPECT_EQ(2U, kernel_.mapped.size());
  }
  const Client next = connect();  // waits until the one before has ended
  EXPECT_TRUE(kernel_.mapped.empty());
  EXPECT_EQ(0_B, kernel_.lock.locked);
}

// By the second time other pages may be there, and those of the first are still pinned.
TEST_F(MemoryInPlace, HasAMappingOfItsOwnEachTime) {
  const Client client = connect();
  auto first = client.map_in_place(memory());
  const auto second = client.map_in_place(memory());
  ASSERT_TRUE(first.has_value() && second.has_value());
  EXPECT_NE(first->address(), second->address());
  EXPECT_EQ(ByteCount(2 * size), kernel_.lock.locked);
  const std::uint64_t gone = first->address().value();
  ASSERT_TRUE(first->unmap().has_value());
  EXPECT_EQ(Errc::fault, copy(client, ACCELMM_IOCTL_EDU_COPY_IN, gone, 0, 8).error().code);
  EXPECT_TRUE(copy(client, ACCELMM_IOCTL_EDU_COPY_IN, second->address().value(), 0, 8).has_value());
}

TEST_F(MemoryInPlace, ForReadingIsNotWritten) {
  const Client client = connect();
  const auto there = client.map_in_place(memory(), Access::read);
  const std::uint64_t address = there->address().value();
  EXPECT_TRUE(copy(client, ACCELMM_IOCTL_EDU_COPY_IN, address, 0, 8).has_value());
  EXPECT_EQ(Errc::fault, copy(client, ACCELMM_IOCTL_EDU_COPY_OUT, address, 0, 8).error().code);
}

// This process connects to itself: no number of it would tell. What comes over a socket is never taken
// for memory of the driver process.
TEST_F(MemoryInPlace, OfWhoComesOverASocketIsNotSupported) {
  const auto client = Client::connect(0, NodeKind::compute, folder_.path());
  ASSERT_TRUE(client.has_value());
  EXPECT_EQ(Errc::not_supported, error(*client, memory()));
  EXPECT_TRUE(kernel_.mapped.empty());
}

TEST_F(MemoryInPlace, ThatIsNotWholePagesIsRefusedByBothEnds) {
  const Client client = connect();
  EXPECT_EQ(Errc::invalid_argument, error(client, memory().first(0)));
  EXPECT_EQ(Errc::invalid_argument, error(client, memory().first(page + 1)));
  EXPECT_EQ(Errc::invalid_argument, error(client, memory().subspan(1, page)));
  EXPECT_EQ(Errc::invalid_argument, error(client, memory(), static_cast<Access>(0)));
  const auto begin = reinterpret_cast<std::uintptr_t>(memory_.get());
  constexpr std::uint64_t last_page = std::numeric_limits<std::uint64_t>::max() - page + 1;
  const accelmm_map_memory good{begin, page, 0, ACCELMM_PLACE_ANYWHERE, ACCELMM_ACCESS_READ, {}};
  for (const auto& [memory, length] : {std::pair{begin, std::uint64_t{0}},
                                       {begin, page + 1},
                                       {begin + 1, page},
                                       {begin, last_page},
                                       {last_page, page}}) {
    accelmm_map_memory args = good;
    args.memory = memory;
    args.length = length;
    EXPECT_EQ(Errc::invalid_argument, client.ioctl(ACCELMM_IOCTL_MAP_MEMORY, args).error().code);
  }
  accelmm_map_memory args = good;
  args.access = 4;
  EXPECT_EQ(Errc::invalid_argument, client.ioctl(ACCELMM_IOCTL_MAP_MEMORY, args).error().code);
  args = good;
  args.placement = 3;
  EXPECT_EQ(Errc::invalid_argument, client.ioctl(ACCELMM_IOCTL_MAP_MEMORY, args).error().code);
  EXPECT_TRUE(kernel_.mapped.empty());
  args = good;
  EXPECT_TRUE(client.ioctl(ACCELMM_IOCTL_MAP_MEMORY, args).has_value());
}

TEST_F(MemoryInPlace, HasTheLimitsOfMappings) {
  const Client client = connect();
  EXPECT_EQ(Errc::not_supported,
            client.map_in_place(memory(), Access::read, DevicePlacement::fixed(DeviceAddr(1 << 20)))
                .error()
                .code);
  kernel_.lock.limit = ByteCount(page);
  EXPECT_EQ(Errc::over_quota, error(client, memory()));
  EXPECT_EQ(0U, client.session_info()->mappings);
  const auto one = client.map_in_place(memory().first(page));
  EXPECT_TRUE(one.has_value());
}

}  // namespace
}  // namespace accelmm::edu
