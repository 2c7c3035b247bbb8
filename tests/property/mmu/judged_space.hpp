// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "unit/mmu/naive_npu1_walker.hpp"
#include "unit/mmu/tables_fixture.hpp"

#include <accelmm/check.hpp>
#include <accelmm/mmu/address_space.hpp>
#include <accelmm/mmu/npu1.hpp>

#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

namespace accelmm::mmu::test {

/// An address space beside a naive model of it, a std::map of pages, that judges each of its
/// answers.
///
/// The tables are judged by the naive walker, which knows nothing but their bytes. Each operation
/// returns whether it succeeded; an answer that the model does not allow aborts.
class JudgedSpace {
 public:
  static constexpr std::uint64_t page = 0x1000;
  static constexpr std::uint64_t large = 0x20'0000;

  struct Mapping {
    Runs runs;
    std::uint64_t length = 0;
    Access access = Access::read;
  };
  struct Pending {
    Range<DeviceAddr> range;
    Unmapped gone;
  };

  JudgedSpace(std::uint32_t tables, Range<DeviceAddr> range)
      : tables_(tables),
        range_(range),
        space_(std::move(*make_address_space<Npu1>(tables_.pool(), range))) {}

  JudgedSpace(const JudgedSpace&) = delete;
  JudgedSpace& operator=(const JudgedSpace&) = delete;

  ~JudgedSpace() {
    release_all();
    release(space_->unmap_all());
    space_.reset();
    ACCELMM_CHECK(tables_.pool().tables_in_use() == 0);
    tables_.pool().validate();
  }

  [[nodiscard]] const std::map<std::uint64_t, Mapping>& mappings() const { return mappings_; }
  [[nodiscard]] std::size_t pending() const { return pending_.size(); }
  [[nodiscard]] Range<DeviceAddr> range() const { return range_; }

  bool map(const Runs& runs, Placement placement, Access access) {
    std::uint64_t length = 0;
    for (const Run& run : runs) length += run.length.value();
    const std::uint32_t in_use = tables_.pool().tables_in_use();
    const auto mapped = space_->map(runs, placement, access);
    if (!mapped) {
      judge_refusal(mapped.error().code, placement, length);
      ACCELMM_CHECK(tables_.pool().tables_in_use() == in_use);
      return false;
    }
    const std::uint64_t begin = mapped->range.begin.value();
    ACCELMM_CHECK(mapped->range.size() == ByteCount(length));
    ACCELMM_CHECK(range_.contains(mapped->range));
    ACCELMM_CHECK(is_free(begin, length));
    if (placement.kind == Placement::Kind::fixed)
      ACCELMM_CHECK(mapped->range.begin == placement.address);
    if (placement.kind == Placement::Kind::hint && can_lie_at(placement.address.value(), length))
      ACCELMM_CHECK(mapped->range.begin == placement.address);
    mappings_.emplace(begin, Mapping{runs, length, access});
    mapped_bytes_ += length;
    judge_mapping(begin);
    judge_totals();
    return true;
  }

  /// Tries to map runs that no format takes. They must be refused.
  void refuse(const Runs& runs, Placement placement, Access access) {
    const std::uint32_t in_use = tables_.pool().tables_in_use();
    const auto mapped = space_->map(runs, placement, access);
    ACCELMM_CHECK(!mapped.has_value());
    ACCELMM_CHECK(mapped.error().code == Errc::invalid_argument);
    ACCELMM_CHECK(tables_.pool().tables_in_use() == in_use);
    judge_totals();
  }

  bool unmap(std::uint64_t start) {
    const auto known = mappings_.find(start);
    auto gone = space_->unmap(DeviceAddr(start));
    ACCELMM_CHECK(gone.has_value() == (known != mappings_.end()));
    if (!gone) {
      ACCELMM_CHECK(gone.error().code == Errc::invalid_argument);
      return false;
    }
    const Range<DeviceAddr> range = gone->range();
    ACCELMM_CHECK(range.size() == ByteCount(known->second.length));
    mapped_bytes_ -= known->second.length;
    mappings_.erase(known);
    pending_.push_back({range, std::move(*gone)});
    for (std::uint64_t va : probes(range.begin.value(), range.size().value())) judge(va);
    judge_totals();
    return true;
  }

  /// Lets a mapping lead to other memory, of the same length or not; a wrong length is refused.
  bool remap(std::uint64_t start, const Runs& runs) {
    std::uint64_t length = 0;
    for (const Run& run : runs) length += run.length.value();
    const auto known = mappings_.find(start);
    const std::uint32_t in_use = tables_.pool().tables_in_use();
    auto prepared = space_->prepare_remap(DeviceAddr(start), runs);
    const bool fits = known != mappings_.end() && known->second.length == length;
    if (!prepared) {
      const bool due = !fits ? prepared.error().code == Errc::invalid_argument
                             : prepared.error().code == Errc::no_memory &&
                                   tables_.pool().capacity() - in_use < 3 + 4 + length / large + 2;
      ACCELMM_CHECK(due);
      ACCELMM_CHECK(tables_.pool().tables_in_use() == in_use);
      return false;
    }
    ACCELMM_CHECK(fits);
    judge_mapping(start);  // nothing has changed yet
    auto gone = std::move(*prepared).apply();
    ACCELMM_CHECK(gone.range() == (Range{DeviceAddr(start), DeviceAddr(start + length)}));
    known->second.runs = runs;
    judge_mapping(start);
    release(std::move(gone));
    judge_mapping(start);
    judge_totals();
    return true;
  }

  /// Ends the wait of one unmapped range, as its invalidation would. Pre: which < pending().
  void release_one(std::size_t which) {
    std::vector<Pending> rest;
    for (std::size_t i = 0; i < pending_.size(); ++i)
      if (i == which)
        release(std::move(pending_[i].gone));
      else
        rest.push_back(std::move(pending_[i]));
    pending_ = std::vector<Pending>();
    for (Pending& one : rest) pending_.push_back(std::move(one));
    judge_totals();
  }
  void release_all() {
    while (!pending_.empty()) {
      release(std::move(pending_.back().gone));
      pending_.pop_back();
    }
  }

  /// Compares the translation of one address with the model and the naive walker. Returns whether
  /// it is mapped.
  bool translate(std::uint64_t va) { return judge(va); }

  /// Validates everything, and looks at every mapping and at every byte that the tables reach.
  void judge_everything() {
    space_->validate();
    tables_.pool().validate();
    for (const auto& [begin, mapping] : mappings_) judge_mapping(begin);
    const std::uint64_t reached = naive_npu1::reachable_bytes(bytes(), space_->root().value());
    ACCELMM_CHECK(reached == mapped_bytes_);
  }
  void validate() const { space_->validate(); }

 private:
  [[nodiscard]] naive_npu1::TableBytes bytes() const {
    return {tables_.bytes(), Tables::bus_begin, tables_.size()};
  }

  // Where a byte is on the bus by the model.
  [[nodiscard]] std::optional<std::pair<std::uint64_t, Access>> expected(std::uint64_t va) const {
    auto after = mappings_.upper_bound(va);
    if (after == mappings_.begin()) return std::nullopt;
    const auto& [begin, mapping] = *--after;
    std::uint64_t offset = va - begin;
    for (const Run& run : mapping.runs) {
      if (offset < run.length.value())
        return std::pair(run.address.value() + offset, mapping.access);
      offset -= run.length.value();
    }
    return std::nullopt;
  }

  bool judge(std::uint64_t va) const {
    const auto model = expected(va);
    const auto walked = naive_npu1::walk(bytes(), space_->root().value(), va);
    const auto ours = space_->translate(DeviceAddr(va));
    ACCELMM_CHECK(walked.verdict != naive_npu1::Verdict::corrupt);
    ACCELMM_CHECK((walked.verdict == naive_npu1::Verdict::page) == model.has_value());
    ACCELMM_CHECK(ours.has_value() == model.has_value());
    if (!model) return false;
    const auto& [bus, access] = *model;
    ACCELMM_CHECK(walked.bus == bus && ours->address.value() == bus);
    ACCELMM_CHECK(walked.readable == (access != Access::write));
    ACCELMM_CHECK(walked.writable == (access != Access::read));
    ACCELMM_CHECK(ours->attributes.access == access);
    ACCELMM_CHECK(ours->leaf_size.value() == walked.page_bytes);
    ACCELMM_CHECK(ours->remaining.value() == walked.page_bytes - va % walked.page_bytes);
    return true;
  }

  // Each page of a short range; of a long one both ends, the pages around 2 MiB boundaries, and
  // some between.
  static std::vector<std::uint64_t> probes(std::uint64_t begin, std::uint64_t length) {
    std::vector<std::uint64_t> found;
    const std::uint64_t stride = length <= 32 * page ? page : 0x5'3000;
    for (std::uint64_t offset = 0; offset < length; offset += stride)
      found.push_back(begin + offset);
    for (std::uint64_t va = begin / large * large; va < begin + length; va += large)
      for (std::uint64_t near : {va - 1, va, va + large - 1})
        if (begin <= near && near < begin + length) found.push_back(near);
    found.push_back(begin + length - 1);
    return found;
  }

  void judge_mapping(std::uint64_t begin) const {
    const Mapping& mapping = mappings_.at(begin);
    for (std::uint64_t va : probes(begin, mapping.length)) ACCELMM_CHECK(judge(va));
    // Just outside, it is the neighbours' answer or none.
    judge(begin - 1);
    judge(begin + mapping.length);
  }

  void judge_totals() {
    ACCELMM_CHECK(space_->mappings() == mappings_.size());
    ACCELMM_CHECK(space_->mapped_bytes() == ByteCount(mapped_bytes_));
    std::uint64_t held = 0;
    for (const Pending& one : pending_) held += one.gone.tables();
    ACCELMM_CHECK(tables_.pool().tables_in_use() * 4096 ==
                  space_->table_bytes().value() + (held + space_->spare_tables()) * 4096);
  }

  [[nodiscard]] bool is_free(std::uint64_t begin, std::uint64_t length) const {
    const Range<DeviceAddr> wanted{DeviceAddr(begin), DeviceAddr(begin + length)};
    for (const Pending& one : pending_)
      if (one.range.overlaps(wanted)) return false;
    auto after = mappings_.lower_bound(begin + length);
    if (after == mappings_.begin()) return true;
    --after;
    return after->first + after->second.length <= begin;
  }
  [[nodiscard]] bool can_lie_at(std::uint64_t begin, std::uint64_t length) const {
    return begin % page == 0 && range_.contains(DeviceAddr(begin)) &&
           length <= range_.end.value() - begin && is_free(begin, length);
  }

  // Whether a refusal was due. Shortage of tables is judged by how many a map can need at most.
  void judge_refusal(Errc code, const Placement& placement, std::uint64_t length) {
    const std::uint64_t most_tables = 2 * 3 + length / large + 2 + 2;  // two for cuts
    const bool tables_may_lack =
        tables_.pool().capacity() - tables_.pool().tables_in_use() < most_tables;
    if (code == Errc::no_memory && tables_may_lack) return;
    if (placement.kind == Placement::Kind::fixed) {
      const std::uint64_t begin = placement.address.value();
      const bool inside = begin % page == 0 && range_.contains(placement.address) &&
                          length <= range_.end.value() - begin;
      ACCELMM_CHECK(code == (inside ? Errc::address_in_use : Errc::invalid_argument));
      if (inside) ACCELMM_CHECK(!is_free(begin, length));
      return;
    }
    ACCELMM_CHECK(code == Errc::no_memory);
    ACCELMM_CHECK(largest_hole() < length);
  }

  [[nodiscard]] std::uint64_t largest_hole() const {
    std::map<std::uint64_t, std::uint64_t> taken;
    for (const auto& [begin, mapping] : mappings_) taken.emplace(begin, begin + mapping.length);
    for (const Pending& one : pending_)
      taken.emplace(one.range.begin.value(), one.range.end.value());
    std::uint64_t largest = 0;
    std::uint64_t from = range_.begin.value();
    for (const auto& [begin, end] : taken) {
      largest = std::max(largest, begin - from);
      from = end;
    }
    return std::max(largest, range_.end.value() - from);
  }

  Tables tables_;
  Range<DeviceAddr> range_;
  std::unique_ptr<AddressSpace> space_;
  std::map<std::uint64_t, Mapping> mappings_;
  std::uint64_t mapped_bytes_ = 0;
  std::vector<Pending> pending_;
};

}  // namespace accelmm::mmu::test
