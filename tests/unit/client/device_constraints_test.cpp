// SPDX-License-Identifier: Apache-2.0
#include <accelmm/buffer.hpp>
#include <accelmm/device_constraints.hpp>
#include <accelmm/negotiation.hpp>

#include <vector>

#include <gtest/gtest.h>

namespace accelmm::test {
namespace {

accelmm_info_device npu() {
  accelmm_info_device made{};
  made.mmu_format[0] = 'N';
  made.host_page_size = 4096;
  made.host_window_size = std::uint64_t{64} << 30;
  made.va_begin = std::uint64_t{1} << 21;
  made.va_end = std::uint64_t{1} << 50;
  return made;
}

TEST(DeviceConstraints, AnMmuTakesScatteredWholePages) {
  const Constraints wanted = device_constraints(npu());
  EXPECT_TRUE(is_well_formed(wanted));
  EXPECT_EQ(Contiguity::scattered, wanted.contiguity);
  EXPECT_EQ(4096U, wanted.size_divisor);
  EXPECT_EQ(4096U, wanted.offset_divisor);
  EXPECT_EQ(64_GiB, wanted.max_size) << "its window is smaller than its address spaces";
  EXPECT_FALSE(wanted.images) << "pixels are the application's affair";
}

TEST(DeviceConstraints, ASmallAddressSpaceLimitsSizes) {
  auto small = npu();
  small.va_end = small.va_begin + 8192;
  EXPECT_EQ(ByteCount(8192), device_constraints(small).max_size);
}

TEST(DeviceConstraints, WithoutAnMmuMemoryMustLieTogether) {
  auto plain = npu();
  plain.mmu_format[0] = 0;
  EXPECT_EQ(Contiguity::contiguous, device_constraints(plain).contiguity);
}

TEST(DeviceConstraints, NonsenseOfADriverProcessIsStillWellFormed) {
  auto broken = npu();
  broken.host_page_size = 0;
  broken.va_end = 0;
  EXPECT_TRUE(is_well_formed(device_constraints(broken)));
  broken.host_page_size = 4095;
  EXPECT_TRUE(is_well_formed(device_constraints(broken)));
  broken.host_window_size = 0;
  EXPECT_FALSE(negotiate(std::vector<Participant>{{"npu", device_constraints(broken)}}));
}

}  // namespace
}  // namespace accelmm::test
