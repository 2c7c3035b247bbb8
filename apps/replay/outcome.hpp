// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/fragmentation.hpp>
#include <accelmm/units.hpp>

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace accelmm::replay {

/// How a pool looked after an event.
struct Sample {
  std::uint64_t event;
  double seconds;
  std::uint64_t live;  ///< bytes
  double occupancy;
  Fragmentation fragmentation;
};

/// When something first could not be had.
struct Failure {
  std::uint64_t event;
  std::uint64_t bytes;
  double occupancy;
};

/// Requests that are tried now and then, at a multiple of their size: the leaves of page tables.
inline constexpr std::array<std::uint64_t, 2> probe_sizes = {std::uint64_t{2} << 20,
                                                             std::uint64_t{1} << 30};

/// What a replay found.
struct Outcome {
  std::string allocator;
  unsigned pool = 0;
  ByteCount size{};
  std::uint64_t allocations = 0;
  std::uint64_t frees = 0;
  double ns_per_operation = 0;
  std::uint64_t refused = 0;
  std::optional<Failure> first_refused{};
  std::uint64_t peak_live = 0;
  std::vector<Sample> series{};
  std::array<std::optional<Failure>, probe_sizes.size()> first_probe_refused{};
  GrantTally grants{};
  std::string flaw{};  ///< what the allocator did wrong; empty if nothing
};

void print(const Outcome& outcome);
/// Both write files. Return false if they cannot.
[[nodiscard]] bool write_json(const std::string& path, const std::vector<Outcome>& outcomes);
[[nodiscard]] bool write_series(const std::string& path, const std::vector<Outcome>& outcomes);

}  // namespace accelmm::replay
