// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/check.hpp>
#include <accelmm/extent.hpp>
#include <accelmm/mmu/invalidation.hpp>
#include <accelmm/mmu/table_pool.hpp>
#include <accelmm/units.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <utility>
#include <vector>

namespace accelmm::mmu::test {

constexpr std::uint64_t table_bytes = 4096;
constexpr std::uint32_t table_entries = 512;

/// Memory for page tables, and a pool over it. The memory is the test's to read, and to damage.
class Tables {
 public:
  /// Far from zero, so that an offset taken for an address is found out.
  static constexpr std::uint64_t bus_begin = 0x7'6540'0000;
  /// The same for formats of 32 bits.
  static constexpr std::uint64_t low_bus_begin = 0x7654'0000;

  explicit Tables(std::uint32_t count, std::uint64_t bytes_of_each = table_bytes,
                  std::uint64_t begin = bus_begin)
      : begin_(begin),
        each_(std::max(bytes_of_each, table_bytes)),
        bytes_(count * each_),
        memory_(new_zeroed(bytes_)),
        pool_(make_pool()) {}

  [[nodiscard]] TablePool& pool() { return pool_; }
  [[nodiscard]] std::size_t size() const { return bytes_; }
  [[nodiscard]] const std::byte* bytes() const { return memory_.get(); }
  [[nodiscard]] std::byte* at(BusAddr address) {
    ACCELMM_CHECK(address.value() >= begin_ && address.value() - begin_ < bytes_);
    return memory_.get() + (address.value() - begin_);
  }
  [[nodiscard]] std::uint64_t word(BusAddr table, std::uint32_t index) {
    std::uint64_t value = 0;
    std::memcpy(&value, at(table) + index * sizeof value, sizeof value);
    return value;
  }
  void plant(BusAddr table, std::uint32_t index, std::uint64_t value) {
    std::memcpy(at(table) + index * sizeof value, &value, sizeof value);
  }
  [[nodiscard]] std::vector<std::byte> snapshot() const {
    return {memory_.get(), memory_.get() + bytes_};
  }

 private:
  static constexpr std::size_t alignment = 65'536;  // of the largest tables

  struct Free {
    void operator()(std::byte* bytes) const {
      ::operator delete(bytes, std::align_val_t{alignment});
    }
  };

  static std::byte* new_zeroed(std::size_t bytes) {
    auto* memory = static_cast<std::byte*>(::operator new(bytes, std::align_val_t{alignment}));
    std::memset(memory, 0, bytes);
    return memory;
  }
  TablePool make_pool() {
    auto pool = TablePool::create({BusAddr(begin_), ByteCount(bytes_), memory_.get(), each_});
    ACCELMM_CHECK(pool.has_value());
    return std::move(*pool);
  }

  std::uint64_t begin_;
  std::uint64_t each_;
  std::size_t bytes_;
  std::unique_ptr<std::byte[], Free> memory_;
  TablePool pool_;
};

/// testing::Test has a member named Run: tests spell the lists of ours differently.
using Runs = std::vector<Run>;

inline Run run(std::uint64_t address, std::uint64_t length) {
  return {BusAddr(address), ByteCount(length)};
}

inline Range<DeviceAddr> range(std::uint64_t begin, std::uint64_t end) {
  return {DeviceAddr(begin), DeviceAddr(end)};
}

/// What a device would have said after invalidating the range.
inline InvalidationDone invalidated(Range<DeviceAddr> range) {
  return InvalidationDone({1, range, Invalidation::Cause::unmap});
}

/// Releases an Unmapped or a Detached, as if its range had just been invalidated.
template <class Gone>
void release(Gone&& gone) {
  const Range<DeviceAddr> range = gone.range();
  std::forward<Gone>(gone).release(invalidated(range));
}

}  // namespace accelmm::mmu::test
