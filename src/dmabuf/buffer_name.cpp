// SPDX-License-Identifier: Apache-2.0
#include "dmabuf/buffer_name.hpp"

#include <algorithm>

namespace accelmm::dmabuf {

namespace {

// A byte of UTF-8 that is not the first of its character: 10xxxxxx.
constexpr bool continues(char byte) {
  return (static_cast<unsigned char>(byte) & 0xc0U) == 0x80U;
}

}  // namespace

std::string buffer_name(std::string_view wanted) {
  std::string_view name = wanted.substr(0, wanted.find('\0'));
  if (name.size() > longest_name) {
    std::size_t end = longest_name;
    while (end > 0 && continues(name[end])) --end;
    name = name.substr(0, end);
  }
  std::string taken(name);
  std::ranges::replace(taken, '\n', ' ');
  return taken;
}

}  // namespace accelmm::dmabuf
