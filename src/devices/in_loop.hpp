// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/completion.hpp>
#include <accelmm/transport.hpp>

#include <utility>

namespace accelmm::devices {

/// A completion for a driver: `function` runs in the loop's thread, at once if that is where it is
/// completed.
[[nodiscard]] inline Completion in_loop(Transport& transport, Completion::Function function) {
  return Completion([&transport, function = std::move(function)](Result<void> result) mutable {
    if (transport.in_loop()) return function(result);
    transport.post([function = std::move(function), result]() mutable { function(result); });
  });
}

}  // namespace accelmm::devices
