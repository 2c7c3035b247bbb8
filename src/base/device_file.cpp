// SPDX-License-Identifier: Apache-2.0
#include "base/device_file.hpp"

#include "base/system.hpp"
#include "base/system_call.hpp"

#include <array>
#include <charconv>
#include <limits>
#include <optional>
#include <string_view>

#include <fcntl.h>
#include <linux/capability.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <unistd.h>

namespace accelmm::sys {
namespace {

bool is_offset(std::uint64_t offset, std::size_t size) {
  constexpr auto largest = static_cast<std::uint64_t>(std::numeric_limits<off_t>::max());
  return offset <= largest && size <= largest - offset;
}

// The number behind `name` in the text of /proc/self/status.
std::optional<std::uint64_t> field(std::string_view text, std::string_view name, int base) {
  const std::size_t found = text.find(name);
  if (found == std::string_view::npos) return std::nullopt;
  text.remove_prefix(found + name.size());
  text.remove_prefix(std::min(text.find_first_not_of(" \t"), text.size()));
  std::uint64_t value = 0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (parsed.ec != std::errc{}) return std::nullopt;
  return value;
}

}  // namespace

Result<int> control(FdView fd, unsigned long request, std::uintptr_t argument, const char* site) {
  const int done = system_call(site, [=] { return ::ioctl(fd.get(), request, argument); });
  if (done < 0) return fail_errno(errno, "ioctl of a device failed");
  return done;
}

Result<int> control_surely(FdView fd, unsigned long request, std::uintptr_t argument) noexcept {
  int done = -1;
  do {
    done = ::ioctl(fd.get(), request, argument);
  } while (done < 0 && errno == EINTR);
  if (done < 0) return fail_errno(errno, "ioctl of a device failed");
  return done;
}

Result<void> read_at(FdView fd, std::uint64_t offset, std::span<std::byte> into) {
  if (!is_offset(offset, into.size())) return fail(Errc::overflow, "offset beyond any file");
  const auto from = static_cast<off_t>(offset);
  const auto call = [=] { return ::pread(fd.get(), into.data(), into.size(), from); };
  const ssize_t count = system_call("read_at", call);
  if (count < 0) return fail_errno(errno, "reading a device failed");
  if (static_cast<std::size_t>(count) != into.size())
    return fail(Errc::io_error, "a device was read in part only");
  return {};
}

Result<void> write_at(FdView fd, std::uint64_t offset, std::span<const std::byte> from) {
  if (!is_offset(offset, from.size())) return fail(Errc::overflow, "offset beyond any file");
  const auto at = static_cast<off_t>(offset);
  const auto call = [=] { return ::pwrite(fd.get(), from.data(), from.size(), at); };
  const ssize_t count = system_call("write_at", call);
  if (count < 0) return fail_errno(errno, "writing a device failed");
  if (static_cast<std::size_t>(count) != from.size())
    return fail(Errc::io_error, "a device was written in part only");
  return {};
}

Result<std::string> read_link(const std::string& path) {
  std::array<char, 4096> target;
  const auto call = [&] { return ::readlink(path.c_str(), target.data(), target.size()); };
  const ssize_t size = system_call("read_link", call);
  if (size < 0) return fail_errno(errno, "reading a symbolic link failed");
  if (static_cast<std::size_t>(size) == target.size())
    return fail(Errc::overflow, "target of a symbolic link is too long");
  return std::string(target.data(), static_cast<std::size_t>(size));
}

Result<LockedMemory> locked_memory() {
  rlimit limit{};
  if (system_call("locked_memory", [&] { return ::getrlimit(RLIMIT_MEMLOCK, &limit); }) != 0)
    return fail_errno(errno, "reading the limit of locked memory failed");
  const auto file = open("/proc/self/status", O_RDONLY);
  if (!file) return fail(file.error());
  // Some 1.5 KiB; a file of /proc tells all of itself in one read if that has room for it.
  std::array<std::byte, 8192> bytes;
  const auto size = read(file->view(), bytes);
  if (!size) return fail(size.error());
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), *size);
  const auto locked_kib = field(text, "\nVmLck:", 10);
  const auto capabilities = field(text, "\nCapEff:", 16);
  if (!locked_kib || !capabilities)
    return fail(Errc::protocol_error, "the kernel does not tell what is locked");
  return LockedMemory{.limit = ByteCount(limit.rlim_cur),
                      .locked = ByteCount(*locked_kib << 10),
                      .unlimited = (*capabilities >> CAP_IPC_LOCK & 1) != 0};
}

}  // namespace accelmm::sys
