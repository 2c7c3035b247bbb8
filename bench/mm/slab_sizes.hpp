// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <string>

namespace accelmm::bench {

/// The sizes that slab-hot-SIZE is measured at: one in each doubling of what the slab serves.
inline constexpr std::array<std::size_t, 11> slab_sizes{16,   32,   64,   128,  256,  512,
                                                        1024, 2048, 4096, 8192, 16384};
/// The size of the objects of slab-bulkN: one cache line.
inline constexpr std::size_t slab_bulk_size = 64;

[[nodiscard]] inline std::string slab_hot(std::size_t size) {
  return "slab-hot-" + std::to_string(size);
}

}  // namespace accelmm::bench
