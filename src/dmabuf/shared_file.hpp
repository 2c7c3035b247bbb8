// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "dmabuf/capabilities.hpp"
#include "dmabuf/dma_buf.hpp"
#include "mm/backing/sealed_memfd.hpp"

#include <accelmm/access.hpp>
#include <accelmm/error.hpp>
#include <accelmm/fd.hpp>
#include <accelmm/units.hpp>

#include <utility>
#include <variant>

namespace accelmm::dmabuf {

/// Memory of somebody else's, in a file that cannot lose it: a sealed memfd or a dma-buf.
///
/// Owns      one descriptor.
/// Threads   externally synchronised.
/// Lifetime  move-only.
class SharedFile {
 public:
  /// Takes a descriptor, which is closed on failure.
  /// Errors  not_supported: neither of them.  invalid_argument: a memfd that is not sealed against
  ///         shrinking and growing, or a size that is not whole pages.
  [[nodiscard]] static Result<SharedFile> adopt(UniqueFd fd);

  [[nodiscard]] DescriptorKind kind() const;
  [[nodiscard]] FdView fd() const;
  [[nodiscard]] ByteCount size() const;
  /// What a new mapping of it may do.
  [[nodiscard]] Access access() const;
  [[nodiscard]] FileIdentity identity() const;

 private:
  explicit SharedFile(SealedMemfd memfd) : file_(std::move(memfd)) {}
  explicit SharedFile(DmaBuf buffer) : file_(std::move(buffer)) {}

  std::variant<SealedMemfd, DmaBuf> file_;
};

}  // namespace accelmm::dmabuf
