// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "mmu/books.hpp"

#include <accelmm/mmu/address_space.hpp>

namespace accelmm::mmu {

/// A map on its way: what is asked for, what has been taken for it.
struct AddressSpace::Writing {
  std::span<const Run> runs;
  Attributes attributes;
  Piece::Kind kind = Piece::Kind::memory;
  Range<DeviceAddr> range{};
  std::uint64_t sizes = 0;
  Operation operation{};
  PieceChain nodes{};
};

}  // namespace accelmm::mmu
