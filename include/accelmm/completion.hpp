// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/check.hpp>
#include <accelmm/error.hpp>

#include <functional>
#include <utility>

namespace accelmm {

/// Ends one operation, exactly once.
///
/// Whoever is asked to do something that may take time receives one of these and calls it when it
/// is done, at once or later. Dropping it unused ends the operation with `canceled`: nobody waits
/// for ever on a forgotten completion.
/// Threads   movable between threads; the call may come from any thread unless the giver says
///           otherwise.
class Completion {
 public:
  using Function = std::move_only_function<void(Result<void>)>;

  explicit Completion(Function function) : function_(std::move(function)) {}
  Completion(Completion&& other) noexcept : function_(std::exchange(other.function_, nullptr)) {}
  Completion& operator=(Completion&& other) noexcept {
    if (this != &other) {
      drop();
      function_ = std::exchange(other.function_, nullptr);
    }
    return *this;
  }
  ~Completion() { drop(); }

  /// Ends the operation. Pre: it was not ended before.
  void operator()(Result<void> result) {
    ACCELMM_CHECK(function_ != nullptr);
    auto function = std::exchange(function_, nullptr);
    function(result);
  }

 private:
  void drop() {
    if (function_ != nullptr) (*this)(fail(Errc::canceled, "operation was dropped"));
  }

  Function function_;
};

}  // namespace accelmm
