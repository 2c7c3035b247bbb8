// SPDX-License-Identifier: Apache-2.0
#include <accelmm/pci_address.hpp>

#include <array>
#include <charconv>
#include <cstdio>
#include <optional>

namespace accelmm {
namespace {

// Takes a hexadecimal number of a width off the text, and what must follow it.
std::optional<std::uint32_t> take(std::string_view& text, std::size_t least, std::size_t most,
                                  char separator) {
  const std::size_t width = separator == '\0' ? text.size() : text.find(separator);
  if (width == std::string_view::npos || width < least || width > most) return std::nullopt;
  const std::string_view digits = text.substr(0, width);
  std::uint32_t value = 0;
  const auto parsed = std::from_chars(digits.begin(), digits.end(), value, 16);
  if (parsed.ec != std::errc{} || parsed.ptr != digits.end()) return std::nullopt;
  text.remove_prefix(separator == '\0' ? width : width + 1);
  return value;
}

}  // namespace

Result<PciAddress> PciAddress::parse(std::string_view text) {
  const auto invalid = [] { return fail(Errc::invalid_argument, "no PCI address"); };
  std::optional<std::uint32_t> domain = 0;
  if (text.find(':') != text.rfind(':')) domain = take(text, 4, 8, ':');
  const auto bus = take(text, 2, 2, ':');
  const auto device = take(text, 2, 2, '.');
  const auto function = take(text, 1, 1, '\0');
  if (!domain || !bus || !device || !function || *device > 31 || *function > 7) return invalid();
  return PciAddress{*domain, static_cast<std::uint8_t>(*bus), static_cast<std::uint8_t>(*device),
                    static_cast<std::uint8_t>(*function)};
}

std::string PciAddress::to_string() const {
  std::array<char, 32> text;
  const int size = std::snprintf(text.data(), text.size(), "%04x:%02x:%02x.%x",
                                 static_cast<unsigned>(domain), static_cast<unsigned>(bus),
                                 static_cast<unsigned>(device), static_cast<unsigned>(function));
  return {text.data(), static_cast<std::size_t>(size)};
}

}  // namespace accelmm
