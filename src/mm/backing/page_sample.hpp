// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/backing.hpp>

#include <cstddef>
#include <optional>
#include <span>

namespace accelmm {

struct SampledPages {
  PageSample sample;
  std::optional<Errc> refused;  ///< the first thing that the system would not say
};

/// Looks at up to 64 pages, evenly over a place, as this process has them mapped. Touches nothing.
/// Cost    some 66 system calls, whatever the size.
/// Pre     the place is whole pages and not empty.
[[nodiscard]] SampledPages sample_pages(std::span<std::byte> place);

}  // namespace accelmm
