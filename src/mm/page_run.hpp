// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace accelmm::mm {

/// A run of pages, or of chunks, [begin, end).
struct PageRun {
  std::uint64_t begin;
  std::uint64_t end;
  [[nodiscard]] std::uint64_t size() const { return end - begin; }
  [[nodiscard]] bool empty() const { return begin == end; }
};

}  // namespace accelmm::mm
