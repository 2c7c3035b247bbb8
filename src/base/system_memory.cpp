// SPDX-License-Identifier: Apache-2.0
#include "base/system.hpp"
#include "base/system_call.hpp"

#include <accelmm/check.hpp>

#include <limits>

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

namespace accelmm::sys {

namespace {

// MFD_NOEXEC_SEAL of linux/memfd.h, kernel 6.3: the file can never be made executable. Older
// headers lack it.
constexpr unsigned memfd_noexec_seal = 0x0008;

int create_unsized_memfd(const char* name, unsigned extra_flags) noexcept {
  const unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING | extra_flags;
  const int fd = ::memfd_create(name, flags | memfd_noexec_seal);
  if (fd >= 0 || errno != EINVAL) return fd;
  return ::memfd_create(name, flags);
}

}  // namespace

Result<UniqueFd> memfd_create(const char* name, ByteCount size, unsigned extra_flags) {
  if (size.value() > static_cast<std::uint64_t>(std::numeric_limits<off_t>::max()))
    return fail(Errc::overflow, "memfd larger than a file can be");
  UniqueFd fd(system_call("memfd_create", [=] { return create_unsized_memfd(name, extra_flags); }));
  if (!fd.valid()) return fail_errno(errno, "memfd_create failed");
  const auto length = static_cast<off_t>(size.value());
  if (system_call("ftruncate", [&] { return ::ftruncate(fd.get(), length); }) != 0)
    return fail_errno(errno, "ftruncate of a memfd failed");
  return fd;
}

Result<void> add_seals(FdView fd, int seals) {
  if (system_call("add_seals", [=] { return ::fcntl(fd.get(), F_ADD_SEALS, seals); }) != 0)
    return fail_errno(errno, "sealing failed");
  return {};
}

Result<int> get_seals(FdView fd) {
  const int seals = system_call("get_seals", [=] { return ::fcntl(fd.get(), F_GET_SEALS); });
  if (seals < 0) return fail_errno(errno, "reading the seals failed");
  return seals;
}

Result<std::byte*> mmap(void* address, ByteCount length, int prot, int flags, FdView fd,
                        std::uint64_t offset) {
  if (offset > static_cast<std::uint64_t>(std::numeric_limits<off_t>::max()))
    return fail(Errc::overflow, "file offset larger than a file can be");
  if (const int injected = fault_injection::point("mmap"); injected != 0)
    return fail_errno(injected, "mmap failed");
  void* const mapped =
      ::mmap(address, length.value(), prot, flags, fd.get(), static_cast<off_t>(offset));
  if (mapped == MAP_FAILED) return fail_errno(errno, "mmap failed");
  return static_cast<std::byte*>(mapped);
}

void munmap(std::byte* address, ByteCount length) noexcept {
  const int saved_errno = errno;
  ACCELMM_CHECK(::munmap(address, length.value()) == 0);
  errno = saved_errno;
}

Result<void> move_mapping(std::byte* from, ByteCount length, std::byte* to) {
  if (const int injected = fault_injection::point("mremap"); injected != 0)
    return fail_errno(injected, "mremap failed");
  const std::size_t size = length.value();
  if (::mremap(from, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, to) == MAP_FAILED)
    return fail_errno(errno, "mremap failed");
  return {};
}

Result<void> madvise(std::byte* address, ByteCount length, int advice) {
  const auto call = [=] { return ::madvise(address, length.value(), advice); };
  if (system_call("madvise", call) != 0) return fail_errno(errno, "madvise failed");
  return {};
}

}  // namespace accelmm::sys
