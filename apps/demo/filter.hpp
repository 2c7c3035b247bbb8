// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "picture.hpp"

#include <accelmm/sim/npu_uapi.h>

#include <array>
#include <cstdint>
#include <span>

namespace demo {

/// One convolution of the NPU over a whole picture.
struct Pass {
  std::array<std::int8_t, 9> kernel;
  std::uint32_t shift;
  std::int32_t bias;
  std::uint32_t flags;  ///< ACCELMM_NPU_*
};

/// What finds edges: the magnitudes of both Sobel derivatives, added, at half of their height.
inline constexpr std::array<Pass, 2> find_edges{{
    {{-1, 0, 1, -2, 0, 2, -1, 0, 1}, 1, 0, ACCELMM_NPU_ABSOLUTE},
    {{-1, -2, -1, 0, 0, 0, 1, 2, 1}, 1, 0, ACCELMM_NPU_ABSOLUTE | ACCELMM_NPU_ACCUMULATE},
}};

/// What makes a pencil drawing of edges: a binomial blur, turned dark on white.
inline constexpr std::array<Pass, 1> draw_with_pencil{{
    {{-1, -2, -1, -2, -4, -2, -1, -2, -1}, 4, 255, 0},
}};

/// Computes on the CPU what the NPU should: from the definition of the passes, not from its code.
[[nodiscard]] Picture apply_on_cpu(std::span<const Pass> passes, const Picture& picture);

}  // namespace demo
