// SPDX-License-Identifier: Apache-2.0
#include "loop/loop.hpp"

#include "loop/uring_transport.hpp"

namespace accelmm {

Result<std::unique_ptr<Transport>> create_transport() {
  return UringTransport::create();
}

}  // namespace accelmm
