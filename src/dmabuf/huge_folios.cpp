// SPDX-License-Identifier: Apache-2.0
#include "dmabuf/huge_folios.hpp"

#include "base/mapping.hpp"
#include "base/system.hpp"

#include <array>
#include <string_view>

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mman.h>

namespace accelmm::dmabuf {

namespace {

constexpr Alignment huge_page(std::uint64_t{2} << 20);

// The mode in brackets of one of the kernel's files, or an empty string.
std::string mode_of(const std::string& path) {
  const auto file = sys::open(path, O_RDONLY);
  if (!file) return {};
  std::array<char, 128> text{};
  const auto size = sys::read(file->view(), std::as_writable_bytes(std::span(text)));
  if (!size) return {};
  const std::string_view modes(text.data(), *size);
  const auto begin = modes.find('[');
  const auto end = modes.find(']');
  if (begin == std::string_view::npos || end == std::string_view::npos || end < begin) return {};
  return std::string(modes.substr(begin + 1, end - begin - 1));
}

FolioSize size_of_mode(std::string_view mode) {
  if (mode == "advise") return FolioSize::advised;
  if (mode == "always" || mode == "within_size" || mode == "force") return FolioSize::any;
  return FolioSize::base;  // never, deny, or nothing at all
}

// A mapping that huge pages fit in is entered in the page tables as huge where they are there.
Result<bool> has_huge_pages(FdView memfd, ByteCount size) {
  const auto length = round_up(size, huge_page);
  if (!length) return fail(length.error());
  auto addresses = Mapping::reserve(*length + ByteCount(huge_page.value()));
  if (!addresses) return fail(addresses.error());
  std::byte* const lowest = addresses->bytes().data();
  const std::uint64_t misaligned =
      reinterpret_cast<std::uintptr_t>(lowest) & (huge_page.value() - 1);
  std::byte* const place = lowest + (misaligned == 0 ? 0 : huge_page.value() - misaligned);
  const auto mapped =
      sys::mmap(place, *length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, memfd, 0);
  if (!mapped) return fail(mapped.error());
  const auto pagemap = sys::open("/proc/self/pagemap", O_RDONLY);
  if (!pagemap) return true;
  for (std::uint64_t at = 0; at < size.value(); at += huge_page.value()) {
    // What cannot be looked at is not vouched for.
    if (!sys::populate(place + at, host_page_size())) return true;
    const auto huge = sys::is_huge_page(pagemap->view(), place + at);
    if (!huge || *huge) return true;
  }
  return false;
}

}  // namespace

FolioSize folio_sizes(const std::string& folder) {
  const FolioSize whole = size_of_mode(mode_of(folder + "/shmem_enabled"));
  if (whole == FolioSize::any) return whole;
  FolioSize found = whole;
  const auto sizes = sys::list_folder(folder);
  if (!sizes) return found;
  // Each size between the base page and the huge one, since 6.11. They cannot be told apart from
  // base pages later, so that even to be allowed to ask for one is too much. The last of them is
  // the huge page itself.
  for (const std::string& size : *sizes) {
    if (!size.starts_with("hugepages-")) continue;
    const std::string mode =
        mode_of(std::string(folder).append("/").append(size).append("/shmem_enabled"));
    const FolioSize one = mode == "inherit" ? whole : size_of_mode(mode);
    if (one == FolioSize::base) continue;
    if (one == FolioSize::any || size != "hugepages-2048kB") return FolioSize::any;
    found = FolioSize::advised;
  }
  return found;
}

FolioSize FolioSettings::sizes(std::chrono::steady_clock::time_point now) const {
  constexpr unsigned size_bits = 2;
  const auto moments = static_cast<std::uint64_t>(now.time_since_epoch() / moment) + 1;
  const std::uint64_t seen = seen_.load(std::memory_order_relaxed);
  if (seen >> size_bits == moments) return static_cast<FolioSize>(seen & ((1U << size_bits) - 1));
  const FolioSize sizes = folio_sizes(folder_);
  seen_.store(moments << size_bits | static_cast<std::uint64_t>(sizes), std::memory_order_relaxed);
  return sizes;
}

Result<bool> may_have_huge_folios(FdView memfd, ByteCount size, const FolioSettings& settings) {
  const auto magic = sys::file_system_magic(memfd);
  if (!magic) return fail(magic.error());
  if (*magic == HUGETLBFS_MAGIC) return true;
  switch (settings.sizes(std::chrono::steady_clock::now())) {
    case FolioSize::base:
      return false;
    case FolioSize::advised:
      return has_huge_pages(memfd, size);
    case FolioSize::any:
      break;
  }
  return true;
}

}  // namespace accelmm::dmabuf
