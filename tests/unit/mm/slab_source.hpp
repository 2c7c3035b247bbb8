// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/slab.hpp>

#include <cstdint>
#include <map>
#include <mutex>
#include <optional>

namespace accelmm::test {

/// A source over the numbers of one region that checks what it is given back.
class CheckedSource final : public SlabSource {
 public:
  explicit CheckedSource(ByteCount region) : region_(region) {}

  Result<Extent> grow(ByteCount size, Alignment alignment) override {
    const std::lock_guard lock(mutex_);
    ++calls_;
    if (odd_answer_) return *odd_answer_;
    if (left_ == 0) {
      ++refusals_;
      return fail(Errc::over_quota, "source is told to fail");
    }
    std::uint64_t at = 0;
    for (const auto& [begin, length] : given_) {
      if (begin >= at && begin - at >= size.value()) break;
      at = (begin + length + alignment.value() - 1) & ~(alignment.value() - 1);
    }
    if (at > region_.value() || region_.value() - at < size.value()) {
      ++refusals_;
      return fail(Errc::no_memory, "source is empty");
    }
    given_.emplace(at, size.value());
    --left_;
    return Extent{.offset = RegionOffset(at), .length = size};
  }

  void give_back(Extent extent) override {
    const std::lock_guard lock(mutex_);
    if (odd_answer_ && extent == *odd_answer_) {
      ++odd_returned_;
      return;
    }
    const auto found = given_.find(extent.offset.value());
    if (found == given_.end() || found->second != extent.length.value()) {
      ++wrong_;
      return;
    }
    given_.erase(found);
    if (left_ != ~std::uint64_t{0}) ++left_;
  }

  /// How many more extents may be outstanding.
  void allow(std::uint64_t extents) {
    const std::lock_guard lock(mutex_);
    left_ = extents;
  }
  void answer(std::optional<Extent> odd) {
    const std::lock_guard lock(mutex_);
    odd_answer_ = odd;
  }
  [[nodiscard]] std::uint64_t outstanding() const {
    const std::lock_guard lock(mutex_);
    std::uint64_t bytes = 0;
    for (const auto& [begin, length] : given_) bytes += length;
    return bytes;
  }
  /// Whether [offset, offset + length) lies in one extent that was given and not given back.
  [[nodiscard]] bool covers(std::uint64_t offset, std::uint64_t length) const {
    const std::lock_guard lock(mutex_);
    const auto after = given_.upper_bound(offset);
    if (after == given_.begin()) return false;
    const auto& [begin, size] = *std::prev(after);
    return offset - begin < size && size - (offset - begin) >= length;
  }
  [[nodiscard]] std::uint64_t calls() const {
    const std::lock_guard lock(mutex_);
    return calls_;
  }
  [[nodiscard]] std::uint64_t refusals() const {
    const std::lock_guard lock(mutex_);
    return refusals_;
  }
  /// Extents given back that were never given; and odd answers given back.
  [[nodiscard]] std::uint64_t wrong() const {
    const std::lock_guard lock(mutex_);
    return wrong_;
  }
  [[nodiscard]] std::uint64_t odd_returned() const {
    const std::lock_guard lock(mutex_);
    return odd_returned_;
  }

 private:
  ByteCount region_;
  mutable std::mutex mutex_;
  std::map<std::uint64_t, std::uint64_t> given_;
  std::uint64_t left_ = ~std::uint64_t{0};
  std::optional<Extent> odd_answer_;
  std::uint64_t calls_ = 0;
  std::uint64_t refusals_ = 0;
  std::uint64_t wrong_ = 0;
  std::uint64_t odd_returned_ = 0;
};

}  // namespace accelmm::test
