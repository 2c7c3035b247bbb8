// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <new>

namespace accelmm {

/// Sleeps for a moment in which others may give memory back.
void wait_for_memory() noexcept;

/// Repeats `attempt` until it does not run out of memory.
///
/// For steps that take something away and so must not fail: the end of a session cannot be refused.
/// What they need is a few hundred bytes, so they wait for it.
/// Pre  an attempt that throws std::bad_alloc has changed nothing.
template <class Attempt>
auto until_memory(Attempt attempt) {
  while (true) {
    try {
      return attempt();
    } catch (const std::bad_alloc&) {
      wait_for_memory();
    }
  }
}

}  // namespace accelmm
