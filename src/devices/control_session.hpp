// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "devices/point_waits.hpp"
#include "devices/user_accounts.hpp"

#include <accelmm/completion.hpp>
#include <accelmm/driver.hpp>
#include <accelmm/session.hpp>
#include <accelmm/uapi.h>

#include <memory>

namespace accelmm::devices {

class HostedDevice;

/// One open of a control node: what an operator can ask for besides INFO.
///
/// Threads   the loop's.
/// Lifetime  abandon_waits() before it is destroyed, and no call is being answered then.
class ControlSession {
 public:
  ControlSession(HostedDevice& device, const Peer& peer);
  ControlSession(const ControlSession&) = delete;
  ControlSession& operator=(const ControlSession&) = delete;

  /// The ioctls of a control node, bound to this session.
  [[nodiscard]] const IoctlTable& ioctls() const { return ioctls_; }
  [[nodiscard]] Session& session() { return session_; }
  /// Ends every WAIT with `code`.
  void abandon_waits(Errc code) { waits_->abandon(code); }

  // The ioctls, as ComputeSession has them.
  void wait(const accelmm_wait& args, Completion done);
  [[nodiscard]] Result<void> open_events(IoctlCall& call, accelmm_events& args);
  [[nodiscard]] Result<void> watch(const accelmm_watch& args);
  [[nodiscard]] Result<void> shortage(accelmm_shortage& args) const;
  /// Ends with `args` filled in, which live until then.
  void defragment(accelmm_defragment& args, Completion done);

 private:
  [[nodiscard]] bool may_operate() const;
  [[nodiscard]] Result<Timeline*> timeline(const accelmm_point& point) const;

  HostedDevice& device_;
  Session session_;
  UserAccounts::Of user_;
  std::shared_ptr<PointWaits> waits_;
  IoctlTable ioctls_;
};

}  // namespace accelmm::devices
