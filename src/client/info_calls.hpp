// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "client/link.hpp"

#include <accelmm/error.hpp>
#include <accelmm/uapi.h>

#include <cstddef>
#include <cstdint>
#include <vector>

namespace accelmm {

/// The topics of ACCELMM_IOCTL_INFO. A driver process that is older than this library knows less of
/// a struct; the rest is zero then.
/// Errors  protocol_error: facts about something else, a name that does not end.
[[nodiscard]] Result<accelmm_info_device> read_device_info(ClientLink& link);
[[nodiscard]] Result<accelmm_info_usage> read_usage(ClientLink& link);
[[nodiscard]] Result<accelmm_info_session> read_session_info(ClientLink& link);
[[nodiscard]] Result<accelmm_info_fault> read_fault(ClientLink& link);

/// Topic ACCELMM_INFO_DRIVER + `topic`.
/// Errors  invalid_argument: there is no such number, or the driver has no such topic.
[[nodiscard]] Result<accelmm_info> read_driver_info(ClientLink& link, std::uint32_t topic);

/// The bytes of `info` that hold the topic: at most ACCELMM_INFO_DATA_SIZE.
[[nodiscard]] std::size_t data_size(const accelmm_info& info) noexcept;

}  // namespace accelmm
