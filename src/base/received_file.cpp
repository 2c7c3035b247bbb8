// SPDX-License-Identifier: Apache-2.0
#include "base/received_file.hpp"

#include "base/system.hpp"

namespace accelmm {

Result<ByteCount> file_size(FdView fd) {
  const auto status = sys::fstat(fd);
  if (!status) return fail(status.error());
  if (status->st_size < 0) return fail(Errc::overflow, "a file has a negative size");
  return ByteCount(static_cast<std::uint64_t>(status->st_size));
}

Result<UniqueFd> duplicate_fd(FdView fd) {
  return sys::duplicate(fd);
}

}  // namespace accelmm
