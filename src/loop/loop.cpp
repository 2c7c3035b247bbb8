// SPDX-License-Identifier: Apache-2.0
#include "loop/loop.hpp"

#include "loop/uring_transport.hpp"

namespace accelmm {

Result<std::unique_ptr<Transport>> create_transport(std::uint64_t busy_poll_ns) {
  return UringTransport::create(busy_poll_ns);
}

}  // namespace accelmm
