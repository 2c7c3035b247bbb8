// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "dmabuf/capabilities.hpp"
#include "dmabuf/dma_buf.hpp"

#include <accelmm/access.hpp>
#include <accelmm/account.hpp>
#include <accelmm/error.hpp>
#include <accelmm/units.hpp>

#include <string_view>

namespace accelmm::dmabuf {

/// Memory that is a dma-buf from the start, and what it is charged to.
struct SourcedBuffer {
  DmaBuf buffer;
  Charge charge;
};

/// Makes memory that others own: a heap of the kernel, a DRM device.
///
/// It exports nothing that is there: what it makes is a dma-buf, which comes into a session as an
/// import and leaves it as what it is. For importers that memory files do not suit.
/// Threads   any.
class MemorySource {
 public:
  virtual ~MemorySource() = default;
  [[nodiscard]] virtual const char* name() const = 0;
  [[nodiscard]] virtual Capabilities capabilities() const = 0;

  /// Zeroed memory.
  /// Errors  invalid_argument: the size is 0 or not whole pages.  no_memory: it is larger than this
  ///         gives at once, or there is none.  over_quota: all that this gives is given.
  ///         not_supported: read-only, from what cannot.  Any value of its ioctl.
  [[nodiscard]] Result<SourcedBuffer> allocate(ByteCount size, Access access,
                                               std::string_view name);

 protected:
  /// `account`  what everything of this source is charged to; its limit is all that it gives.
  explicit MemorySource(std::shared_ptr<Account> account) : account_(std::move(account)) {}

 private:
  /// The size was checked and charged, and capabilities() allow the access.
  [[nodiscard]] virtual Result<DmaBuf> make(ByteCount size, Access access) = 0;

  std::shared_ptr<Account> account_;
};

}  // namespace accelmm::dmabuf
