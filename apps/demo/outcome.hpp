// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/client.hpp>
#include <accelmm/error.hpp>

#include <cstring>
#include <expected>
#include <string>
#include <utility>

namespace demo {

/// What the demo makes of a failure: a sentence for the person who runs it.
template <class T>
using Outcome = std::expected<T, std::string>;

[[nodiscard]] inline std::unexpected<std::string> refuse(std::string why) {
  return std::unexpected(std::move(why));
}
[[nodiscard]] inline std::unexpected<std::string> refuse(std::string what,
                                                         const accelmm::Error& error) {
  return refuse(std::move(what) + ": " + error.what + " (" + accelmm::error_text(error.code) + ")");
}
[[nodiscard]] inline std::unexpected<std::string> refuse_errno(std::string what, int error_number) {
  return refuse(std::move(what) + ": " + std::strerror(error_number));
}

}  // namespace demo
