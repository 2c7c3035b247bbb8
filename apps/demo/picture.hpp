// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "outcome.hpp"

#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <vector>

namespace demo {

/// A picture of 8-bit grey pixels, row by row without gaps.
struct Picture {
  std::uint32_t width = 0;
  std::uint32_t height = 0;
  std::vector<std::uint8_t> pixels;
};

/// A picture as it was read.
struct LoadedPicture {
  Picture luma;
  enum class Kind : std::uint8_t { grey, colour } kind;
};

/// Reads a PNG of any kind. Colour becomes luma by the weights of ITU-R BT.601; what is transparent
/// is laid on white; 16 bits are cut to 8.
[[nodiscard]] Outcome<LoadedPicture> load_png(const std::string& path);
[[nodiscard]] Outcome<void> save_png(const std::string& path, const Picture& picture);

/// Pictures of the same height, left to right with a white gap.
[[nodiscard]] Picture side_by_side(std::initializer_list<const Picture*> pictures);

}  // namespace demo
