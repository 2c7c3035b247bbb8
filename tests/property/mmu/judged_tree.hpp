// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "property/mm/steps.hpp"
#include "property/mmu/interval_model.hpp"
#include "unit/mmu/tables_fixture.hpp"

#include <accelmm/check.hpp>
#include <accelmm/mmu/page_table.hpp>
#include <accelmm/mmu/table_pool.hpp>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

namespace accelmm::mmu::test {

/// A tree of page tables of one format beside an interval model that judges each of its answers.
///
/// Each operation returns whether it succeeded; an answer that the model does not allow aborts.
template <PteFormat F>
class JudgedTree {
  using G = Geometry<F>;
  using Tree = PageTable<F, TablePool>;

 public:
  static constexpr std::uint64_t page = G::page_size;

  /// The range is where operations are expected; the tree itself takes any.
  JudgedTree(std::uint32_t tables, Range<DeviceAddr> range)
      : tables_(tables, G::largest_table(),
                F::bus_bits > 32 ? Tables::bus_begin : Tables::low_bus_begin),
        range_(range),
        tree_(std::move(*Tree::create(tables_.pool()))) {}
  JudgedTree(const JudgedTree&) = delete;
  JudgedTree& operator=(const JudgedTree&) = delete;
  ~JudgedTree() {
    release_all();
    release(tree_.detach_all());
    ACCELMM_CHECK(tables_.pool().tables_in_use() == 0);
    tables_.pool().validate();
  }

  [[nodiscard]] const IntervalModel& model() const { return model_; }
  [[nodiscard]] Range<DeviceAddr> range() const { return range_; }
  [[nodiscard]] std::size_t pending() const { return pending_.size(); }

  bool map(std::uint64_t va, const Runs& runs, Attributes attributes) {
    return judge_map(va, runs, attributes, tree_.map(DeviceAddr(va), runs, attributes));
  }

  /// The same in two steps; what is prepared may also be dropped.
  bool map_prepared(std::uint64_t va, const Runs& runs, Attributes attributes) {
    const std::uint64_t length = length_of(runs);
    auto prepared = tree_.prepare({DeviceAddr(va), DeviceAddr(va + length)}, attributes);
    if (!prepared) return judge_map(va, runs, attributes, fail(prepared.error()));
    judge(va);
    tree_.commit(std::move(*prepared), runs);
    return judge_map(va, runs, attributes, {});
  }

  void prepare_and_drop(std::uint64_t va, std::uint64_t length) {
    const std::uint32_t in_use = tables_.pool().tables_in_use();
    {
      const auto prepared = tree_.prepare({DeviceAddr(va), DeviceAddr(va + length)}, {});
      if (!prepared) ACCELMM_CHECK(prepared.error().code != Errc::busy);
    }
    ACCELMM_CHECK(tables_.pool().tables_in_use() == in_use);
  }

  bool unmap(std::uint64_t begin, std::uint64_t end, RangeRule rule) {
    const auto expected = settled(begin, end, rule);
    auto gone = tree_.unmap({DeviceAddr(begin), DeviceAddr(end)}, rule, breaker());
    if (!judge_range(expected, gone)) return false;
    ACCELMM_CHECK(gone->range() == *expected);
    const std::uint64_t from = expected->begin.value();
    const std::uint64_t to = expected->end.value();
    model_.erase(from, to);
    pending_.push_back(std::move(*gone));
    for (const std::uint64_t va : {from, to - 1, from - page, to, from + (to - from) / 2})
      judge(va);
    return true;
  }

  bool protect(std::uint64_t begin, std::uint64_t end, Attributes attributes, RangeRule rule) {
    const auto expected = settled(begin, end, rule);
    const auto done =
        tree_.protect({DeviceAddr(begin), DeviceAddr(end)}, attributes, rule, breaker());
    if (!judge_range(expected, done)) return false;
    const std::uint64_t from = expected->begin.value();
    const std::uint64_t to = expected->end.value();
    model_.protect(from, to, attributes);
    for (const std::uint64_t va : {from, to - 1, from - page, to, from + (to - from) / 2})
      judge(va);
    return true;
  }

  void split(std::uint64_t begin, std::uint64_t end) {
    const auto done = tree_.split({DeviceAddr(begin), DeviceAddr(end)}, breaker());
    if (!done) {
      ACCELMM_CHECK(done.error().code == Errc::no_memory || refuses_cuts(done.error().code));
      return;
    }
    for (const std::uint64_t va : {begin, end})
      if (const auto leaf = tree_.translate(DeviceAddr(va)))
        ACCELMM_CHECK(leaf->remaining == leaf->leaf_size);
    for (const std::uint64_t va : {begin, end - 1, begin - page, end}) judge(va);
  }

  void merge(std::uint64_t begin, std::uint64_t end) {
    auto gone = tree_.merge({DeviceAddr(begin), DeviceAddr(end)}, breaker());
    ACCELMM_CHECK(gone.has_value());
    pending_.push_back(std::move(*gone));
    for (const std::uint64_t va : {begin, end - 1, begin - page, end, begin + (end - begin) / 2})
      judge(va);
  }

  void release_all() {
    for (auto& gone : pending_) release(std::move(gone));
    pending_.clear();
  }

  bool translate(std::uint64_t va) {
    judge(va);
    return model_.at(va).has_value();
  }

  void judge_everything() {
    tree_.validate();
    tables_.pool().validate();
    std::uint64_t in_leaves = 0;
    std::uint64_t last_end = 0;
    tree_.for_each_leaf([&](const Leaf& leaf) {
      ACCELMM_CHECK(leaf.va.value() >= last_end);
      last_end = (leaf.va + leaf.size).value();
      in_leaves += leaf.size.value();
      judge(leaf.va.value());
      judge(last_end - 1);
    });
    ACCELMM_CHECK(in_leaves == model_.mapped(0, ~std::uint64_t{0}));
  }

 private:
  [[nodiscard]] static std::uint64_t length_of(const Runs& runs) {
    std::uint64_t length = 0;
    for (const Run& run : runs) length += run.length.value();
    return length;
  }

  // Where a leaf must have been cleared before the device is asked to forget it.
  auto breaker() {
    return [this](Range<DeviceAddr> range) {
      ACCELMM_CHECK(F::breaks_before_make);
      ACCELMM_CHECK(!tree_.translate(range.begin).has_value());
      ACCELMM_CHECK(!tree_.translate(range.end - ByteCount(1)).has_value());
    };
  }

  bool judge_map(std::uint64_t va, const Runs& runs, Attributes attributes, Result<void> result) {
    const std::uint64_t length = length_of(runs);
    const std::uint64_t in_use = model_.mapped(va, va + length);
    if (!result) {
      const Errc code = result.error().code;
      if (code == Errc::address_in_use)
        ACCELMM_CHECK(in_use > 0);
      else if (code == Errc::not_supported)
        ACCELMM_CHECK(!F::leaf_bits(attributes).has_value());
      else
        ACCELMM_CHECK(code == Errc::no_memory && in_use == 0);
      judge(va);
      judge(va + length - 1);
      return false;
    }
    ACCELMM_CHECK(in_use == 0);
    std::uint64_t at = va;
    for (const Run& run : runs) {
      model_.insert(at, run.length.value(), run.address.value(), attributes);
      at += run.length.value();
    }
    judge_leaves(va, runs);
    return true;
  }

  // The rule, spelled out: each leaf is the largest that addresses and the rest of the run allow.
  void judge_leaves(std::uint64_t va, const Runs& runs) {
    for (std::size_t i = 0; i < runs.size();) {
      std::uint64_t bus = runs[i].address.value();
      std::uint64_t left = 0;
      for (; i < runs.size() && runs[i].address.value() == bus + left; ++i)
        left += runs[i].length.value();
      while (left > 0) {
        std::uint64_t size = page;
        for (unsigned lg2 = 0; lg2 < 63; ++lg2) {
          const std::uint64_t candidate = std::uint64_t{1} << lg2;
          if ((G::leaf_sizes() & candidate) != 0 && candidate <= left && va % candidate == 0 &&
              bus % candidate == 0)
            size = candidate;
        }
        const auto leaf = tree_.translate(DeviceAddr(va));
        ACCELMM_CHECK(leaf.has_value());
        ACCELMM_CHECK(leaf->leaf_size == ByteCount(size) && leaf->remaining == ByteCount(size));
        judge(va + size - 1);
        va += size;
        bus += size;
        left -= size;
      }
    }
  }

  // What the range becomes, or why it is refused.
  Result<Range<DeviceAddr>> settled(std::uint64_t begin, std::uint64_t end, RangeRule rule) {
    const auto first = tree_.translate(DeviceAddr(begin));
    const auto last = tree_.translate(DeviceAddr(end - 1));
    const bool cuts = (first && first->remaining != first->leaf_size) ||
                      (last && last->remaining != ByteCount(1));
    std::uint64_t from = begin;
    std::uint64_t to = end;
    if (cuts && rule.edges == Edges::refuse) return fail(Errc::invalid_argument, "cut");
    if (first && rule.edges == Edges::whole)
      from = begin - (first->leaf_size - first->remaining).value();
    if (last && rule.edges == Edges::whole) to = end - 1 + last->remaining.value();
    if (rule.gaps == Gaps::refuse && model_.mapped(from, to) != to - from)
      return fail(Errc::invalid_argument, "gap");
    return Range<DeviceAddr>{DeviceAddr(from), DeviceAddr(to)};
  }

  [[nodiscard]] static bool refuses_cuts(Errc code) {
    return code == Errc::not_supported && F::words(F::parent(G::last_hop)) == 2;
  }

  template <class Answer>
  bool judge_range(const Result<Range<DeviceAddr>>& expected, const Answer& answer) {
    if (answer.has_value()) {
      ACCELMM_CHECK(expected.has_value());
      return true;
    }
    const Errc code = answer.error().code;
    if (code == Errc::invalid_argument)
      ACCELMM_CHECK(!expected.has_value());
    else
      ACCELMM_CHECK(code == Errc::no_memory || code == Errc::not_supported);
    return false;
  }

  void judge(std::uint64_t va) {
    const auto expected = model_.at(va);
    const auto ours = tree_.translate(DeviceAddr(va));
    ACCELMM_CHECK(ours.has_value() == expected.has_value());
    if (ours) {
      ACCELMM_CHECK(ours->address.value() == expected->bus);
      ACCELMM_CHECK(ours->attributes == expected->attributes);
    }
  }

  Tables tables_;
  Range<DeviceAddr> range_;
  Tree tree_;
  IntervalModel model_;
  std::vector<Detached<TablePool>> pending_;
};

}  // namespace accelmm::mmu::test
