// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/va_allocator.hpp>

#include <cstdint>
#include <utility>

#include <gtest/gtest.h>

/// What the tests of requests and of reservations begin with.
namespace accelmm::test {

inline Range<DeviceAddr> range(std::uint64_t begin, std::uint64_t end) {
  return {DeviceAddr(begin), DeviceAddr(end)};
}

/// An allocator of 4 KiB pages.
inline VaAllocator make_addresses(std::uint64_t begin, std::uint64_t end,
                                  const VaAllocator::Options& options = {}) {
  auto made = VaAllocator::create(range(begin, end), Alignment(4096), options);
  EXPECT_TRUE(made.has_value());
  return std::move(made).value();
}

}  // namespace accelmm::test
