// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/access.hpp>
#include <accelmm/backing.hpp>
#include <accelmm/error.hpp>
#include <accelmm/units.hpp>

#include <cstddef>
#include <span>

namespace accelmm {

/// The largest page of a kind: what places of it are aligned to.
/// Pre     not as_configured.
[[nodiscard]] Alignment largest_page(PageSize pages) noexcept;

/// Whether files of this kind come from a pool of huge pages, which takes their sizes only in whole
/// pages of its own.
[[nodiscard]] constexpr bool is_hugetlb(PageSize pages) {
  return pages == PageSize::huge_2m || pages == PageSize::huge_1g;
}

/// The kinds of pages to try for a request, in this order: what was asked for and, unless it must be
/// exactly that, everything smaller.
/// Pre     not as_configured.
[[nodiscard]] std::span<const PageSize> page_candidates(PageSize wanted, BackingRule rule) noexcept;

/// Whether a buffer may have pages of a kind.
/// `outside`  what CPUs outside the driver process may do with it.
/// Errors  not_permitted: the policy refuses it.  not_supported: transparent huge pages that the
///         kernel does not give to memory files.
[[nodiscard]] Result<void> check_pages(PageSize pages, Importable importable, Access outside,
                                       const BackingPolicy& policy);

/// Whether memory files may have transparent huge pages when they are asked for:
/// /sys/kernel/mm/transparent_hugepage/shmem_enabled.
/// Errors  not_supported: they may not, or the kernel has none.
[[nodiscard]] Result<void> check_transparent_pages();

/// Tells the kernel which pages the file at a place is to have. For `base` that only forbids others
/// where the buffer is importable and huge pages are refused to those.
/// Errors  any value of madvise(2).
[[nodiscard]] Result<void> advise_pages(std::span<std::byte> place, PageSize pages,
                                        Importable importable);

}  // namespace accelmm
