// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace accelmm::dmabuf {

/// DMA_BUF_NAME_LEN without the zero at its end.
constexpr std::size_t longest_name = 31;

/// The name as the kernel takes it: at most 31 bytes, no character of UTF-8 cut in two, nothing
/// after a zero byte, and no line's end, which would end it in /proc too.
[[nodiscard]] std::string buffer_name(std::string_view wanted);

}  // namespace accelmm::dmabuf
