// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/error.hpp>
#include <accelmm/fd.hpp>

#include <cstddef>
#include <span>

namespace accelmm {

/// Tells another process of events, and of the end of this one: the reader's end hangs up then (an
/// eventfd would stay silent). A pair of sockets rather than a pipe, because writing to a pipe that
/// nobody reads raises SIGPIPE.
class EventPipe {
 public:
  [[nodiscard]] static Result<EventPipe> create();
  /// The end to give away. Once.
  [[nodiscard]] UniqueFd take_reader() { return std::move(reader_); }
  /// Writes one event, whole or not at all.
  /// Errors  try_again: nobody reads and the queue is full.  EPIPE: the reader is gone.
  [[nodiscard]] Result<void> write(std::span<const std::byte> event);

 private:
  EventPipe(UniqueFd reader, UniqueFd writer)
      : reader_(std::move(reader)), writer_(std::move(writer)) {}
  UniqueFd reader_;
  UniqueFd writer_;
};

}  // namespace accelmm
