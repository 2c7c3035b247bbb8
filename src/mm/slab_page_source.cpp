// SPDX-License-Identifier: Apache-2.0
#include <accelmm/check.hpp>
#include <accelmm/slab.hpp>

namespace accelmm {

Result<Extent> PageAllocatorSource::grow(ByteCount size, Alignment alignment) {
  return pages_.allocate(size, alignment);
}

void PageAllocatorSource::give_back(Extent extent) {
  ACCELMM_CHECK(pages_.free(extent).has_value());
}

}  // namespace accelmm
