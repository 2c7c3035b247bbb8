// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/units.hpp>

#include <algorithm>
#include <cstdint>

#include <boost/intrusive/list.hpp>

namespace accelmm::mmu {

/// One operation on a range of an address space's tree. Lies on the stack of who does it.
class Operation : public boost::intrusive::list_base_hook<> {
 public:
  enum class Kind : std::uint8_t { reads, writes };

  Range<DeviceAddr> range{};
  Kind kind = Kind::writes;

 private:
  friend class Operations;
  std::uint64_t begun_ = 0;
};

/// The operations under way, oldest first, and a clock that counts their begins and ends.
///
/// Threads   under the mutex of the books.
class Operations {
 public:
  /// Whether an operation must wait for the end of another.
  [[nodiscard]] bool conflicts(Range<DeviceAddr> range, Operation::Kind kind) const {
    return std::ranges::any_of(under_way_, [&](const Operation& other) {
      const bool both_read = kind == Operation::Kind::reads && other.kind == Operation::Kind::reads;
      return !both_read && other.range.overlaps(range);
    });
  }
  void begin(Operation& operation) {
    operation.begun_ = ++clock_;
    under_way_.push_back(operation);
  }
  /// Returns when that was, by the clock.
  std::uint64_t end(Operation& operation) {
    under_way_.erase(under_way_.iterator_to(operation));
    return ++clock_;
  }
  /// Whether all that began before has ended.
  [[nodiscard]] bool have_ended(std::uint64_t before) const {
    return under_way_.empty() || under_way_.front().begun_ > before;
  }
  [[nodiscard]] bool none() const { return under_way_.empty(); }

 private:
  boost::intrusive::list<Operation, boost::intrusive::constant_time_size<false>> under_way_;
  std::uint64_t clock_ = 0;
};

}  // namespace accelmm::mmu
