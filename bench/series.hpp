// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

namespace accelmm::bench {

/// How a region looked after so many steps of a workload, all in per cent.
struct Look {
  double occupancy;      ///< allocated share of the region
  double fragmentation;  ///< share of the free memory that lies in no whole free 2 MiB
  double scattered;      ///< share of the free memory outside the longest free run
};

/// Asks for the looks to be written to this file, as lines of work,who,step,occupancy,
/// fragmentation,scattered.
/// Returns false if it cannot be written.
[[nodiscard]] bool record_series(const std::string& path);

/// Whether somebody asked.
[[nodiscard]] bool series_recorded();

/// Adds a line, if somebody asked.
void add_look(const std::string& work, const std::string& who, std::uint64_t step, Look look);

}  // namespace accelmm::bench
