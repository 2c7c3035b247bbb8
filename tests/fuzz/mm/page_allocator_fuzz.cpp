// SPDX-License-Identifier: Apache-2.0
//
// Input: two bytes for the size of the region, then (operation, argument) byte pairs. Operations that the
// model knows to be impossible are tried too: the allocator must refuse them. What the bytes cannot
// name is skipped, so that every input runs to its end.
#include "property/mm/page_model.hpp"

#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>

namespace {

using accelmm::test::JudgedPages;

/// A length from one byte: 1 to 16 by ones, then by powers of two and what lies between.
std::uint64_t length_of(std::uint8_t argument) {
  return (1 + std::uint64_t{argument} % 16) << ((argument / 16U) % 9);
}

void step(JudgedPages& pages, std::uint8_t operation, std::uint8_t argument) {
  const std::uint64_t count = pages.page_count();
  const std::uint64_t at = std::uint64_t{argument} * count / 256;
  switch (operation % 8) {
    case 0:
      pages.allocate(length_of(argument), 0);
      return;
    case 1:
      pages.allocate(length_of(argument), static_cast<unsigned>(operation / 8) % 13);
      return;
    case 2:
      pages.allocate_scattered(length_of(argument));
      return;
    case 3: {
      const auto [begin, length] = pages.free_run(at, 1U + operation / 8);
      pages.reserve(begin, length);
      return;
    }
    case 4:
      pages.free(at, 1U + operation / 8);
      return;
    case 5: {
      const auto [begin, length] = pages.taken_run(at, 1U + operation / 8);
      pages.free(begin, length);
      return;
    }
    case 6: {
      const auto [begin, length] = pages.taken_run(at, count);
      pages.free(begin, length);
      return;
    }
    default:
      // Whole chunks of their own, clean pages, and a count of everything.
      switch (operation / 8 % 4) {
        case 0:
        case 1:
          pages.allocate(512, 9);
          return;
        case 2:
          pages.allocate_clean(length_of(argument), 0);
          return;
        default:
          pages.recount();
      }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::span<const std::uint8_t> input(data, size);
  if (input.size() < 4) return 0;
  const std::uint64_t page_count =
      1 + (std::uint64_t{input[0]} | std::uint64_t{input[1]} << 8) % 2500;
  JudgedPages pages(page_count);
  for (std::size_t i = 2; i + 1 < input.size(); i += 2) step(pages, input[i], input[i + 1]);
  pages.free_everything();
  return 0;
}
