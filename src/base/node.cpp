// SPDX-License-Identifier: Apache-2.0
#include <accelmm/node.hpp>

#include <cstdlib>

#include <unistd.h>

namespace accelmm {

std::string default_runtime_directory() {
  if (access("/run/accelmm", W_OK) == 0 || (geteuid() == 0 && access("/run", W_OK) == 0))
    return "/run/accelmm";
  if (const char* xdg = std::getenv("XDG_RUNTIME_DIR"); xdg != nullptr && xdg[0] == '/')
    return std::string(xdg) + "/accelmm";
  const char* tmp = std::getenv("TMPDIR");
  return std::string(tmp != nullptr && tmp[0] == '/' ? tmp : "/tmp") + "/accelmm-" +
         std::to_string(geteuid());
}

std::string node_path(const std::string& directory, std::uint32_t number, NodeKind kind) {
  return directory + (kind == NodeKind::compute ? "/accel" : "/accel_controlD") +
         std::to_string(number);
}

}  // namespace accelmm
