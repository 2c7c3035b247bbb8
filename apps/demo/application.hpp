// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "monitor_view.hpp"
#include "outcome.hpp"
#include "picture.hpp"

#include <string>

#include <sys/types.h>

namespace demo {

/// What the application needs to know of the world that was set up for it.
struct Setting {
  std::string name;  ///< of the picture
  const LoadedPicture& picture;
  std::string out;
  std::string directory;  ///< of the nodes
  pid_t driver;           ///< the driver process, whose mappings the application looks at
};

/// The application: edges on accel0, a drawing of them on accel1 by way of a second process.
/// Prints what it does and, at the end, what was done in numbers.
[[nodiscard]] Outcome<void> run_application(const Setting& setting, MonitorView& monitor);

}  // namespace demo
