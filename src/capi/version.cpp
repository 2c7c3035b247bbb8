// SPDX-License-Identifier: Apache-2.0
#include <accelmm/accelmm.h>
#include <accelmm/client.hpp>

#include <limits>
#include <string_view>

// A number of the preprocessor as text.
#define ACCELMM_TEXT_OF(number) #number
#define ACCELMM_TEXT(number) ACCELMM_TEXT_OF(number)

namespace {

constexpr const char* version_text = ACCELMM_TEXT(ACCELMM_VERSION_MAJOR) "." ACCELMM_TEXT(
    ACCELMM_VERSION_MINOR) "." ACCELMM_TEXT(ACCELMM_VERSION_PATCH);
// The build system passes its own idea of the version, which packages and sonames are named after.
static_assert(std::string_view(version_text) == ACCELMM_PROJECT_VERSION);

}  // namespace

extern "C" {

uint32_t accelmm_version_number(void) {
  return ACCELMM_VERSION_NUMBER;
}

const char* accelmm_version_text(void) {
  return version_text;
}

const char* accelmm_error_text(int error) {
  // The negation of the smallest int does not exist.
  if (error == std::numeric_limits<int>::min()) error = std::numeric_limits<int>::max();
  return accelmm::error_text(static_cast<accelmm::Errc>(error < 0 ? -error : error));
}

}  // extern "C"
