// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "mm/page_run.hpp"

#include <cstdint>
#include <vector>

namespace accelmm::mm {

/// The pages of a region that must never be handed out again.
///
/// Owns      a sorted list, one entry a page: bad pages are few.
/// Threads   externally synchronised.
class PoisonedPages {
 public:
  struct Page {
    std::uint64_t number;
    bool in_use;  // its owner has not freed it yet
  };

  [[nodiscard]] bool empty() const { return pages_.empty(); }
  [[nodiscard]] std::uint64_t count() const { return pages_.size(); }
  [[nodiscard]] bool contains(std::uint64_t page) const;
  /// Whether a page of the run is poisoned and its owner has freed it.
  [[nodiscard]] bool any_retired(PageRun run) const;

  /// Makes room for the pages of a run. Throws std::bad_alloc.
  void reserve(PageRun run) { pages_.reserve(pages_.size() + run.size()); }
  /// Pre: reserve() made room; the page is not in the list.
  void add(Page page);
  /// Notes that the owner of a run freed it.
  void retire(PageRun run);

  /// Calls f(PageRun) for the parts of a run that are not poisoned.
  template <class F>
  void each_good(PageRun run, F f) const {
    for (auto page = first_from(run.begin); page != pages_.end() && page->number < run.end;
         ++page) {
      if (run.begin < page->number) f(PageRun{run.begin, page->number});
      run.begin = page->number + 1;
    }
    if (!run.empty()) f(run);
  }

 private:
  [[nodiscard]] std::vector<Page>::const_iterator first_from(std::uint64_t page) const;

  std::vector<Page> pages_;
};

}  // namespace accelmm::mm
