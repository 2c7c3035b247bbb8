// SPDX-License-Identifier: Apache-2.0
#include "dmabuf/udmabuf_refusal.hpp"

#include "base/mapping.hpp"
#include "base/system.hpp"

#include <accelmm/check.hpp>

#include <fcntl.h>

namespace accelmm::dmabuf {

namespace {

Result<UdmabufRefusal> diagnose_file(const FileRange& range) {
  // F_GET_SEALS answers for memory files only.
  const auto seals = sys::get_seals(range.memfd);
  if (!seals) return UdmabufRefusal::not_a_memfd;
  if ((*seals & F_SEAL_SHRINK) == 0) return UdmabufRefusal::may_shrink;
  if ((*seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE)) != 0) return UdmabufRefusal::write_sealed;
  const auto status = sys::fstat(range.memfd);
  if (!status) return fail(status.error());
  const ByteCount size(static_cast<std::uint64_t>(status->st_size));
  if (range.offset > size || range.length > size - range.offset) return UdmabufRefusal::past_end;
  return UdmabufRefusal::none;
}

}  // namespace

Result<UdmabufRefusal> diagnose_udmabuf(std::span<const FileRange> ranges,
                                        const PieceLimits& limits) {
  if (ranges.empty()) return UdmabufRefusal::empty;
  if (ranges.size() > limits.most_ranges) return UdmabufRefusal::too_many;
  const Alignment page(host_page_size().value());
  std::uint64_t total = 0;
  for (const FileRange& range : ranges) {
    if (!page.divides(range.offset) || !page.divides(range.length))
      return UdmabufRefusal::unaligned;
    if (__builtin_add_overflow(total, range.length.value(), &total) ||
        total > limits.largest.value())
      return UdmabufRefusal::too_large;
  }
  if (total == 0) return UdmabufRefusal::empty;
  for (const FileRange& range : ranges) {
    const auto refusal = diagnose_file(range);
    if (!refusal || *refusal != UdmabufRefusal::none) return refusal;
  }
  return UdmabufRefusal::none;
}

Error error_of(UdmabufRefusal refusal) noexcept {
  switch (refusal) {
    case UdmabufRefusal::none:
      break;
    case UdmabufRefusal::empty:
      return {Errc::invalid_argument, "dma-buf of no bytes"};
    case UdmabufRefusal::unaligned:
      return {Errc::invalid_argument, "dma-buf of what is not whole pages"};
    case UdmabufRefusal::not_a_memfd:
      return {Errc::not_supported, "not a memory file"};
    case UdmabufRefusal::may_shrink:
      return {Errc::invalid_argument, "memory file is not sealed against shrinking"};
    case UdmabufRefusal::write_sealed:
      return {Errc::not_supported, "memory file is sealed against writing, a dma-buf is not"};
    case UdmabufRefusal::past_end:
      return {Errc::invalid_argument, "memory file ends before the range"};
    case UdmabufRefusal::too_large:
      return {Errc::not_supported, "dma-buf larger than udmabuf's size_limit_mb"};
    case UdmabufRefusal::too_many:
      return {Errc::not_supported, "dma-buf of more ranges than udmabuf's list_limit"};
  }
  ACCELMM_CHECK(refusal != UdmabufRefusal::none);
  return {Errc::invalid_argument, "no refusal"};
}

}  // namespace accelmm::dmabuf
