// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "property/mmu/interval_model.hpp"
#include "unit/mmu/naive_npu1_walker.hpp"
#include "unit/mmu/tables_fixture.hpp"

#include <accelmm/check.hpp>
#include <accelmm/mmu/address_space.hpp>
#include <accelmm/mmu/invalidation_gather.hpp>
#include <accelmm/mmu/npu1.hpp>

#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

namespace accelmm::mmu::test {

/// An address space whose mappings are cut, replaced, protected and bound to reservations, beside an
/// interval model that judges each answer, and a walker that knows nothing but the bytes.
///
/// What is unmapped is gathered; a release ends all that waits, as one invalidation would.
class CutSpace {
 public:
  static constexpr std::uint64_t page = 0x1000;
  static constexpr std::uint64_t large = 0x20'0000;
  static constexpr std::uint64_t default_bus = 0x7F'0000'0000;
  static constexpr std::uint64_t default_bytes = 64 * page;

  CutSpace(std::uint32_t tables, Range<DeviceAddr> range)
      : tables_(tables), range_(range), space_(make()), gather_(fresh_gather()) {}
  CutSpace(const CutSpace&) = delete;
  CutSpace& operator=(const CutSpace&) = delete;
  ~CutSpace() {
    release_all();
    std::move(*gather_).release(InvalidationDone::never_shown());
    release(space_->unmap_all());
    space_.reset();
    ACCELMM_CHECK(tables_.pool().tables_in_use() == 0);
    tables_.pool().validate();
  }

  [[nodiscard]] Range<DeviceAddr> range() const { return range_; }
  [[nodiscard]] std::size_t pending() const { return pending_.size(); }
  [[nodiscard]] const IntervalModel& model() const { return model_; }
  [[nodiscard]] const std::map<std::uint64_t, std::uint64_t>& reservations() const {
    return reservations_;
  }

  bool map(std::uint64_t begin, const Run& memory, Attributes attributes) {
    const std::uint64_t end = begin + memory.length.value();
    const Runs runs{memory};
    const auto mapped = space_->map(runs, fixed(begin), attributes);
    const bool refused =
        model_.mapped(begin, end) > 0 || is_pending(begin, end) || crosses_reservation(begin, end);
    if (!judge_answer(mapped, refused, Errc::address_in_use, begin, end)) return false;
    model_.insert(begin, end - begin, memory.address.value(), attributes);
    judge_around(begin, end);
    return true;
  }

  bool map_anywhere(const Run& memory, Attributes attributes) {
    const Runs runs{memory};
    const auto mapped = space_->map(runs, {}, attributes);
    if (!mapped) {
      ACCELMM_CHECK(mapped.error().code == Errc::no_memory);
      return false;
    }
    const std::uint64_t begin = mapped->range.begin.value();
    const std::uint64_t end = mapped->range.end.value();
    ACCELMM_CHECK(range_.contains(mapped->range) && end - begin == memory.length.value());
    ACCELMM_CHECK(model_.mapped(begin, end) == 0 && !is_pending(begin, end));
    ACCELMM_CHECK(!meets_reservation(begin, end));
    model_.insert(begin, end - begin, memory.address.value(), attributes);
    judge_around(begin, end);
    return true;
  }

  bool map_null(std::uint64_t begin, std::uint64_t end) {
    const auto mapped = space_->map_null(ByteCount(end - begin), fixed(begin), Access::read);
    const bool refused =
        model_.mapped(begin, end) > 0 || is_pending(begin, end) || crosses_reservation(begin, end);
    if (!judge_answer(mapped, refused, Errc::address_in_use, begin, end)) return false;
    for (std::uint64_t at = begin; at < end; at += default_bytes)
      model_.insert(at, std::min(default_bytes, end - at), default_bus, Access::read);
    judge_around(begin, end);
    return true;
  }

  bool replace(std::uint64_t begin, const Run& memory, Attributes attributes) {
    const std::uint64_t end = begin + memory.length.value();
    const Runs runs{memory};
    const std::uint64_t sizes = leaf_sizes(begin, end);
    auto replaced = space_->replace(runs, fixed(begin), attributes);
    if (!judge_answer(replaced, crosses_reservation(begin, end), Errc::address_in_use, begin, end))
      return false;
    judge_gone(replaced->gone, begin, end);
    ACCELMM_CHECK((replaced->gone.touched().leaf_sizes & sizes) == sizes);
    model_.erase(begin, end);
    model_.insert(begin, end - begin, memory.address.value(), attributes);
    gather_->add(std::move(*replaced));
    judge_around(begin, end);
    return true;
  }

  bool unmap(std::uint64_t begin, std::uint64_t end) {
    const std::uint64_t sizes = leaf_sizes(begin, end);
    auto gone = space_->unmap({DeviceAddr(begin), DeviceAddr(end)});
    const bool refused = model_.mapped(begin, end) == 0;
    if (!judge_answer(gone, refused, Errc::invalid_argument, begin, end)) return false;
    judge_gone(*gone, begin, end);
    ACCELMM_CHECK((gone->touched().leaf_sizes & sizes) == sizes);
    model_.erase(begin, end);
    gather_->add(std::move(*gone));
    judge_around(begin, end);
    return true;
  }

  bool protect(std::uint64_t begin, std::uint64_t end, Attributes attributes) {
    const std::uint64_t sizes = leaf_sizes(begin, end);
    const auto changed = space_->protect({DeviceAddr(begin), DeviceAddr(end)}, attributes);
    const bool refused = model_.mapped(begin, end) != end - begin;
    if (!judge_answer(changed, refused, Errc::invalid_argument, begin, end)) return false;
    ACCELMM_CHECK((changed->touched.leaf_sizes & sizes) == sizes);
    model_.protect(begin, end, attributes);
    gather_->add(*changed);
    judge_around(begin, end);
    return true;
  }

  /// Answers whether it saved tables.
  bool merge(std::uint64_t begin, std::uint64_t end) {
    auto merged = space_->merge({DeviceAddr(begin), DeviceAddr(end)});
    ACCELMM_CHECK(merged.has_value() && merged->is_moved());
    const bool saved = merged->tables() > 0;
    gather_->add(std::move(*merged));
    judge_around(begin, end);
    return saved;
  }

  bool reserve(std::uint64_t begin, std::uint64_t end) {
    const auto reserved = space_->reserve(ByteCount(end - begin), fixed(begin));
    const bool refused =
        model_.mapped(begin, end) > 0 || is_pending(begin, end) || meets_reservation(begin, end);
    if (!judge_answer(reserved, refused, Errc::address_in_use, begin, end)) return false;
    reservations_[begin] = end;
    return true;
  }

  bool end_reservation(std::uint64_t begin) {
    const auto ended = space_->end_reservation(DeviceAddr(begin));
    const auto known = reservations_.find(begin);
    if (known == reservations_.end()) {
      ACCELMM_CHECK(ended.error().code == Errc::invalid_argument);
      return false;
    }
    const bool in_use = model_.mapped(begin, known->second) > 0;
    ACCELMM_CHECK(ended.has_value() != in_use);
    if (in_use) ACCELMM_CHECK(ended.error().code == Errc::busy);
    if (ended) reservations_.erase(known);
    return ended.has_value();
  }

  /// One invalidation for all that was changed since the last.
  void release_all() {
    if (gather_->is_needed()) {
      const Invalidation invalidation = gather_->invalidation();
      const InvalidationDone done(invalidation);
      for (const auto& [begin, end] : pending_)
        ACCELMM_CHECK(done.covers({DeviceAddr(begin), DeviceAddr(end)}));
      std::move(*gather_).release(done);
    } else {
      ACCELMM_CHECK(pending_.empty());
      std::move(*gather_).release(InvalidationDone::never_shown());
    }
    gather_ = fresh_gather();
    pending_.clear();
  }

  void judge_everything() const {
    space_->validate();
    tables_.pool().validate();
    std::uint64_t in_leaves = 0;
    space_->for_each_leaf(range_, [&](const Leaf& leaf) {
      const auto first = model_.at(leaf.va.value());
      const auto last = model_.at((leaf.va + leaf.size).value() - 1);
      ACCELMM_CHECK(first && first->bus == leaf.address.value());
      ACCELMM_CHECK(last && last->bus == leaf.address.value() + leaf.size.value() - 1);
      ACCELMM_CHECK(first->attributes == leaf.attributes);
      in_leaves += leaf.size.value();
    });
    ACCELMM_CHECK(in_leaves == model_.mapped(0, ~std::uint64_t{0}));
  }

 private:
  [[nodiscard]] static Placement fixed(std::uint64_t va) {
    return {Placement::Kind::fixed, DeviceAddr(va)};
  }
  std::unique_ptr<AddressSpace> make() {
    const VaWindow window{VaUse::any, range_};
    SpaceOptions options;
    options.windows = std::span(&window, 1);
    options.default_page = run(default_bus, default_bytes);
    return std::move(*make_address_space<Npu1>(tables_.pool(), options));
  }
  [[nodiscard]] static std::unique_ptr<InvalidationGather> fresh_gather() {
    return std::make_unique<InvalidationGather>(1, InvalidationPolicy{.most_ranges = 4});
  }

  // Of the leaves that a range meets: a device may know any of them afterwards.
  [[nodiscard]] std::uint64_t leaf_sizes(std::uint64_t begin, std::uint64_t end) const {
    std::uint64_t sizes = 0;
    space_->for_each_leaf({DeviceAddr(begin), DeviceAddr(end)},
                          [&sizes](const Leaf& leaf) { sizes |= leaf.size.value(); });
    return sizes;
  }

  [[nodiscard]] bool is_pending(std::uint64_t begin, std::uint64_t end) const {
    return std::ranges::any_of(
        pending_, [&](const auto& one) { return one.first < end && begin < one.second; });
  }
  [[nodiscard]] bool meets_reservation(std::uint64_t begin, std::uint64_t end) const {
    return std::ranges::any_of(
        reservations_, [&](const auto& one) { return one.first < end && begin < one.second; });
  }
  [[nodiscard]] bool crosses_reservation(std::uint64_t begin, std::uint64_t end) const {
    const bool inside = std::ranges::any_of(
        reservations_, [&](const auto& one) { return one.first <= begin && end <= one.second; });
    return !inside && meets_reservation(begin, end);
  }

  // Tables that any operation on the range may need at most: those of its leaves, of the cuts at
  // both ends, and a reserve.
  [[nodiscard]] bool tables_may_lack(std::uint64_t begin, std::uint64_t end) const {
    const std::uint64_t most = 2 * 3 + (end - begin) / large + 2 + 2 + 2;
    return tables_.pool().capacity() - tables_.pool().tables_in_use() < most;
  }

  template <class Answer>
  bool judge_answer(const Answer& answer, bool refused, Errc code, std::uint64_t begin,
                    std::uint64_t end) const {
    if (answer.has_value()) {
      ACCELMM_CHECK(!refused);
      return true;
    }
    judge(begin);
    judge(end - 1);
    if (answer.error().code == Errc::no_memory)
      ACCELMM_CHECK(tables_may_lack(begin, end));
    else
      ACCELMM_CHECK(refused && answer.error().code == code);
    return false;
  }

  // What is gone is what was mapped there, each byte once. Waits from now on.
  void judge_gone(const Unmapped& gone, std::uint64_t begin, std::uint64_t end) {
    std::uint64_t bytes = 0;
    gone.for_each_range([&](Range<DeviceAddr> one) {
      ACCELMM_CHECK(begin <= one.begin.value() && one.end.value() <= end);
      ACCELMM_CHECK(model_.mapped(one.begin.value(), one.end.value()) == one.size().value());
      bytes += one.size().value();
      pending_.emplace_back(one.begin.value(), one.end.value());
    });
    ACCELMM_CHECK(bytes == model_.mapped(begin, end));
  }

  void judge_around(std::uint64_t begin, std::uint64_t end) const {
    ACCELMM_CHECK(space_->mapped_bytes() == ByteCount(model_.mapped(0, ~std::uint64_t{0})));
    for (const std::uint64_t va : {begin, end - 1, begin - 1, end, begin + (end - begin) / 2,
                                   (begin | (large - 1)) + 1, begin & ~(large - 1)})
      judge(va);
  }

  void judge(std::uint64_t va) const {
    const naive_npu1::TableBytes bytes{tables_.bytes(), Tables::bus_begin, tables_.size()};
    const auto expected = model_.at(va);
    const auto walked = naive_npu1::walk(bytes, space_->root().value(), va);
    const auto ours = space_->translate(DeviceAddr(va));
    ACCELMM_CHECK(walked.verdict != naive_npu1::Verdict::corrupt);
    ACCELMM_CHECK((walked.verdict == naive_npu1::Verdict::page) == expected.has_value());
    ACCELMM_CHECK(ours.has_value() == expected.has_value());
    if (!expected) return;
    ACCELMM_CHECK(walked.bus == expected->bus && ours->address.value() == expected->bus);
    ACCELMM_CHECK(ours->attributes == expected->attributes);
    ACCELMM_CHECK(walked.writable == allows(expected->attributes.access, Access::write));
  }

  mutable Tables tables_;
  Range<DeviceAddr> range_;
  std::unique_ptr<AddressSpace> space_;
  std::unique_ptr<InvalidationGather> gather_;
  IntervalModel model_;
  std::map<std::uint64_t, std::uint64_t> reservations_;
  std::vector<std::pair<std::uint64_t, std::uint64_t>> pending_;
};

}  // namespace accelmm::mmu::test
