// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "client/link.hpp"

#include <accelmm/accelmm.h>
#include <accelmm/error.hpp>
#include <accelmm/transport.hpp>

#include <memory>

/// What an application's accelmm_session points to.
struct accelmm_session {
  std::shared_ptr<accelmm::ClientLink> link;
};

namespace accelmm {

/// Begins a session over a connection that exists already: how tests put a driver process of their
/// own below the C ABI. Close it with accelmm_session_close().
[[nodiscard]] Result<accelmm_session*> make_session(std::unique_ptr<Channel> channel);

}  // namespace accelmm
