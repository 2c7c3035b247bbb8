// SPDX-License-Identifier: Apache-2.0
#include "mm/backing/sealed_memfd.hpp"

#include "base/mapping.hpp"
#include "base/system.hpp"
#include "mm/backing/huge_pages.hpp"

#include <accelmm/check.hpp>

#include <fcntl.h>
#include <linux/magic.h>
#include <linux/memfd.h>
#include <sys/mman.h>

namespace accelmm {

namespace {

bool is_whole_pages(ByteCount size) {
  return size != ByteCount() && Alignment(host_page_size().value()).divides(size);
}

FileIdentity identity_of(const struct stat& status) {
  return {.device = status.st_dev, .inode = status.st_ino};
}

// The seals of a file, or not_supported where it can have none. F_GET_SEALS answers for tmpfs and
// hugetlbfs only; for pipes, sockets, directories and other file systems it is EINVAL, for an
// O_PATH descriptor EBADF.
Result<int> seals_of_memory_file(FdView fd) {
  const auto seals = sys::get_seals(fd);
  if (seals) return seals;
  const Errc code = seals.error().code;
  if (code == Errc::invalid_argument || code == static_cast<Errc>(EBADF))
    return fail(Errc::not_supported, "descriptor is not a memory file");
  return seals;
}

// What a new shared mapping of the file may do. O_WRONLY descriptors cannot be mapped at all.
Result<Access> mappable_access(FdView fd, int seals) {
  const auto flags = sys::get_flags(fd);
  if (!flags) return fail(flags.error());
  switch (*flags & O_ACCMODE) {
    case O_RDONLY:
      return Access::read;
    case O_RDWR:
      return (seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE)) != 0 ? Access::read
                                                                 : Access::read_write;
    default:
      return fail(Errc::not_supported, "memory file is open for writing only");
  }
}

unsigned pool_flags(PageSize pages) {
  switch (pages) {
    case PageSize::huge_2m:
      return MFD_HUGETLB | MFD_HUGE_2MB;
    case PageSize::huge_1g:
      return MFD_HUGETLB | MFD_HUGE_1GB;
    default:
      return 0;
  }
}

Result<UniqueFd> create_file(const char* name, ByteCount size, PageSize pages) {
  if (!is_hugetlb(pages)) return sys::memfd_create(name, size);
  auto fd = sys::memfd_create(name, size, pool_flags(pages));
  // ENODEV: no pages of this size.  ENOSYS, EINVAL: no huge pages at all, or none in memory files.
  if (!fd && (fd.error().code == Errc::no_device || fd.error().code == Errc::invalid_argument ||
              fd.error().code == static_cast<Errc>(ENOSYS)))
    return fail(Errc::not_supported, "the kernel has no huge pages of this size");
  return fd;
}

}  // namespace

Result<SealedMemfd> SealedMemfd::create(const char* name, ByteCount size, PageSize pages) {
  if (!is_whole_pages(size) || (is_hugetlb(pages) && !largest_page(pages).divides(size)))
    return fail(Errc::invalid_argument, "size of a memory file is not whole pages");
  auto fd = create_file(name, size, pages);
  if (!fd) return fail(fd.error());
  if (const auto sealed = sys::add_seals(fd->view(), F_SEAL_SHRINK | F_SEAL_GROW); !sealed)
    return fail(sealed.error());
  const auto status = sys::fstat(fd->view());
  if (!status) return fail(status.error());
  return SealedMemfd(std::move(*fd), size, Access::read_write, identity_of(*status), Seals::open);
}

Result<SealedMemfd> SealedMemfd::adopt(UniqueFd fd) {
  if (!fd.valid()) return fail(Errc::invalid_argument, "no descriptor");
  const auto seals = seals_of_memory_file(fd.view());
  if (!seals) return fail(seals.error());
  // Huge pages come from a pool that can run dry, and touching a mapping is then a SIGBUS that no
  // seal prevents.
  const auto magic = sys::file_system_magic(fd.view());
  if (!magic) return fail(magic.error());
  if (*magic != TMPFS_MAGIC)
    return fail(Errc::not_supported, "memory file is not of ordinary pages");
  if (constexpr int fixed = F_SEAL_SHRINK | F_SEAL_GROW; (*seals & fixed) != fixed)
    return fail(Errc::invalid_argument, "memory file is not sealed against shrinking and growing");
  // Read after the seals: from here on the size cannot change.
  const auto status = sys::fstat(fd.view());
  if (!status) return fail(status.error());
  const ByteCount size(static_cast<std::uint64_t>(status->st_size));
  if (!is_whole_pages(size))
    return fail(Errc::invalid_argument, "size of a memory file is not whole pages");
  const auto access = mappable_access(fd.view(), *seals);
  if (!access) return fail(access.error());
  return SealedMemfd(std::move(fd), size, *access, identity_of(*status), Seals::final);
}

Result<void> SealedMemfd::seal(Sealing sealing) {
  ACCELMM_CHECK(seals_ == Seals::open);
  const bool read_only = sealing == Sealing::fixed_size_read_only;
  const int seals = F_SEAL_SEAL | (read_only ? F_SEAL_FUTURE_WRITE : 0);
  if (const auto sealed = sys::add_seals(fd_.view(), seals); !sealed) return sealed;
  seals_ = Seals::final;
  if (read_only) access_ = Access::read;
  return {};
}

Result<UniqueFd> SealedMemfd::duplicate() const {
  ACCELMM_CHECK(seals_ == Seals::final);
  return sys::duplicate(fd_.view());
}

}  // namespace accelmm
