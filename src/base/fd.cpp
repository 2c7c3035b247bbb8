// SPDX-License-Identifier: Apache-2.0
#include "base/system.hpp"

#include <accelmm/fd.hpp>

#include <cerrno>

#include <unistd.h>

namespace accelmm {

// Linux frees the number whatever close() returns, EINTR included: a second close() would hit a
// descriptor that another thread may have opened meanwhile.
void UniqueFd::reset(int fd) noexcept {
  const int old = std::exchange(fd_, fd);
  if (old < 0) return;
  const int saved_errno = errno;
  static_cast<void>(::close(old));
  errno = saved_errno;
}

Result<UniqueFd> duplicate(FdView fd) {
  return sys::duplicate(fd);
}

}  // namespace accelmm
