// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/until_memory.hpp"

#include <accelmm/completion.hpp>
#include <accelmm/transport.hpp>

#include <memory>
#include <utility>

namespace accelmm::devices {

/// What a completion does in the loop's thread. It is made before the operation begins, so that
/// ending an operation needs no memory that could be missing then.
struct LoopCall {
  Completion::Function function;
  Result<void> result;
};

/// A completion that makes `call` run in the loop's thread, at once if that is where it is
/// completed.
[[nodiscard]] inline Completion completion_of(Transport& transport,
                                              std::shared_ptr<LoopCall> call) {
  return Completion([&transport, call = std::move(call)](Result<void> result) {
    if (transport.in_loop()) return call->function(result);
    call->result = result;
    until_memory([&] { transport.post([call] { call->function(call->result); }); });
  });
}

/// A completion for a driver: `function` runs in the loop's thread.
[[nodiscard]] inline Completion in_loop(Transport& transport, Completion::Function function) {
  return completion_of(transport, std::make_shared<LoopCall>(std::move(function)));
}

/// The same for what must not fail: waits for memory. `function` holds no more than three words, or
/// making it could run out of memory already.
[[nodiscard]] inline Completion in_loop_surely(Transport& transport,
                                               Completion::Function function) {
  return completion_of(transport, until_memory([&] {
                         // Moved from only once there is room for it.
                         return std::make_shared<LoopCall>(std::move(function));
                       }));
}

}  // namespace accelmm::devices
