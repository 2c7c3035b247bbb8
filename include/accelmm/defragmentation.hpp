// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/completion.hpp>
#include <accelmm/error.hpp>
#include <accelmm/units.hpp>

#include <cstdint>
#include <functional>
#include <span>

namespace accelmm {

/// Bytes of device memory to be copied elsewhere in it.
struct MemoryCopy {
  BusAddr from;
  BusAddr to;
  ByteCount length;  ///< whole pages of the host
};

/// The device's engine that copies its own memory, past its MMU, as its driver programs it.
///
/// Threads   called in the runtime's thread, under no lock; completions from any thread.
class CopyEngine {
 public:
  virtual ~CopyEngine() = default;
  /// Copies all of `copies`, in any order: no place of the list overlaps another. No session's work
  /// uses any of them meanwhile. The list lives until this has ended.
  /// Whichever way it ends, the engine touches none of these places any more then. A failure leaves
  /// everything where it was.
  virtual void copy(std::span<const MemoryCopy> copies, Completion done) = 0;
};

/// What moving device memory is to bring about, at what cost.
struct Defragmentation {
  ByteCount budget;  ///< bytes moved at most
  /// A free run of so many bytes; 0: native pages emptied of small pieces.
  ByteCount run = {};
};

/// What was moved; nothing where nothing needs to be, or nothing helps within the budget.
struct Defragmented {
  std::uint64_t moves = 0;  ///< extents
  ByteCount bytes;
};
using DefragmentedFunction = std::move_only_function<void(Result<Defragmented>)>;

}  // namespace accelmm
