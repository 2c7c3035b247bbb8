// SPDX-License-Identifier: Apache-2.0
//
// Any text as what the kernel says about a dma-buf, and any name for one. What is read back from a
// text of ours is what was put in; a name fits, is a beginning of what was wanted, and parts no
// character.
#include "dmabuf/buffer_info.hpp"
#include "dmabuf/buffer_name.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

namespace {

void require(bool condition) {
  if (!condition) std::abort();
}

bool continues(char byte) {
  return (static_cast<unsigned char>(byte) & 0xc0U) == 0x80U;
}

void check_name(std::string_view wanted) {
  using namespace accelmm::dmabuf;
  const std::string name = buffer_name(wanted);
  require(name.size() <= longest_name && name.size() <= wanted.size());
  for (std::size_t at = 0; at < name.size(); ++at)
    require(name[at] == (wanted[at] == '\n' ? ' ' : wanted[at]) && name[at] != '\0');
  const bool cut = name.size() < wanted.size() && wanted[name.size()] != '\0';
  // Of a first byte with more behind it than a character has nothing is left.
  if (cut && name.empty())
    return require(std::ranges::all_of(wanted.substr(1, longest_name), continues));
  require(!cut || !continues(wanted[name.size()]));
  require(!cut || name.size() + 4 > longest_name || continues(wanted[longest_name]));
  require(buffer_name(name) == name);
}

void check_text(std::string_view text) {
  using namespace accelmm::dmabuf;
  const auto info = parse_buffer_info(text);
  if (!info) return require(info.error().code == accelmm::Errc::protocol_error);
  const std::string again = "size:\t" + std::to_string(info->size.value()) + "\ncount:\t" +
                            std::to_string(info->holders) + "\nexp_name:\t" + info->exporter +
                            "\nname:\t" + info->name + "\n";
  const auto same = parse_buffer_info(again);
  require(same && same->size == info->size && same->holders == info->holders &&
          same->exporter == info->exporter && same->name == info->name);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  check_name(text);
  check_text(text);
  return 0;
}
