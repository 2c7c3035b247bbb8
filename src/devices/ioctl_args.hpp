// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/driver.hpp>
#include <accelmm/error.hpp>

#include <cstddef>
#include <cstdint>
#include <span>

namespace accelmm::devices {

/// The largest struct that an ioctl number can describe (14 bits of size).
inline constexpr std::size_t max_ioctl_size = 16383;

/// Whether two commands are the same ioctl, whatever the sizes of their structs.
[[nodiscard]] bool is_ioctl(std::uint32_t command, std::uint32_t known);

/// Finds the entry of a command whatever size its struct has at the caller's; null if there is
/// none.
[[nodiscard]] const IoctlTable::Entry* find_ioctl(const IoctlTable& table, std::uint32_t command);

/// Brings a struct from the caller's size to ours, in `args`, whose size is that of the entry's
/// struct.
///
/// What we know and the caller does not is zero; what the caller has and we do not know must be
/// zero. Errors  invalid_argument: `sent` is not as long as the command says, or a reserved byte is
/// not zero.
///         too_big: non-zero bytes beyond what we know.
[[nodiscard]] Result<void> take_args(const IoctlTable::Entry& entry, std::uint32_t command,
                                     std::span<const std::byte> sent, std::span<std::byte> args);

/// The size of our struct.
[[nodiscard]] std::size_t args_size(const IoctlTable::Entry& entry);

}  // namespace accelmm::devices
