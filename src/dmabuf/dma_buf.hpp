// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "mm/backing/sealed_memfd.hpp"

#include <accelmm/access.hpp>
#include <accelmm/error.hpp>
#include <accelmm/fd.hpp>
#include <accelmm/units.hpp>

#include <string_view>
#include <utility>

namespace accelmm::dmabuf {

/// Whether a descriptor is one of a dma-buf: only those lie in the kernel's file system of them.
/// Errors  any value of fstatfs(2).
[[nodiscard]] Result<bool> is_dma_buf(FdView fd);

/// Shows the name, cut to what the kernel takes, in /proc; dma-bufs of older kernels have none.
/// Errors  any value of DMA_BUF_SET_NAME.
[[nodiscard]] Result<void> name_dma_buf(FdView fd, std::string_view name);

/// Memory that drivers of the kernel share.
///
/// Owns      one descriptor. The memory lives until the last descriptor, mapping and importer of it
///           is gone.
/// Units     whole pages.
/// Threads   externally synchronised.
/// Lifetime  move-only.
/// Invariant its size never changes.
class DmaBuf {
 public:
  /// Takes a descriptor, which is closed on failure.
  /// Errors  not_supported: not a dma-buf, or one that CPUs may only write.  invalid_argument: its
  ///         size is not whole pages.  Any value of fstatfs(2), fstat(2), lseek(2), fcntl(2).
  [[nodiscard]] static Result<DmaBuf> adopt(UniqueFd fd);
  /// The same where is_dma_buf() has said so.
  [[nodiscard]] static Result<DmaBuf> adopt_known(UniqueFd fd);

  /// A descriptor to give away.
  [[nodiscard]] Result<UniqueFd> duplicate() const;

  [[nodiscard]] FdView fd() const { return fd_.view(); }
  [[nodiscard]] ByteCount size() const { return size_; }
  /// What a new mapping through this descriptor may do.
  [[nodiscard]] Access access() const { return access_; }
  /// The same for every descriptor of it, in every process, and no other's while it lives.
  [[nodiscard]] FileIdentity identity() const { return identity_; }
  [[nodiscard]] UniqueFd release() && { return std::move(fd_); }

 private:
  DmaBuf(UniqueFd fd, ByteCount size, Access access, FileIdentity identity)
      : fd_(std::move(fd)), size_(size), identity_(identity), access_(access) {}

  UniqueFd fd_;
  ByteCount size_;
  FileIdentity identity_;
  Access access_;
};

}  // namespace accelmm::dmabuf
