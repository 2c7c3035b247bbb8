// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/device_heap.hpp>

#include <cstdint>
#include <limits>
#include <memory>
#include <utility>

#include <gtest/gtest.h>

namespace accelmm::test {

/// The code of a failure, or 0.
template <class T>
Errc code(const Result<T>& result) {
  return result ? Errc{} : result.error().code;
}

/// A heap of 32 native pages of 2 MiB, unless told otherwise, with a device's account.
class DeviceHeapTest : public testing::Test {
 protected:
  static constexpr ByteCount native = 2_MiB;

  void make(DeviceHeap::Options options = {.size = 64_MiB, .native_page = native}) {
    heap.emplace(DeviceHeap::create(options).value());
  }
  [[nodiscard]] std::shared_ptr<Account> account(
      ByteCount limit = ByteCount(std::numeric_limits<std::uint64_t>::max()),
      std::uint64_t number = 0, std::shared_ptr<Account> parent = nullptr) {
    return std::make_shared<Account>(
        Account::Options{.name = {AccountName::Level::session, number},
                         .limits = {.bytes = limit},
                         .parent = parent ? std::move(parent) : device});
  }
  [[nodiscard]] OwnerId owner() { return heap->add_owner(account()).value(); }
  [[nodiscard]] DeviceHeap::Allocated take(OwnerId of, ByteCount size) {
    return heap->allocate(of, {.size = size}).value();
  }
  [[nodiscard]] static std::uint64_t page_of(const Extent& extent) {
    return extent.offset.value() / native.value();
  }

  std::shared_ptr<Account> device = std::make_shared<Account>(Account::Options{});
  std::optional<DeviceHeap> heap;
};

}  // namespace accelmm::test
