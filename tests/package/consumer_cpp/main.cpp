// SPDX-License-Identifier: Apache-2.0
//
// One layer used alone, from the installed package: the page allocator, without devices.
#include <accelmm/page_allocator.hpp>
#include <accelmm/units.hpp>

#include <cstdio>

namespace {

int failed(const char* what) {
  std::fprintf(stderr, "consumer_cpp: %s\n", what);
  return 1;
}

}  // namespace

int main() {
  using namespace accelmm::literals;
  auto pages = accelmm::PageAllocator::create({.size = 1_MiB});
  if (!pages) return failed(pages.error().what);
  const auto extent = pages->allocate(64_KiB);
  if (!extent) return failed(extent.error().what);
  if (extent->length != 64_KiB) return failed("the extent has another length");
  if (pages->statistics().free != 1_MiB - 64_KiB) return failed("the books are wrong");
  if (!pages->free(*extent)) return failed("the extent cannot be freed");
  if (pages->statistics().free != 1_MiB) return failed("pages were lost");
  return 0;
}
