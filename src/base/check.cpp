// SPDX-License-Identifier: Apache-2.0
#include <accelmm/check.hpp>

#include <cstdio>
#include <cstdlib>

namespace accelmm {

void check_failed(const char* text, const char* file, int line) noexcept {
  std::fprintf(stderr, "accelmm: check failed: %s at %s:%d\n", text, file, line);
  std::abort();
}

}  // namespace accelmm
