// SPDX-License-Identifier: Apache-2.0
//
// A trace is played three times into a new allocator each: once for the time, with nothing looked
// at; once for the truth, with each place compared with all that are live, and the fragmentation
// sampled; and once with large requests tried at each sample, which might change what follows.
#pragma once

#include "allocators.hpp"
#include "outcome.hpp"
#include "places.hpp"
#include "sequence.hpp"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace accelmm::replay {

/// Plays the steps of a sequence into one allocator.
template <class A>
class Player {
 public:
  enum class Did : std::uint8_t { took, gave, nothing, refused, would_not_free };

  /// Parts are freed as such where the allocator can and the trace splits at its pages. Elsewhere an
  /// allocation is freed when all its parts are.
  Player(A& allocator, const Sequence& sequence)
      : allocator_(allocator),
        by_parts_(A::frees_parts && sequence.split_bits % OurPages::page == 0),
        slots_(sequence.slots),
        roots_(sequence.slots) {}

  [[nodiscard]] Did play(const Step& step) {
    switch (step.event.op) {
      case TraceOp::allocate:
        return take(step);
      case TraceOp::free:
        return give(step);
      default:
        split(step);
        return Did::nothing;
    }
  }

  /// Calls f(begin, bytes) for what the last step took or gave.
  template <class F>
  void each_place(const Step& step, F f) const {
    const Slot& slot = slots_[step.slot];
    const Root& root = roots_[slot.root];
    allocator_.each_place(root.piece, freed_part(slot, root), f);
  }
  [[nodiscard]] const typename A::Piece& piece(const Step& step) const {
    return roots_[slots_[step.slot].root].piece;
  }

 private:
  struct Slot {
    std::uint32_t root = 0;
    Part part{};
  };
  struct Root {
    typename A::Piece piece{};
    std::uint64_t bytes = 0;
    std::uint32_t parts = 0;  // live ones
    bool granted = false;
  };

  [[nodiscard]] Part freed_part(const Slot& slot, const Root& root) const {
    return by_parts_ ? slot.part : Part{0, root.bytes};
  }
  [[nodiscard]] Did take(const Step& step) {
    Root& root = roots_[step.slot];
    root.bytes = step.bytes;
    root.parts = 1;
    slots_[step.slot] = {step.slot, {0, step.bytes}};
    root.granted = allocator_.take(step.event, step.bytes, root.piece);
    return root.granted ? Did::took : Did::refused;
  }
  [[nodiscard]] Did give(const Step& step) {
    const Slot& slot = slots_[step.slot];
    Root& root = roots_[slot.root];
    --root.parts;
    if (!root.granted || (!by_parts_ && root.parts > 0)) return Did::nothing;
    return allocator_.give(root.piece, freed_part(slot, root), step.event.contents)
               ? Did::gave
               : Did::would_not_free;
  }
  void split(const Step& step) {
    Slot& front = slots_[step.parent];
    slots_[step.slot] = {front.root,
                         {front.part.begin + step.bytes, front.part.bytes - step.bytes}};
    front.part.bytes = step.bytes;
    ++roots_[front.root].parts;
  }

  A& allocator_;
  bool by_parts_;
  std::vector<Slot> slots_;
  std::vector<Root> roots_;
};

/// Fills an outcome. `make` gives a new allocator each time.
template <class Make>
class Replay {
 public:
  Replay(const Sequence& sequence, Make make, std::size_t samples, Outcome& outcome)
      : sequence_(sequence),
        make_(make),
        interval_(sequence.steps.size() / samples + 1),
        outcome_(outcome) {}

  void run() {
    outcome_.pool = sequence_.pool;
    outcome_.allocations = sequence_.allocations;
    outcome_.frees = sequence_.frees;
    if (!make_()) {
      outcome_.flaw = "cannot be made for such a pool";
      return;
    }
    time();
    check();
    if (outcome_.flaw.empty()) probe();
  }

 private:
  using Allocator = std::remove_cvref_t<decltype(*std::declval<Make>()())>;
  using Play = Player<Allocator>;
  using Did = typename Play::Did;

  void time() {
    auto allocator = make_();
    Play player(*allocator, sequence_);
    std::uint64_t refused = 0;
    const auto start = std::chrono::steady_clock::now();
    for (const Step& step : sequence_.steps) refused += player.play(step) == Did::refused ? 1U : 0U;
    const std::chrono::duration<double, std::nano> elapsed =
        std::chrono::steady_clock::now() - start;
    outcome_.refused = refused;
    outcome_.ns_per_operation =
        elapsed.count() / static_cast<double>(sequence_.allocations + sequence_.frees);
  }

  [[nodiscard]] bool sampled(std::size_t i) const {
    return (i + 1) % interval_ == 0 || i + 1 == sequence_.steps.size();
  }

  void check() {
    auto allocator = make_();
    Play player(*allocator, sequence_);
    Places places(outcome_.size);
    for (std::size_t i = 0; i < sequence_.steps.size() && outcome_.flaw.empty(); ++i) {
      const Step& step = sequence_.steps[i];
      const Did did = player.play(step);
      if (did == Did::took) note_taken(*allocator, player, step, places);
      if (did == Did::gave)
        player.each_place(step, [&](std::uint64_t begin, std::uint64_t bytes) {
          if (!places.remove(begin, bytes)) outcome_.flaw = "freed what was not live";
        });
      if (did == Did::would_not_free) outcome_.flaw = "refused to free";
      if (did == Did::refused && !outcome_.first_refused)
        outcome_.first_refused = Failure{step.number, step.bytes, places.occupancy()};
      if (sampled(i)) add_sample(*allocator, step, places);
    }
  }
  void note_taken(const Allocator& allocator, const Play& player, const Step& step,
                  Places& places) {
    std::uint64_t granted = 0;
    std::size_t extents = 0;
    player.each_place(step, [&](std::uint64_t begin, std::uint64_t bytes) {
      if (!places.add(begin, bytes)) outcome_.flaw = "gave the same place out twice";
      granted += bytes;
      ++extents;
      const std::uint64_t alignment = std::uint64_t{1} << step.event.align_log2;
      if constexpr (Allocator::frees_parts)
        if (extents == 1 && granted >= step.bytes && begin % alignment != 0)
          outcome_.flaw = "gave a place that is not aligned";
    });
    outcome_.grants.add(ByteCount(step.bytes), ByteCount(granted));
    outcome_.peak_live = std::max(outcome_.peak_live, places.live());
    if constexpr (Allocator::frees_parts) {
      outcome_.grants.add_extents(extents);
      if (step.event.contents == Contents::zeros)
        outcome_.grants.add_zeros(
            ByteCount(granted), ByteCount(std::min(granted, allocator.zeros(player.piece(step)))));
    }
  }
  void add_sample(const Allocator& allocator, const Step& step, Places& places) {
    outcome_.series.push_back({step.number,
                               static_cast<double>(step.event.time) * sequence_.tick_ns * 1e-9,
                               places.live(), places.occupancy(), places.fragmentation()});
    if constexpr (Allocator::frees_parts)
      if (allocator.allocator().fragmentation() != outcome_.series.back().fragmentation)
        outcome_.flaw = "tells another fragmentation than its allocations have";
  }

  void probe() {
    auto allocator = make_();
    Play player(*allocator, sequence_);
    std::uint64_t live = 0;
    for (std::size_t i = 0; i < sequence_.steps.size(); ++i) {
      const Step& step = sequence_.steps[i];
      const Did did = player.play(step);
      if (did == Did::took || did == Did::gave)
        player.each_place(step, [&](std::uint64_t, std::uint64_t bytes) {
          live = did == Did::took ? live + bytes : live - bytes;
        });
      if (sampled(i)) try_large(*allocator, step.number, live);
    }
  }
  void try_large(Allocator& allocator, std::uint64_t event, std::uint64_t live) {
    for (std::size_t i = 0; i < probe_sizes.size(); ++i) {
      if (outcome_.first_probe_refused[i]) continue;
      const TraceEvent request{.align_log2 =
                                   static_cast<std::uint8_t>(std::countr_zero(probe_sizes[i]))};
      typename Allocator::Piece piece{};
      bool whole = allocator.take(request, probe_sizes[i], piece);
      if (whole) {
        std::size_t extents = 0;
        allocator.each_place(piece, {0, probe_sizes[i]},
                             [&](std::uint64_t, std::uint64_t) { ++extents; });
        whole = extents == 1;
        if (!allocator.give(piece, {0, probe_sizes[i]}, Contents::unknown))
          outcome_.flaw = "refused to free";
      }
      if (!whole)
        outcome_.first_probe_refused[i] =
            Failure{event, probe_sizes[i],
                    static_cast<double>(live) / static_cast<double>(outcome_.size.value())};
    }
  }

  const Sequence& sequence_;
  Make make_;
  std::size_t interval_;
  Outcome& outcome_;
};

}  // namespace accelmm::replay
