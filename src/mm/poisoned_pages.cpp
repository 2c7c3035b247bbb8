// SPDX-License-Identifier: Apache-2.0
#include "mm/poisoned_pages.hpp"

#include <accelmm/check.hpp>

#include <algorithm>

namespace accelmm::mm {

std::vector<PoisonedPages::Page>::const_iterator PoisonedPages::first_from(
    std::uint64_t page) const {
  return std::ranges::lower_bound(pages_, page, {}, &Page::number);
}

bool PoisonedPages::contains(std::uint64_t page) const {
  const auto found = first_from(page);
  return found != pages_.end() && found->number == page;
}

bool PoisonedPages::any_retired(PageRun run) const {
  for (auto page = first_from(run.begin); page != pages_.end() && page->number < run.end; ++page)
    if (!page->in_use) return true;
  return false;
}

void PoisonedPages::add(Page page) {
  ACCELMM_DCHECK(!contains(page.number) && pages_.size() < pages_.capacity());
  pages_.insert(first_from(page.number), page);
}

void PoisonedPages::retire(PageRun run) {
  for (auto page = pages_.begin() + (first_from(run.begin) - pages_.cbegin());
       page != pages_.end() && page->number < run.end; ++page)
    page->in_use = false;
}

}  // namespace accelmm::mm
