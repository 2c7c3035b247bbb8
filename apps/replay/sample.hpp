// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/trace.hpp>
#include <accelmm/units.hpp>

#include <cstdint>

namespace accelmm::replay {

struct SampleWork {
  ByteCount pool{std::uint64_t{16} << 30};
  std::uint64_t steps = 100'000;
  std::uint64_t seed = 1;
};

/// Records random work on a page allocator: requests of 4 KiB to 4 MiB of all lifetimes, some of them
/// scattered, up to nine tenths of the pool; frees of allocations, and of parts.
/// Errors  what the allocator cannot be made for, and what the sink says.
[[nodiscard]] Result<void> record_sample(TraceSink& sink, const SampleWork& work);

}  // namespace accelmm::replay
