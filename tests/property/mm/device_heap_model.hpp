// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "property/mm/checkpoints.hpp"

#include <accelmm/check.hpp>
#include <accelmm/device_heap.hpp>

#include <algorithm>
#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <vector>

namespace accelmm::test {

/// A device heap beside a naive model of it, intervals in a map, that judges each of its answers.
///
/// Four owners: two sessions of each of two uids. Each operation returns whether it succeeded; an
/// answer that the model does not allow aborts, and so does a broken invariant: validate() runs
/// after every operation, or at checkpoints, and so does a recount.
class JudgedHeap {
 public:
  static constexpr std::size_t owners = 4;
  static constexpr std::uint64_t granule = 4096;

  JudgedHeap(std::uint64_t native, std::uint64_t pages, std::uint32_t spare_pages,
             Checkpoints checkpoints = {})
      : native_(native),
        pages_(pages),
        // The pieces of a slab keep its native page, and when a slab is empty is not foretold.
        slabs_(native > 65536),
        heap_(DeviceHeap::create({.size = ByteCount(native * pages),
                                  .native_page = ByteCount(native),
                                  .spare_pages = spare_pages})
                  .value()),
        checkpoints_(checkpoints) {
    for (std::size_t uid = 0; uid < 2; ++uid)
      users_[uid] = std::make_shared<Account>(Account::Options{
          .limits = {.bytes = ByteCount(native * pages * 3 / 4)}, .parent = device_});
    for (std::size_t o = 0; o < owners; ++o) {
      accounts_[o] = std::make_shared<Account>(
          Account::Options{.limits = {.bytes = ByteCount(native * pages / 2), .allocations = 400},
                           .parent = users_[o / 2]});
      ids_[o] = heap_.add_owner(accounts_[o]).value();
    }
  }

  [[nodiscard]] std::uint64_t native() const { return native_; }
  [[nodiscard]] std::uint64_t total() const { return native_ * pages_; }
  [[nodiscard]] std::size_t live() const { return live_.size(); }
  [[nodiscard]] std::uint64_t held() const { return heap_.statistics().held.value(); }

  bool allocate(std::size_t owner, const DeviceHeap::Request& request) {
    const auto got = heap_.allocate(ids_[owner], request);
    if (!got) {
      judge_refusal(owner, request, got.error().code);
      judge_state();
      return false;
    }
    Live live{.id = got->id, .owner = owner, .request = request};
    live.extents = heap_.extents(got->id).value();
    ACCELMM_CHECK(live.extents.size() == got->extents && live.extents[0] == got->extent);
    judge_extents(live);
    for (const Extent& extent : live.extents) enter(extent, owner);
    live_.push_back(live);
    judge_state();
    return true;
  }

  /// Frees the n-th allocation, whole or, where it has several, by one extent.
  enum class Part { all, last_extent };
  bool free(std::size_t n, Part part) {
    Live& live = live_[n];
    const std::size_t stranger = (live.owner + 1) % owners;
    ACCELMM_CHECK(!heap_.free(ids_[stranger], live.id));
    ACCELMM_CHECK(!heap_.free(ids_[stranger], live.extents[0]));
    if (live.moves_to) {
      ACCELMM_CHECK(heap_.free(ids_[live.owner], live.id).error().code == Errc::busy);
      return false;
    }
    if (part == Part::last_extent) {
      const Extent extent = live.extents.back();
      ACCELMM_CHECK(heap_.free(ids_[live.owner], extent).has_value());
      ACCELMM_CHECK(!heap_.free(ids_[live.owner], extent));
      leave(extent);
      live.extents.pop_back();
      live.parts_freed = true;
    } else {
      ACCELMM_CHECK(heap_.free(ids_[live.owner], live.id).has_value());
      for (const Extent& extent : live.extents) leave(extent);
      live.extents.clear();
    }
    if (live.extents.empty()) {
      ACCELMM_CHECK(!heap_.free(ids_[live.owner], live.id));
      live_.erase(live_.begin() + static_cast<std::ptrdiff_t>(n));
    }
    judge_state();
    return true;
  }

  bool free_after(std::size_t n, std::uint64_t point) {
    Live live = live_[n];
    if (live.moves_to) return false;
    ACCELMM_CHECK(heap_.free_after(ids_[live.owner], live.id, point).has_value());
    if (point > reached_) {  // it is on its way
      ACCELMM_CHECK(!heap_.free(ids_[live.owner], live.id));
      ACCELMM_CHECK(!heap_.free(ids_[live.owner], live.extents[0]));
    }
    live_.erase(live_.begin() + static_cast<std::ptrdiff_t>(n));
    if (point <= reached_) {
      for (const Extent& extent : live.extents) leave(extent);
    } else {
      pending_.emplace(point, live);
      ++waiting_;
    }
    judge_state();
    return true;
  }

  bool retire(std::uint64_t point) {
    reached_ = std::max(reached_, point);
    heap_.retire(point);
    forget_reached();
    judge_state();
    return true;
  }

  bool trim() {
    heap_.trim();
    ACCELMM_CHECK(heap_.statistics().spare == ByteCount(0));
    judge_state();
    return true;
  }

  /// Plans, begins all of the plan at once, and ends each move, one way or the other.
  bool move(ByteCount budget, const DeviceHeap::Goal& goal, std::uint64_t aborted) {
    const auto plan = heap_.plan_moves(budget, goal).value();
    ByteCount bytes;
    for (const auto& move : plan) {
      bytes += move.from.length;
      Live& live = find(move.allocation);
      ACCELMM_CHECK(live.request.lifetime != Lifetime::pinned);
      ACCELMM_CHECK(heap_.begin_move(move).has_value());
      ACCELMM_CHECK(!heap_.begin_move(move));
      enter(move.to, live.owner);  // both places are taken, and no two of the plan overlap
      live.moves_to = move.to;
      ACCELMM_CHECK(live.request.alignment.divides(move.to.offset));
      judge_state();
    }
    ACCELMM_CHECK(bytes <= budget);
    for (std::size_t i = 0; i < plan.size(); ++i) {
      const auto& move = plan[i];
      Live& live = find(move.allocation);
      const bool abort = aborted != 0 && i % aborted == 0;
      ACCELMM_CHECK((abort ? heap_.abort_move(move) : heap_.commit_move(move)).has_value());
      ACCELMM_CHECK(!heap_.commit_move(move));
      leave(abort ? move.to : move.from);
      if (!abort) *std::ranges::find(live.extents, move.from) = move.to;
      live.moves_to.reset();
      judge_state();
    }
    if (aborted == 0 && !plan.empty() && goal.kind == DeviceHeap::Goal::Kind::run)
      ACCELMM_CHECK(longest_free() * native_ >= goal.size.value());
    return !plan.empty();
  }

  /// The session ends, and another of the same uid begins. What it held stays until it is freed.
  bool reopen(std::size_t owner) {
    for (const Live& live : live_)
      if (live.owner == owner) return false;
    for (const auto& [point, live] : pending_)
      if (live.owner == owner) return false;
    ACCELMM_CHECK(heap_.close_owner(ids_[owner]).has_value());
    ACCELMM_CHECK(!heap_.close_owner(ids_[owner]));
    ACCELMM_CHECK(accounts_[owner]->used() == ByteCount(0));
    ids_[owner] = heap_.add_owner(accounts_[owner]).value();
    judge_state();
    return true;
  }

  void free_everything() {
    retire(~std::uint64_t{0});
    while (!live_.empty()) ACCELMM_CHECK(free(live_.size() - 1, Part::all));
    trim();
    const auto statistics = heap_.statistics();
    ACCELMM_CHECK(statistics.free == ByteCount(total()) && statistics.held == ByteCount(0));
    ACCELMM_CHECK(device_->used() == ByteCount(0));
    ACCELMM_CHECK(heap_.explain(ids_[0], {.size = ByteCount(1)}).largest_free ==
                  ByteCount(total()));
  }

 private:
  struct Live {
    AllocationId id{};
    std::size_t owner = 0;
    DeviceHeap::Request request{};
    std::vector<Extent> extents{};
    std::optional<Extent> moves_to{};
    bool parts_freed = false;
  };
  struct Taken {
    std::uint64_t end;
    std::size_t owner;
  };

  Live& find(AllocationId id) {
    const auto found = std::ranges::find(live_, id, &Live::id);
    ACCELMM_CHECK(found != live_.end());
    return *found;
  }

  [[nodiscard]] bool is_small(const DeviceHeap::Request& request) const {
    return native_ > granule && request.size.value() <= native_ - granule &&
           native_ % request.alignment.value() == 0;
  }
  [[nodiscard]] std::uint64_t native_size(const DeviceHeap::Request& request) const {
    return (request.size.value() + native_ - 1) / native_ * native_;
  }

  void enter(const Extent& extent, std::size_t owner) {
    const std::uint64_t begin = extent.offset.value();
    const std::uint64_t end = extent.end().value();
    ACCELMM_CHECK(begin < end && end <= total());
    const auto after = taken_.lower_bound(begin);
    ACCELMM_CHECK(after == taken_.end() || end <= after->first);
    ACCELMM_CHECK(after == taken_.begin() || std::prev(after)->second.end <= begin);
    taken_.emplace(begin, Taken{end, owner});
  }
  void leave(const Extent& extent) { ACCELMM_CHECK(taken_.erase(extent.offset.value()) == 1); }

  void forget_reached() {
    while (!pending_.empty() && pending_.begin()->first <= reached_) {
      for (const Extent& extent : pending_.begin()->second.extents) leave(extent);
      pending_.erase(pending_.begin());
      --waiting_;
    }
  }

  void judge_extents(const Live& live) const {
    const auto& request = live.request;
    ByteCount total;
    for (const Extent& extent : live.extents) {
      total += extent.length;
      ACCELMM_CHECK(request.alignment.divides(extent.offset));
      ACCELMM_CHECK(request.within.empty() ||
                    request.within.contains({extent.offset, extent.end()}));
    }
    ACCELMM_CHECK(total >= request.size);
    if (is_small(request))
      ACCELMM_CHECK(total.value() < request.size.value() + granule);
    else
      ACCELMM_CHECK(total.value() == native_size(request));
  }

  /// Who has each native page; nobody: free or spare.
  [[nodiscard]] std::vector<std::optional<std::size_t>> page_owners() const {
    std::vector<std::optional<std::size_t>> pages(pages_);
    for (const auto& [begin, taken] : taken_)
      for (std::uint64_t page = begin / native_; page * native_ < taken.end; ++page) {
        // The isolation: what is on one native page is of one owner.
        ACCELMM_CHECK(!pages[page] || *pages[page] == taken.owner);
        pages[page] = taken.owner;
      }
    return pages;
  }
  [[nodiscard]] std::uint64_t longest_free() const {
    std::uint64_t longest = 0;
    std::uint64_t run = 0;
    for (const auto& page : page_owners()) longest = std::max(longest, run = page ? 0 : run + 1);
    return longest;
  }

  // What must not be refused: a run of native pages in the whole heap, within the quota.
  void judge_refusal(std::size_t owner, const DeviceHeap::Request& request, Errc code) const {
    if (slabs_ || !request.within.empty()) return;
    const bool small = is_small(request);
    const std::uint64_t size = small ? native_ : native_size(request);
    if (code == Errc::over_quota) {
      ACCELMM_CHECK(accounts_[owner]->left() < ByteCount(size) ||
                    accounts_[owner]->usage().allocations == 400);
      return;
    }
    ACCELMM_CHECK(code == Errc::no_memory);
    const auto pages = page_owners();
    const auto free = static_cast<std::uint64_t>(
        std::ranges::count_if(pages, [](const auto& page) { return !page; }));
    if (request.layout == DeviceHeap::Layout::scattered && !small) {
      ACCELMM_CHECK(free * native_ < size);
    } else {
      std::uint64_t run = 0;
      for (std::uint64_t page = 0; page < pages_; ++page) {
        const bool aligned = page * native_ % request.alignment.value() == 0;
        run = pages[page] || (run == 0 && !aligned) ? 0 : run + 1;
        ACCELMM_CHECK(run * native_ < size);
      }
    }
  }

  void judge_state() {
    const auto statistics = heap_.statistics();
    ACCELMM_CHECK(statistics.allocations == live_.size());
    ACCELMM_CHECK(statistics.pending_allocations == waiting_);
    if (!checkpoints_.due()) return;
    heap_.validate();
    ACCELMM_CHECK(statistics == heap_.recount());
    const auto pages = page_owners();
    std::array<std::uint64_t, owners> held{};
    for (const auto& owner : pages)
      if (owner) ++held[*owner];
    std::uint64_t all = 0;
    for (std::size_t o = 0; o < owners; ++o) {
      const std::uint64_t used = accounts_[o]->used().value();
      // Destinations of moves of native pages are charged to nobody.
      ACCELMM_CHECK(used + statistics.moving.value() >= held[o] * native_);
      if (!slabs_ && statistics.moving == ByteCount(0)) ACCELMM_CHECK(used == held[o] * native_);
      all += used;
    }
    ACCELMM_CHECK(device_->used() == ByteCount(all) && statistics.held == ByteCount(all));
    ACCELMM_CHECK(users_[0]->used() + users_[1]->used() == ByteCount(all));
    ByteCount pending;
    bool whole = true;
    for (const auto& [point, live] : pending_) {
      pending += live.request.size;
      whole = whole && !live.parts_freed;
    }
    if (whole) ACCELMM_CHECK(statistics.pending == pending);
    ACCELMM_CHECK(statistics.free + statistics.held + statistics.spare + statistics.reserved +
                      statistics.moving ==
                  ByteCount(total()));
  }

  std::uint64_t native_;
  std::uint64_t pages_;
  bool slabs_;
  std::shared_ptr<Account> device_ = std::make_shared<Account>(Account::Options{});
  std::array<std::shared_ptr<Account>, 2> users_;
  std::array<std::shared_ptr<Account>, owners> accounts_;
  DeviceHeap heap_;
  std::array<OwnerId, owners> ids_{};
  std::vector<Live> live_;
  std::multimap<std::uint64_t, Live> pending_;
  std::size_t waiting_ = 0;
  std::uint64_t reached_ = 0;
  std::map<std::uint64_t, Taken> taken_;  // by where it begins
  Checkpoints checkpoints_;
};

}  // namespace accelmm::test
