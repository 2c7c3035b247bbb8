// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace accelmm::bench {

/// Puts every peer, every model and ours through random work, and compares what they give out with
/// a set of intervals; where it is memory, also with what was written there. Says what it found.
/// Returns whether all is right.
[[nodiscard]] bool check_subjects();

}  // namespace accelmm::bench
