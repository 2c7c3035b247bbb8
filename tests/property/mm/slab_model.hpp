// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "property/mm/checkpoints.hpp"
#include "unit/mm/slab_source.hpp"

#include <accelmm/check.hpp>
#include <accelmm/slab.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <utility>
#include <vector>

namespace accelmm::test {

/// A slab allocator beside a naive model of it, a std::map of live objects, that judges each of its
/// answers: an object overlaps no other, lies inside what the source gave, is large enough and not
/// larger than its class; exactly the beginnings of live objects can be freed; a request is refused
/// only when the source refuses and no object of its class is free.
///
/// What trusted bulk (Slab::Bulk) forbids is not tried: objects of two classes in one call, and a free
/// of what was freed in bulk and may not have been looked at since.
///
/// Each operation returns whether it succeeded; an answer that the model does not allow aborts, and
/// so does a broken invariant: validate() runs after every operation, or at checkpoints.
class JudgedSlab {
 public:
  static constexpr ByteCount region{std::uint64_t{16} << 20};
  using Options = Slab::Options;

  explicit JudgedSlab(Options options, Checkpoints checkpoints = {})
      : options_(std::move(options)),
        source_(std::make_unique<CheckedSource>(region)),
        checkpoints_(checkpoints) {
    options_.source = source_.get();
    options_.region = region;
    auto slab = Slab::create(options_);
    ACCELMM_CHECK(slab.has_value());
    slab_ = std::make_unique<Slab>(std::move(*slab));
  }

  [[nodiscard]] std::size_t live_objects() const { return live_.size(); }
  [[nodiscard]] std::uint64_t live_bytes() const { return live_bytes_; }

  /// How many more slabs the source gives.
  void allow(std::uint64_t slabs) { source_->allow(slabs); }

  bool allocate(std::uint64_t size) {
    const auto object = slab_->allocate(ByteCount(size));
    if (object)
      enter(*object, size);
    else
      judge_refusal(size, 1);
    judge();
    return object.has_value();
  }

  bool allocate_bulk(std::uint64_t size, std::size_t count) {
    std::vector<RegionOffset> offsets(count);
    const bool done = slab_->allocate_bulk(ByteCount(size), offsets).has_value();
    if (done)
      for (const RegionOffset offset : offsets) {
        const auto length = slab_->usable_size(offset);
        ACCELMM_CHECK(length.has_value());
        enter({.offset = offset, .length = *length}, size);
      }
    else
      judge_refusal(size, count);
    judge();
    return done;
  }

  /// Frees whatever is said to be at `offset`.
  bool free(std::uint64_t offset) {
    if (believed_.contains(offset)) return false;
    const bool done = slab_->free(RegionOffset(offset)).has_value();
    ACCELMM_CHECK(done == live_.contains(offset));
    if (done) leave(offset);
    judge();
    return done;
  }

  /// Frees `count` live objects beginning at the n-th, in the order of their offsets; and, if
  /// `damage` is not 0, one offset more that is no live object. Trusted: those of one class of them,
  /// and all live.
  bool free_some(std::size_t n, std::size_t count, std::uint64_t damage = 0) {
    if (trusts()) return free_trusted(n, count);
    std::vector<RegionOffset> offsets;
    for (auto at = nth(n); at != live_.end() && offsets.size() < count; ++at)
      offsets.emplace_back(at->first);
    const bool damaged = damage != 0 && !live_.contains(damage);
    if (damaged) offsets.emplace_back(damage);
    const bool done = slab_->free_bulk(offsets).has_value();
    ACCELMM_CHECK(done == !damaged);
    if (done)
      for (const RegionOffset offset : offsets) leave(offset.value());
    judge();
    return done;
  }

  /// The offset of the n-th live object, or of one freed lately, or nothing at all.
  [[nodiscard]] std::uint64_t live_offset(std::size_t n) const {
    const auto at = nth(n);
    return at == live_.end() ? 0 : at->first;
  }
  [[nodiscard]] std::uint64_t freed_offset(std::size_t n) const {
    return freed_.empty() ? 1 : freed_[n % freed_.size()];
  }

  void drain() {
    slab_->drain();
    believed_.clear();
    judge();
  }
  void trim() {
    const std::uint64_t before = source_->outstanding();
    const ByteCount given = slab_->trim();
    believed_.clear();
    // The quarantine was emptied first, which may have given slabs back already.
    ACCELMM_CHECK(before - source_->outstanding() >= given.value());
    ACCELMM_CHECK(slab_->statistics().quarantined == 0);
    judge();
    if (live_.empty()) ACCELMM_CHECK(source_->outstanding() == 0);
  }
  void recount() {
    ACCELMM_CHECK(slab_->recount() == 0);
    believed_.clear();
    judge();
  }

  void free_everything() {
    while (!live_.empty()) free_some(0, 1000);
    trim();
    ACCELMM_CHECK(source_->outstanding() == 0);
  }

 private:
  using Live = std::map<std::uint64_t, std::uint64_t>;  // offset, length

  [[nodiscard]] bool trusts() const {
    return options_.bulk == Slab::Bulk::trusted && options_.order == Slab::Order::lowest_first &&
           options_.quarantine.random + options_.quarantine.queue == 0;
  }

  bool free_trusted(std::size_t n, std::size_t count) {
    std::vector<RegionOffset> offsets;
    const auto first = nth(n);
    for (auto at = first; at != live_.end() && offsets.size() < count; ++at)
      if (at->second == first->second) offsets.emplace_back(at->first);
    ACCELMM_CHECK(slab_->free_bulk(offsets).has_value());
    for (const RegionOffset offset : offsets) {
      leave(offset.value());
      believed_.insert(offset.value());
    }
    judge();
    return true;
  }

  [[nodiscard]] Live::const_iterator nth(std::size_t n) const {
    if (live_.empty()) return live_.end();
    return std::next(live_.begin(), static_cast<std::ptrdiff_t>(n % live_.size()));
  }

  void enter(Extent object, std::uint64_t size) {
    const std::uint64_t offset = object.offset.value();
    const std::uint64_t length = object.length.value();
    ACCELMM_CHECK(length >= size && source_->covers(offset, length));
    if (options_.spacing == Slab::Spacing::cache_lines)
      ACCELMM_CHECK(offset % 64 == 0 && length % 64 == 0);
    const auto after = live_.lower_bound(offset);
    ACCELMM_CHECK(after == live_.end() || after->first >= offset + length);
    if (after != live_.begin()) {
      const auto before = std::prev(after);
      ACCELMM_CHECK(before->first + before->second <= offset);
    }
    live_.emplace(offset, length);
    believed_.erase(offset);
    live_bytes_ += length;
  }

  void leave(std::uint64_t offset) {
    const auto found = live_.find(offset);
    live_bytes_ -= found->second;
    live_.erase(found);
    freed_.push_back(offset);
    if (freed_.size() > 50) freed_.pop_front();
  }

  void judge_refusal(std::uint64_t size, std::size_t count) const {
    if (size == 0 || size > Slab::largest.value()) return;
    ACCELMM_CHECK(source_->refusals() > refusals_);
    std::uint64_t free = 0;
    for (const auto& one : slab_->statistics().classes)
      if (one.object_size.value() >= size) {
        const std::uint64_t slab = one.slabs == 0 ? 1 : one.slab_bytes.value() / one.slabs;
        free = one.slabs * (slab / one.object_size.value()) - one.live;
        break;
      }
    if (options_.spacing == Slab::Spacing::packed) ACCELMM_CHECK(free < count);
  }

  void judge() {
    ACCELMM_CHECK(source_->wrong() == 0);
    refusals_ = source_->refusals();
    if (!checkpoints_.due()) return;
    slab_->validate();
    const auto statistics = slab_->statistics();
    ACCELMM_CHECK(statistics.live_objects == live_.size() + statistics.quarantined);
    ACCELMM_CHECK(statistics.live.value() >= live_bytes_);
    ACCELMM_CHECK(statistics.from_source.value() == source_->outstanding());
  }

  Options options_;
  std::unique_ptr<CheckedSource> source_;
  std::unique_ptr<Slab> slab_;
  Live live_;
  std::uint64_t live_bytes_ = 0;
  std::deque<std::uint64_t> freed_;
  std::set<std::uint64_t> believed_;  // freed in trusted bulk since the last drain
  std::uint64_t refusals_ = 0;        // of the source, before this operation
  Checkpoints checkpoints_;
};

}  // namespace accelmm::test
