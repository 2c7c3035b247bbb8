// SPDX-License-Identifier: Apache-2.0
#include "dmabuf/format_name.hpp"

#include <array>
#include <cinttypes>
#include <cstdio>

#include <drm_fourcc.h>

namespace accelmm::dmabuf {

namespace {

std::string hexadecimal(std::uint64_t number) {
  std::array<char, 24> text{};
  std::snprintf(text.data(), text.size(), "0x%" PRIx64, number);
  return text.data();
}

// Its four letters, lowest byte first, where they are letters.
std::string fourcc_name(std::uint32_t fourcc) {
  std::string name;
  for (unsigned shift = 0; shift < 32; shift += 8) {
    const auto letter = static_cast<char>(fourcc >> shift & 0xff);
    if (letter < ' ' || letter > '~') return hexadecimal(fourcc);
    name += letter;
  }
  name.erase(name.find_last_not_of(' ') + 1);
  return name.empty() ? hexadecimal(fourcc) : name;
}

}  // namespace

std::string name_of(const FormatPattern& pattern) {
  const std::string format = pattern.fourcc ? fourcc_name(*pattern.fourcc) : "any format";
  if (!pattern.modifier) return format + " of any modifier";
  if (*pattern.modifier == DRM_FORMAT_MOD_LINEAR) return format + " linear";
  if (*pattern.modifier == DRM_FORMAT_MOD_INVALID) return format + " of the driver's own modifier";
  return format + " of modifier " + hexadecimal(*pattern.modifier);
}

}  // namespace accelmm::dmabuf
