// SPDX-License-Identifier: Apache-2.0
#include "mm/backing/huge_pages.hpp"

#include "base/mapping.hpp"
#include "base/system.hpp"

#include <accelmm/check.hpp>

#include <algorithm>
#include <array>
#include <string_view>

#include <fcntl.h>
#include <sys/mman.h>

namespace accelmm {

namespace {

// From the largest to the smallest.
constexpr std::array all_pages{PageSize::huge_1g, PageSize::huge_2m, PageSize::transparent,
                               PageSize::base};

constexpr const char* shmem_enabled = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";

// The modes in which advised files get huge pages; the file shows the current one in brackets.
bool gives_huge_pages(std::string_view modes) {
  return std::ranges::any_of(
      std::array<std::string_view, 4>{"[always]", "[within_size]", "[advise]", "[force]"},
      [modes](std::string_view mode) { return modes.find(mode) != std::string_view::npos; });
}

Result<void> check_hugetlb(Access outside, const BackingPolicy& policy) {
  switch (policy.hugetlb) {
    case HugetlbUse::none:
      return fail(Errc::not_permitted, "no buffer may have pages of the kernel's pools");
    case HugetlbUse::read_only:
      if (!allows(outside, Access::write)) return {};
      return fail(Errc::not_permitted,
                  "only buffers that are read-only outside may have pages of the kernel's pools");
    case HugetlbUse::every_buffer:
      return {};
  }
  return fail(Errc::invalid_argument, "no such use of the kernel's pools");
}

}  // namespace

Alignment largest_page(PageSize pages) noexcept {
  ACCELMM_CHECK(pages != PageSize::as_configured);
  switch (pages) {
    case PageSize::huge_1g:
      return Alignment(std::uint64_t{1} << 30);
    case PageSize::huge_2m:
    case PageSize::transparent:
      return Alignment(std::uint64_t{2} << 20);
    case PageSize::base:
    case PageSize::as_configured:
      break;
  }
  return Alignment(host_page_size().value());
}

std::span<const PageSize> page_candidates(PageSize wanted, BackingRule rule) noexcept {
  const auto at = std::ranges::find(all_pages, wanted);
  ACCELMM_CHECK(at != all_pages.end());
  const std::span<const PageSize> from_there(at, all_pages.end());
  return rule == BackingRule::exact ? from_there.first(1) : from_there;
}

Result<void> check_transparent_pages() {
  const auto file = sys::open(shmem_enabled, O_RDONLY);
  if (!file) return fail(Errc::not_supported, "the kernel has no huge pages for memory files");
  std::array<std::byte, 128> modes{};
  const auto size = sys::read(file->view(), modes);
  if (!size) return fail(size.error());
  if (gives_huge_pages({reinterpret_cast<const char*>(modes.data()), *size})) return {};
  return fail(Errc::not_supported, "the kernel gives no huge pages to memory files");
}

Result<void> check_pages(PageSize pages, Importable importable, Access outside,
                         const BackingPolicy& policy) {
  if (pages == PageSize::base) return {};
  if (importable == Importable::needed && policy.huge_importable == HugeImportable::refused)
    return fail(Errc::not_permitted, "importable buffers may have no huge pages");
  return is_hugetlb(pages) ? check_hugetlb(outside, policy) : check_transparent_pages();
}

Result<void> advise_pages(std::span<std::byte> place, PageSize pages, Importable importable) {
  const ByteCount length(place.size());
  if (pages == PageSize::transparent) return sys::madvise(place.data(), length, MADV_HUGEPAGE);
  if (pages == PageSize::base && importable == Importable::needed)
    return sys::madvise(place.data(), length, MADV_NOHUGEPAGE);
  return {};
}

}  // namespace accelmm
