// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace demo {

/// Prints one line of progress, at once and whole, whichever thread says it.
[[gnu::format(printf, 1, 2)]] void say(const char* format, ...);

}  // namespace demo
