// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/fork_guard.hpp"

#include <accelmm/error.hpp>
#include <accelmm/fd.hpp>

#include <cstddef>
#include <span>
#include <utility>

namespace accelmm {

/// The reader's end of an EventPipe of another process.
///
/// Owns      the descriptor; a forked child's copy is closed by fork() itself.
/// Threads   read() from any thread; each event goes to one reader.
class EventReader {
 public:
  /// Takes the end over and makes it non-blocking, whatever its sender left it.
  [[nodiscard]] static Result<EventReader> create(UniqueFd end);

  /// Readable when there is an event, hung up when the writer is gone. Not valid in a forked child.
  [[nodiscard]] FdView fd() const noexcept { return end_.fd(); }
  /// Takes one event of at most into.size() bytes. Returns its size; 0: none is left and the writer
  /// is gone. Errors  try_again: none is there now.  no_device: this is a forked child.
  [[nodiscard]] Result<std::size_t> read(std::span<std::byte> into) const;

 private:
  explicit EventReader(ForkGuard end) : end_(std::move(end)) {}
  ForkGuard end_;
};

}  // namespace accelmm
