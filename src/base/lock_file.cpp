// SPDX-License-Identifier: Apache-2.0
#include "base/lock_file.hpp"

#include "base/system.hpp"

#include <fcntl.h>
#include <sys/file.h>

namespace accelmm {

Result<LockFile> LockFile::claim(const std::string& path) {
  auto fd = sys::open(path, O_RDWR | O_CREAT | O_NOFOLLOW, 0600);
  if (!fd) return fail(fd.error());
  if (auto locked = sys::flock(fd->view(), LOCK_EX | LOCK_NB); !locked) {
    if (locked.error().code == Errc::try_again) return fail(Errc::busy, "lock is held");
    return fail(locked.error());
  }
  return LockFile(std::move(*fd));
}

Result<void> ensure_directory(const std::string& path, unsigned mode) {
  auto made = sys::mkdir(path, static_cast<mode_t>(mode));
  if (!made && made.error().code != Errc::exists) return made;
  return {};
}

}  // namespace accelmm
