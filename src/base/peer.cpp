// SPDX-License-Identifier: Apache-2.0
#include "base/peer.hpp"

#include <unistd.h>

namespace accelmm {

Peer own_peer() {
  return {getpid(), geteuid(), getegid()};
}

}  // namespace accelmm
