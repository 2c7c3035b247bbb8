// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/check.hpp>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

namespace accelmm::mm {

/// Where ranges in quarantine begin, the oldest first, in a ring.
///
/// Threads  externally synchronised.
class VaQuarantine {
 public:
  /// Not to be used where ok() is false: there was no memory.
  explicit VaQuarantine(std::size_t capacity)
      : capacity_(capacity),
        begins_(capacity == 0 || capacity > max_capacity ? nullptr
                                                         : new(std::nothrow)
                                                               std::uint64_t[capacity]) {}
  [[nodiscard]] bool ok() const { return capacity_ == 0 || begins_ != nullptr; }
  [[nodiscard]] std::size_t capacity() const { return capacity_; }
  [[nodiscard]] std::size_t size() const { return size_; }
  void push(std::uint64_t begin) {
    ACCELMM_DCHECK(size_ < capacity_);
    begins_[(first_ + size_++) % capacity_] = begin;
  }
  [[nodiscard]] std::uint64_t pop() {
    ACCELMM_DCHECK(size_ > 0);
    const std::uint64_t begin = begins_[first_];
    first_ = (first_ + 1) % capacity_;
    --size_;
    return begin;
  }

 private:
  static constexpr std::size_t max_capacity = std::size_t{1} << 32;
  std::size_t capacity_;
  std::size_t first_ = 0;
  std::size_t size_ = 0;
  std::unique_ptr<std::uint64_t[]> begins_;
};

}  // namespace accelmm::mm
