// SPDX-License-Identifier: Apache-2.0
#include "mm/backing/page_sample.hpp"

#include "base/mapping.hpp"
#include "base/system.hpp"

#include <accelmm/check.hpp>

#include <algorithm>
#include <array>

#include <fcntl.h>

namespace accelmm {

namespace {

constexpr std::size_t most_samples = 64;
using Pages = std::array<void*, most_samples>;
using Nodes = std::array<int, most_samples>;

// How far into piece `i` of so many pages its sample lies. Pages that take turns (interleaved nodes) have a period that
// divides the pieces': the same place in each piece would show one node alone. Multiples of the golden ratio fall
// evenly into every period.
std::size_t offset_in_piece(std::size_t piece, std::size_t i) {
  const std::size_t turn = i * 40503 % 65536;  // 2^16 / 1.618...
  return piece / 65536 * turn + piece % 65536 * turn / 65536;
}

// A page of each of so many equal pieces.
std::size_t choose_pages(std::span<std::byte> place, Pages& pages) {
  const std::size_t page = host_page_size().value();
  const std::size_t all = place.size() / page;
  const std::size_t count = std::min(all, most_samples);
  for (std::size_t i = 0; i < count; ++i) {
    // all / count and all % count apart, so that nothing overflows.
    const std::size_t first = all / count * i + all % count * i / count;
    pages[i] = place.data() + (first + offset_in_piece(all / count, i)) * page;
  }
  return count;
}

void count_huge_pages(std::span<void* const> pages, std::span<const int> nodes,
                      SampledPages& sampled) {
  const auto pagemap = sys::open("/proc/self/pagemap", O_RDONLY);
  if (!pagemap) {
    sampled.refused = pagemap.error().code;
    return;
  }
  for (std::size_t i = 0; i < pages.size(); ++i) {
    if (nodes[i] < 0) continue;
    const auto huge = sys::is_huge_page(pagemap->view(), static_cast<std::byte*>(pages[i]));
    if (!huge) {
      sampled.refused = huge.error().code;
      return;
    }
    if (*huge) ++sampled.sample.huge;
  }
}

}  // namespace

SampledPages sample_pages(std::span<std::byte> place) {
  ACCELMM_CHECK(!place.empty());
  Pages pages;
  Nodes nodes;
  nodes.fill(-ENOENT);
  const std::size_t count = choose_pages(place, pages);
  SampledPages sampled;
  const auto asked = std::span(nodes).first(count);
  if (const auto told = sys::nodes_of_pages(std::span(pages).first(count), asked); !told) {
    sampled.refused = told.error().code;
    return sampled;
  }
  sampled.sample.taken = static_cast<std::uint32_t>(count);
  for (const int node : asked) {
    if (node < 0) continue;
    ++sampled.sample.present;
    if (node < 64) sampled.sample.nodes.bits |= std::uint64_t{1} << node;
  }
  count_huge_pages(std::span(pages).first(count), asked, sampled);
  return sampled;
}

}  // namespace accelmm
