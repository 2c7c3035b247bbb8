// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/check.hpp>
#include <accelmm/handle_table.hpp>

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <utility>
#include <vector>

namespace accelmm::test {

/// A handle table beside a naive model of it, std::maps from raw handles to numbers, that judges each
/// of its answers. Values are on the heap, so that a leak or a double destruction shows. Pins are kept
/// until they are told to end; what was withdrawn under them is dying.
class JudgedHandles {
 public:
  explicit JudgedHandles(std::uint32_t capacity)
      : capacity_(capacity), table_(HandleTable<Value>::create(capacity).value()) {}

  [[nodiscard]] std::size_t live() const { return live_.size(); }
  [[nodiscard]] std::size_t pins() const { return pins_.size(); }
  [[nodiscard]] std::uint32_t capacity() const { return capacity_; }

  bool insert(std::uint8_t type) {
    const int number = ++last_number_;
    const auto handle = table_.insert(type, std::make_unique<int>(number));
    ACCELMM_CHECK(handle.has_value() == (live_.size() + dying_.size() < capacity_));
    if (handle) {
      ACCELMM_CHECK(handle->raw() != 0 && handle->type() == type);
      ACCELMM_CHECK(!ever_.contains(handle->raw()));  // no handle is ever given out twice
      live_.emplace(handle->raw(), number);
      ever_.emplace(handle->raw(), type);
    } else {
      ACCELMM_CHECK(handle.error().code == Errc::over_quota);
    }
    judge_state();
    return handle.has_value();
  }

  bool find(std::uint64_t raw, std::uint8_t type) {
    const auto found = table_.find(Handle::from_raw(raw), type);
    const bool expected = is_live(raw, type);
    ACCELMM_CHECK(found.has_value() == expected);
    if (expected) ACCELMM_CHECK(**found.value() == live_.at(raw));
    if (!expected) ACCELMM_CHECK(found.error().code == Errc::invalid_argument);
    return expected;
  }

  bool remove(std::uint64_t raw, std::uint8_t type) {
    const auto removed = table_.remove(Handle::from_raw(raw), type);
    const bool named = is_live(raw, type);
    const bool expected = named && pins_of(raw) == 0;
    ACCELMM_CHECK(removed.has_value() == expected);
    if (expected) {
      ACCELMM_CHECK(**removed == live_.at(raw));
      live_.erase(raw);
    } else {
      ACCELMM_CHECK(removed.error().code == (named ? Errc::busy : Errc::invalid_argument));
    }
    judge_state();
    return expected;
  }

  bool withdraw(std::uint64_t raw, std::uint8_t type) {
    const auto withdrawn = table_.withdraw(Handle::from_raw(raw), type);
    const bool expected = is_live(raw, type);
    ACCELMM_CHECK(withdrawn.has_value() == expected);
    if (expected) {
      ACCELMM_CHECK(withdrawn->has_value() == (pins_of(raw) == 0));
      if (*withdrawn) ACCELMM_CHECK(***withdrawn == live_.at(raw));
      if (!*withdrawn) dying_.insert(*live_.find(raw));
      live_.erase(raw);
    } else {
      ACCELMM_CHECK(withdrawn.error().code == Errc::invalid_argument);
    }
    judge_state();
    return expected;
  }

  bool pin(std::uint64_t raw, std::uint8_t type) {
    auto pin = table_.pin(Handle::from_raw(raw), type);
    const bool expected = is_live(raw, type);
    ACCELMM_CHECK(pin.has_value() == expected);
    if (expected) {
      ACCELMM_CHECK(***pin == live_.at(raw));
      pins_.push_back({.pin = std::move(*pin), .raw = raw});
    } else {
      ACCELMM_CHECK(pin.error().code == Errc::invalid_argument);
    }
    judge_state();
    return expected;
  }

  /// Ends one of the pins. False if there is none.
  bool unpin(std::size_t which) {
    if (pins_.empty()) return false;
    std::swap(pins_[which % pins_.size()], pins_.back());
    Pinned ending = std::move(pins_.back());
    pins_.pop_back();
    const auto dying = dying_.find(ending.raw);
    const int number = dying != dying_.end() ? dying->second : live_.at(ending.raw);
    ACCELMM_CHECK(**ending.pin == number);
    const auto value = ending.pin.release();
    ACCELMM_CHECK(value.has_value() == (dying != dying_.end() && pins_of(ending.raw) == 0));
    if (value) {
      ACCELMM_CHECK(**value == number);
      dying_.erase(dying);
    }
    judge_state();
    return true;
  }

  /// A live handle: the first at or above a raw value, else the lowest; 0 if there is none.
  [[nodiscard]] std::uint64_t live_from(std::uint64_t raw) const { return pick(live_, raw); }
  /// The same among all handles that were ever given out.
  [[nodiscard]] std::uint64_t any_from(std::uint64_t raw) const { return pick(ever_, raw); }

 private:
  using Value = std::unique_ptr<int>;
  struct Pinned {
    HandleTable<Value>::Pin pin;
    std::uint64_t raw;
  };

  template <class Map>
  static std::uint64_t pick(const Map& map, std::uint64_t raw) {
    if (map.empty()) return 0;
    const auto found = map.lower_bound(raw);
    return found == map.end() ? map.begin()->first : found->first;
  }

  [[nodiscard]] bool is_live(std::uint64_t raw, std::uint8_t type) const {
    return live_.contains(raw) && Handle::from_raw(raw).type() == type;
  }

  [[nodiscard]] std::size_t pins_of(std::uint64_t raw) const {
    std::size_t count = 0;
    for (const Pinned& pinned : pins_) count += pinned.raw == raw ? 1U : 0U;
    return count;
  }

  void judge_state() {
    std::size_t seen = 0;
    table_.for_each([&](Handle handle, Value& value) {
      ACCELMM_CHECK(live_.at(handle.raw()) == *value);
      ++seen;
    });
    ACCELMM_CHECK(seen == live_.size());
    ACCELMM_CHECK(table_.size() == live_.size() + dying_.size());
    for (const Pinned& pinned : pins_)
      ACCELMM_CHECK(live_.contains(pinned.raw) || dying_.contains(pinned.raw));
  }

  std::uint32_t capacity_;
  HandleTable<Value> table_;
  std::vector<Pinned> pins_;
  std::map<std::uint64_t, int> live_;
  std::map<std::uint64_t, int> dying_;  // withdrawn, but pinned
  std::map<std::uint64_t, std::uint8_t> ever_;
  int last_number_ = 0;
};

}  // namespace accelmm::test
