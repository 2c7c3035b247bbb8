// SPDX-License-Identifier: Apache-2.0
//
// The calls about the pages behind mappings. mbind, move_pages and mlock2 are made bare: the first
// two are not in the C library.
#include "base/system.hpp"
#include "base/system_call.hpp"

#include <accelmm/check.hpp>

#include <linux/ioctl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace accelmm::sys {

namespace {

// The kernel reads one bit less than it is told of, since ever.
constexpr unsigned long node_bits = 64 + 1;

// PAGEMAP_SCAN of linux/fs.h, kernel 6.7; older headers lack it.
struct PageScan {
  std::uint64_t size;
  std::uint64_t flags;
  std::uint64_t start;
  std::uint64_t end;
  std::uint64_t walk_end;
  std::uint64_t regions;  // address of an array of PageRegion
  std::uint64_t regions_count;
  std::uint64_t max_pages;
  std::uint64_t category_inverted;
  std::uint64_t category_mask;
  std::uint64_t category_anyof_mask;
  std::uint64_t return_mask;
};
struct PageRegion {
  std::uint64_t start;
  std::uint64_t end;
  std::uint64_t categories;
};
constexpr unsigned long pagemap_scan = _IOWR('f', 16, PageScan);
constexpr std::uint64_t page_is_huge = std::uint64_t{1} << 6;

}  // namespace

Result<void> populate(std::byte* address, ByteCount length) {
  const auto call = [=] { return ::madvise(address, length.value(), MADV_POPULATE_WRITE); };
  if (system_call("populate", call) != 0) return fail_errno(errno, "making pages failed");
  return {};
}

Result<void> mbind(std::byte* address, ByteCount length, int mode, std::uint64_t nodes) {
  const auto call = [&] {
    return ::syscall(SYS_mbind, address, length.value(), mode, &nodes, node_bits, 0);
  };
  if (system_call("mbind", call) != 0) return fail_errno(errno, "mbind failed");
  return {};
}

Result<void> lock_on_fault(std::byte* address, ByteCount length) {
  const auto call = [=] { return ::mlock2(address, length.value(), MLOCK_ONFAULT); };
  if (system_call("lock_on_fault", call) != 0) return fail_errno(errno, "mlock2 failed");
  return {};
}

Result<void> nodes_of_pages(std::span<void*> pages, std::span<int> nodes) {
  ACCELMM_CHECK(pages.size() == nodes.size());
  const auto call = [=] {
    return ::syscall(SYS_move_pages, 0, pages.size(), pages.data(), nullptr, nodes.data(), 0);
  };
  if (system_call("nodes_of_pages", call) != 0) return fail_errno(errno, "move_pages failed");
  return {};
}

Result<bool> is_huge_page(FdView pagemap, const std::byte* address) {
  const auto page = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  const auto start = reinterpret_cast<std::uintptr_t>(address) & ~(page - 1);
  PageRegion region = {};
  PageScan scan = {};
  scan.size = sizeof scan;
  scan.start = start;
  scan.end = start + page;
  scan.regions = reinterpret_cast<std::uintptr_t>(&region);
  scan.regions_count = 1;
  scan.category_mask = page_is_huge;
  scan.return_mask = page_is_huge;
  const auto call = [&] { return ::ioctl(pagemap.get(), pagemap_scan, &scan); };
  const int found = system_call("is_huge_page", call);
  if (found < 0) return fail_errno(errno, "scanning the page map failed");
  return found > 0;
}

}  // namespace accelmm::sys
