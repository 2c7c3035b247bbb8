// SPDX-License-Identifier: Apache-2.0
#include "devices/ioctl_args.hpp"

#include <algorithm>
#include <cstring>

namespace accelmm::devices {
namespace {

constexpr std::uint32_t size_bits = static_cast<std::uint32_t>(_IOC_SIZEMASK) << _IOC_SIZESHIFT;

bool all_zero(std::span<const std::byte> bytes) {
  return std::ranges::all_of(bytes, [](std::byte b) { return b == std::byte{0}; });
}

}  // namespace

bool is_ioctl(std::uint32_t command, std::uint32_t known) {
  return ((command ^ known) & ~size_bits) == 0;
}

const IoctlTable::Entry* find_ioctl(const IoctlTable& table, std::uint32_t command) {
  for (const auto& entry : table.entries())
    if (is_ioctl(command, entry.command)) return &entry;
  return nullptr;
}

std::size_t args_size(const IoctlTable::Entry& entry) {
  return _IOC_SIZE(entry.command);
}

Result<void> take_args(const IoctlTable::Entry& entry, std::uint32_t command,
                       std::span<const std::byte> sent, std::span<std::byte> args) {
  ACCELMM_CHECK(args.size() == args_size(entry));
  if (sent.size() != _IOC_SIZE(command))
    return fail(Errc::invalid_argument, "struct is not as long as its command says");
  const std::size_t known = std::min(sent.size(), args.size());
  if (!all_zero(sent.subspan(known)))
    return fail(Errc::too_big, "struct has non-zero bytes that this driver does not know");
  std::ranges::fill(args, std::byte{0});
  std::ranges::copy(sent.first(known), args.begin());
  for (const auto& reserved : entry.reserved)
    if (!all_zero(std::span<const std::byte>(args).subspan(reserved.offset, reserved.size)))
      return fail(Errc::invalid_argument, "reserved bytes are not zero");
  return {};
}

}  // namespace accelmm::devices
