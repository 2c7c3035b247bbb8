// SPDX-License-Identifier: Apache-2.0
#include "base/system.hpp"
#include "base/system_call.hpp"

#include <algorithm>
#include <memory>

#include <dirent.h>
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/vfs.h>
#include <unistd.h>

namespace accelmm::sys {

Result<UniqueFd> open(const std::string& path, int flags, mode_t mode) {
  UniqueFd fd(system_call("open", [&] { return ::open(path.c_str(), flags | O_CLOEXEC, mode); }));
  if (!fd.valid()) return fail_errno(errno, "open failed");
  return fd;
}

Result<UniqueFd> duplicate(FdView fd) {
  UniqueFd copy(system_call("duplicate", [=] { return ::fcntl(fd.get(), F_DUPFD_CLOEXEC, 0); }));
  if (!copy.valid()) return fail_errno(errno, "duplicating a descriptor failed");
  return copy;
}

Result<struct stat> fstat(FdView fd) {
  struct stat status = {};
  if (system_call("fstat", [&] { return ::fstat(fd.get(), &status); }) != 0)
    return fail_errno(errno, "fstat failed");
  return status;
}

Result<std::int64_t> file_system_magic(FdView fd) {
  struct statfs status = {};
  if (system_call("file_system_magic", [&] { return ::fstatfs(fd.get(), &status); }) != 0)
    return fail_errno(errno, "fstatfs failed");
  return static_cast<std::int64_t>(status.f_type);
}

Result<int> get_flags(FdView fd) {
  const int flags = system_call("get_flags", [=] { return ::fcntl(fd.get(), F_GETFL); });
  if (flags < 0) return fail_errno(errno, "reading the flags of a descriptor failed");
  return flags;
}

Result<void> flock(FdView fd, int operation) {
  if (system_call("flock", [=] { return ::flock(fd.get(), operation); }) != 0)
    return fail_errno(errno, "flock failed");
  return {};
}

Result<void> mkdir(const std::string& path, mode_t mode) {
  if (system_call("mkdir", [&] { return ::mkdir(path.c_str(), mode); }) != 0)
    return fail_errno(errno, "mkdir failed");
  return {};
}

Result<std::vector<std::string>> list_folder(const std::string& path) {
  const auto call = [&] { return ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); };
  UniqueFd fd(system_call("list_folder", call));
  if (!fd.valid()) return fail_errno(errno, "opening a folder failed");
  DIR* const folder = ::fdopendir(fd.get());
  if (folder == nullptr) return fail_errno(errno, "reading a folder failed");
  static_cast<void>(fd.release());  // the folder's now
  const std::unique_ptr<DIR, int (*)(DIR*)> closer(folder, ::closedir);
  std::vector<std::string> names;
  while (const dirent* const entry = ::readdir(folder))
    if (entry->d_name[0] != '.') names.emplace_back(entry->d_name);
  std::ranges::sort(names);
  return names;
}

Result<void> unlink(const std::string& path) {
  if (system_call("unlink", [&] { return ::unlink(path.c_str()); }) != 0)
    return fail_errno(errno, "unlink failed");
  return {};
}

Result<void> chmod(const std::string& path, mode_t mode) {
  if (system_call("chmod", [&] { return ::chmod(path.c_str(), mode); }) != 0)
    return fail_errno(errno, "chmod failed");
  return {};
}

Result<void> chown(const std::string& path, uid_t uid, gid_t gid) {
  if (system_call("chown", [&] { return ::chown(path.c_str(), uid, gid); }) != 0)
    return fail_errno(errno, "chown failed");
  return {};
}

Result<void> set_nonblocking(FdView fd) {
  const auto flags = get_flags(fd);
  if (!flags) return fail(flags.error());
  const auto call = [&] { return ::fcntl(fd.get(), F_SETFL, *flags | O_NONBLOCK); };
  if (system_call("set_nonblocking", call) != 0)
    return fail_errno(errno, "making a descriptor non-blocking failed");
  return {};
}

Result<Pipe> pipe() {
  int ends[2] = {-1, -1};
  if (system_call("pipe", [&] { return ::pipe2(ends, O_CLOEXEC | O_NONBLOCK); }) != 0)
    return fail_errno(errno, "pipe failed");
  return Pipe{UniqueFd(ends[0]), UniqueFd(ends[1])};
}

Result<std::size_t> read(FdView fd, std::span<std::byte> into) {
  const auto call = [&] { return ::read(fd.get(), into.data(), into.size()); };
  const ssize_t count = system_call("read", call);
  if (count < 0) return fail_errno(errno, "read failed");
  return static_cast<std::size_t>(count);
}

Result<std::size_t> write(FdView fd, std::span<const std::byte> from) {
  const auto call = [&] { return ::write(fd.get(), from.data(), from.size()); };
  const ssize_t count = system_call("write", call);
  if (count < 0) return fail_errno(errno, "write failed");
  return static_cast<std::size_t>(count);
}

Result<std::uint64_t> seek(FdView fd, std::uint64_t offset, int whence) {
  const auto from = static_cast<off_t>(offset);
  const off_t found = system_call("seek", [=] { return ::lseek(fd.get(), from, whence); });
  if (found < 0) return fail_errno(errno, "seeking in a file failed");
  return static_cast<std::uint64_t>(found);
}

Result<UniqueFd> eventfd() {
  UniqueFd fd(system_call("eventfd", [] { return ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK); }));
  if (!fd.valid()) return fail_errno(errno, "eventfd failed");
  return fd;
}

}  // namespace accelmm::sys
