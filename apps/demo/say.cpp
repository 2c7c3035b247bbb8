// SPDX-License-Identifier: Apache-2.0
#include "say.hpp"

#include <cstdarg>
#include <cstdio>

namespace demo {

void say(const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  flockfile(stdout);
  std::vprintf(format, arguments);
  std::fputc('\n', stdout);
  std::fflush(stdout);
  funlockfile(stdout);
  va_end(arguments);
}

}  // namespace demo
