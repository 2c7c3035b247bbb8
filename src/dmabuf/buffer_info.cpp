// SPDX-License-Identifier: Apache-2.0
#include "dmabuf/buffer_info.hpp"

#include "base/system.hpp"
#include "dmabuf/dma_buf.hpp"

#include <array>
#include <charconv>
#include <optional>

#include <fcntl.h>

namespace accelmm::dmabuf {

namespace {

// "key:", blanks or a tab, then the value up to the end of its line.
std::optional<std::string_view> value_of(std::string_view line, std::string_view key) {
  if (!line.starts_with(key) || line.size() == key.size() || line[key.size()] != ':')
    return std::nullopt;
  line.remove_prefix(key.size() + 1);
  const auto first = line.find_first_not_of(" \t");
  return first == std::string_view::npos ? std::string_view() : line.substr(first);
}

std::optional<std::uint64_t> number_of(std::string_view text) {
  std::uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

}  // namespace

Result<BufferInfo> parse_buffer_info(std::string_view text) {
  std::optional<std::uint64_t> size;
  std::optional<std::uint64_t> holders;
  std::optional<std::string> exporter;
  BufferInfo info;
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    if (const auto value = value_of(line, "size")) {
      size = number_of(*value);
    } else if (const auto count = value_of(line, "count")) {
      holders = number_of(*count);
    } else if (const auto exp = value_of(line, "exp_name")) {
      exporter = *exp;
    } else if (const auto name = value_of(line, "name")) {
      info.name = *name;
    }
  }
  if (!size || !holders || !exporter)
    return fail(Errc::protocol_error, "the kernel says something else about a dma-buf");
  info.size = ByteCount(*size);
  info.holders = *holders;
  info.exporter = std::move(*exporter);
  return info;
}

Result<BufferInfo> buffer_info(FdView buffer) {
  const auto is = is_dma_buf(buffer);
  if (!is) return fail(is.error());
  if (!*is) return fail(Errc::not_supported, "not a dma-buf");
  const auto file = sys::open("/proc/self/fdinfo/" + std::to_string(buffer.get()), O_RDONLY);
  if (!file) return fail(file.error());
  // A handful of lines; a name has 31 bytes at most.
  std::array<char, 1024> text{};
  const auto size = sys::read(file->view(), std::as_writable_bytes(std::span(text)));
  if (!size) return fail(size.error());
  return parse_buffer_info({text.data(), *size});
}

}  // namespace accelmm::dmabuf
