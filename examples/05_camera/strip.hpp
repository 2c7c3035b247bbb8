// SPDX-License-Identifier: Apache-2.0
// What the mover does with each frame.
#pragma once

#include "memory.hpp"

#include <accelmm/client.hpp>
#include <accelmm/negotiation.hpp>

/// Moves a strip of three rows, from an eighth of the width on and wrapping at the end of each row, up
/// by 100 rows: in one piece through the device's own buffer, by its DMA both ways.
accelmm::Result<void> move_strip(const accelmm::Client& mover, const SharedMemory& memory,
                                 const accelmm::AgreedImage& image);
