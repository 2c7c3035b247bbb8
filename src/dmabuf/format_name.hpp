// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/constraints.hpp>

#include <string>

namespace accelmm::dmabuf {

/// "XR24 linear", "NV12 of any modifier", "any format of modifier 0x100000000000001".
[[nodiscard]] std::string name_of(const FormatPattern& pattern);

}  // namespace accelmm::dmabuf
