// SPDX-License-Identifier: Apache-2.0
#include "filter.hpp"

#include <algorithm>

namespace demo {

namespace {

// What a pass makes of one pixel and its neighbours; those beyond the edge are the edge's.
std::uint8_t apply(const Pass& pass, const Picture& picture, std::int64_t x, std::int64_t y,
                   std::uint8_t before) {
  const auto width = std::int64_t{picture.width};
  const auto height = std::int64_t{picture.height};
  int sum = 0;
  for (int k = 0; k < 9; ++k) {
    const std::int64_t row = std::clamp<std::int64_t>(y + k / 3 - 1, 0, height - 1);
    const std::int64_t column = std::clamp<std::int64_t>(x + k % 3 - 1, 0, width - 1);
    sum += pass.kernel[static_cast<std::size_t>(k)] *
           picture.pixels[static_cast<std::size_t>(row * width + column)];
  }
  sum = sum >> static_cast<int>(pass.shift);
  if ((pass.flags & ACCELMM_NPU_ABSOLUTE) != 0) sum = std::abs(sum);
  if ((pass.flags & ACCELMM_NPU_ACCUMULATE) != 0) sum += before;
  return static_cast<std::uint8_t>(std::clamp(sum + pass.bias, 0, 255));
}

}  // namespace

Picture apply_on_cpu(std::span<const Pass> passes, const Picture& picture) {
  Picture result{picture.width, picture.height, std::vector<std::uint8_t>(picture.pixels.size())};
  for (const Pass& pass : passes) {
    std::size_t at = 0;
    for (std::int64_t y = 0; y < picture.height; ++y)
      for (std::int64_t x = 0; x < picture.width; ++x, ++at)
        result.pixels[at] = apply(pass, picture, x, y, result.pixels[at]);
  }
  return result;
}

}  // namespace demo
