// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/error.hpp>
#include <accelmm/fd.hpp>
#include <accelmm/units.hpp>

namespace accelmm {

/// Asks how much there is to map in a file that came from another process. Reading a mapping beyond
/// it is SIGBUS.
[[nodiscard]] Result<ByteCount> file_size(FdView fd);

/// Makes a second descriptor of the same open file.
[[nodiscard]] Result<UniqueFd> duplicate_fd(FdView fd);

}  // namespace accelmm
