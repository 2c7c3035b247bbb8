// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/trace.hpp>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace accelmm::replay {

/// One thing to do to a pool. Slots are the pool's allocations and parts of them, numbered from 0.
struct Step {
  TraceEvent event;
  std::uint64_t bytes = 0;   ///< of the event's size
  std::uint32_t slot = 0;    ///< that it makes or ends
  std::uint32_t parent = 0;  ///< of a split: what is split
  std::uint64_t number = 0;  ///< of the event in the trace
};

/// What a trace does to one pool.
struct Sequence {
  unsigned pool = 0;
  ByteCount size{};  ///< of the pool, 0 if the trace does not say
  std::uint32_t tick_ns = 1;
  std::vector<Step> steps{};
  std::uint32_t slots = 0;
  std::uint64_t allocations = 0;
  std::uint64_t frees = 0;
  ByteCount peak{};              ///< most bytes live at once, as requested
  std::uint64_t split_bits = 0;  ///< all places of splits, or-ed: on which multiples they lie
};

/// A flaw of a trace and the event that has it.
struct TraceFlaw {
  Error error;
  std::uint64_t event;
};

/// The pools that a trace uses.
[[nodiscard]] std::expected<std::vector<Sequence>, TraceFlaw> sequences_of(
    std::span<const std::byte> file);

}  // namespace accelmm::replay
