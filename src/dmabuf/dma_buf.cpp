// SPDX-License-Identifier: Apache-2.0
#include "dmabuf/dma_buf.hpp"

#include "base/mapping.hpp"
#include "base/system.hpp"
#include "base/system_dmabuf.hpp"
#include "dmabuf/buffer_name.hpp"

#include <fcntl.h>
#include <unistd.h>

namespace accelmm::dmabuf {

namespace {

// "DMAB": DMA_BUF_MAGIC of linux/magic.h.
constexpr std::int64_t dma_buf_magic = 0x444d4142;

// What new mappings may do. Nobody can map what is open for writing only.
Result<Access> mappable_access(FdView fd) {
  const auto flags = sys::get_flags(fd);
  if (!flags) return fail(flags.error());
  switch (*flags & O_ACCMODE) {
    case O_RDONLY:
      return Access::read;
    case O_RDWR:
      return Access::read_write;
    default:
      return fail(Errc::not_supported, "dma-buf is open for writing only");
  }
}

// fstat(2) says it since 5.3; before, only seeking to the end does.
Result<ByteCount> size_of(FdView fd, const struct stat& status) {
  if (status.st_size > 0) return ByteCount(static_cast<std::uint64_t>(status.st_size));
  const auto end = sys::seek(fd, 0, SEEK_END);
  if (end) return ByteCount(*end);
  if (end.error().code != static_cast<Errc>(ESPIPE)) return fail(end.error());
  return ByteCount();
}

}  // namespace

Result<bool> is_dma_buf(FdView fd) {
  const auto magic = sys::file_system_magic(fd);
  if (!magic) return fail(magic.error());
  return *magic == dma_buf_magic;
}

Result<DmaBuf> DmaBuf::adopt(UniqueFd fd) {
  if (!fd.valid()) return fail(Errc::invalid_argument, "no descriptor");
  const auto is = is_dma_buf(fd.view());
  if (!is) return fail(is.error());
  if (!*is) return fail(Errc::not_supported, "not a dma-buf");
  return adopt_known(std::move(fd));
}

Result<DmaBuf> DmaBuf::adopt_known(UniqueFd fd) {
  const auto status = sys::fstat(fd.view());
  if (!status) return fail(status.error());
  const auto size = size_of(fd.view(), *status);
  if (!size) return fail(size.error());
  if (*size == ByteCount() || !Alignment(host_page_size().value()).divides(*size))
    return fail(Errc::invalid_argument, "size of a dma-buf is not whole pages");
  const auto access = mappable_access(fd.view());
  if (!access) return fail(access.error());
  return DmaBuf(std::move(fd), *size, *access, {.device = status->st_dev, .inode = status->st_ino});
}

Result<void> name_dma_buf(FdView fd, std::string_view name) {
  const auto named = sys::dma_buf_set_name(fd, buffer_name(name).c_str());
  if (!named && named.error().code == Errc::unknown_ioctl) return {};
  return named;
}

Result<UniqueFd> DmaBuf::duplicate() const {
  return sys::duplicate(fd_.view());
}

}  // namespace accelmm::dmabuf
