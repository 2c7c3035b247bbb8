// SPDX-License-Identifier: Apache-2.0
#include "devices/control_session.hpp"

#include "base/peer.hpp"
#include "devices/common_ioctls.hpp"
#include "devices/hosted_device.hpp"

#include <utility>

namespace accelmm::devices {

ControlSession::ControlSession(HostedDevice& device, const Peer& peer)
    : device_(device),
      session_(device.device(), device.next_session_id(), 0, peer, std::make_shared<Timeline>()),
      user_(device.users().of(peer.uid)),
      waits_(std::make_shared<PointWaits>(device.transport(),
                                          device.description().session_quota.waits, user_.waits)),
      ioctls_(control_ioctls(*this)) {}

Result<Timeline*> ControlSession::timeline(const accelmm_point& point) const {
  if (point.timeline != ACCELMM_TIMELINE_PRESSURE)
    return fail(Errc::invalid_argument, "no such timeline");
  PressureWatch* const watch = device_.pressure();
  if (watch == nullptr) return fail(Errc::not_supported, "device has no memory of its own");
  return &watch->timeline();
}

void ControlSession::wait(const accelmm_wait& args, Completion done) {
  const auto line = timeline(args.point);
  if (!line) return done(fail(line.error()));
  waits_->wait(**line, args.point.value, args.deadline_ns, std::move(done));
}

Result<void> ControlSession::open_events(IoctlCall& call, accelmm_events& args) {
  auto reader = waits_->open_events();
  if (!reader) return fail(reader.error());
  args.fd = static_cast<std::uint32_t>(call.reply_fds.size());
  call.reply_fds.push_back(std::move(*reader));
  return {};
}

Result<void> ControlSession::watch(const accelmm_watch& args) {
  const auto line = timeline(args.point);
  if (!line) return fail(line.error());
  return waits_->watch(**line, args.point);
}

Result<void> ControlSession::shortage(accelmm_shortage& args) const {
  return device_.explain(args, device_.failures(), OwnerId{}, Disclosure::all);
}

// Anyone may look, by default; to move what others use takes more.
bool ControlSession::may_operate() const {
  const uid_t uid = session_.peer().uid;
  return uid == 0 || uid == own_peer().uid || uid == device_.description().permissions.uid;
}

void ControlSession::defragment(accelmm_defragment& args, Completion done) {
  if (!may_operate()) return done(fail(Errc::not_permitted, "only operators move memory"));
  const Defragmentation wanted{ByteCount(args.budget), ByteCount(args.run)};
  device_.defragment(wanted,
                     [this, &args, done = std::move(done)](Result<Defragmented> result) mutable {
                       if (!result) return done(fail(result.error()));
                       const Shortage now = device_.memory()->explain({}, OwnerId{});
                       args.moves = result->moves;
                       args.moved = result->bytes.value();
                       args.free = now.free.value();
                       args.largest_free = now.largest_free.value();
                       done({});
                     });
}

}  // namespace accelmm::devices
