// SPDX-License-Identifier: Apache-2.0
#include "devices/compute_session.hpp"

#include "devices/common_ioctls.hpp"
#include "devices/hosted_device.hpp"
#include "devices/in_loop.hpp"

#include <utility>

namespace accelmm::devices {

ComputeSession::ComputeSession(HostedDevice& device, const Peer& peer, std::uint32_t asid,
                               std::unique_ptr<SessionAddressSpace> space,
                               HandleTable<std::shared_ptr<Allocation>> buffers)
    : device_(device),
      session_(device.device(), device.next_session_id(), asid, peer, device.make_job_timeline()),
      user_(device.users().of(peer.uid)),
      account_(std::make_shared<Account>(
          Account::Options{.name = {AccountName::Level::session, session_.id()},
                           .limits = {.bytes = device.description().session_quota.bytes},
                           .parent = user_.memory})),
      host_(device.host().shared_from_this(), account_,
            std::make_shared<Account>(
                Account::Options{.name = account_->name(),
                                 .limits = {.bytes = device.description().session_quota.locked}})),
      space_(std::move(space)),
      buffers_(std::move(buffers)),
      waits_(std::make_shared<PointWaits>(device.transport(),
                                          device.description().session_quota.waits, user_.waits)),
      ioctls_(compute_ioctls(*this)) {
  when_stopped_.reserve(2);  // the end of the connection and the removal of the device
  if (Region* const memory = device.memory()) memory_.emplace(memory->shared_from_this(), account_);
}

void ComputeSession::map_on(Bus& bus) {
  bus_mappings_.emplace(bus);
  session_.set_reaches([this](Range<DeviceAddr> range, Access access) {
    return bus_mappings_->reaches(range, access);
  });
}

void ComputeSession::open(Completion done) {
  auto bound = [this, done = std::move(done)](Result<void> result) mutable {
    if (!result) return done(result);
    device_.driver().open(
        session_, in_loop(device_.transport(),
                          [done = std::move(done)](Result<void> opened) mutable { done(opened); }));
  };
  if (space_)
    space_->bind(Completion(std::move(bound)));
  else
    bound({});
}

void ComputeSession::stop(Completion done) {
  if (work_ == Work::stopped) return done({});
  when_stopped_.push_back(std::move(done));
  if (work_ == Work::stopping) return;
  work_ = Work::stopping;
  auto stopped = [this](Result<void>) {
    work_ = Work::stopped;
    auto waiting = std::exchange(when_stopped_, {});
    for (Completion& completion : waiting) completion({});
  };
  device_.driver().stop(session_, in_loop_surely(device_.transport(), stopped));
}

void ComputeSession::close(Completion done) {
  ACCELMM_CHECK(work_ == Work::stopped);
  waits_->abandon(Errc::no_device);
  session_.jobs()->abandon_waiters(Errc::no_device);
  closed_.emplace(std::move(done));
  auto unmapped = [this](Result<void>) { finish_close(); };
  if (space_)
    space_->close(Completion(unmapped));
  else
    finish_close();
}

void ComputeSession::finish_close() {
  if (bus_mappings_) bus_mappings_->close();  // before the memory is freed
  if (Timeline* const mappings = mapping_timeline()) mappings->abandon_waiters(Errc::no_device);
  {
    const auto freed = std::move(buffers_);
  }
  device_.driver().close(session_);  // which is told that the memory is gone
  Completion closed = std::move(*closed_);
  closed_.reset();
  closed({});  // the session is only destroyed from here on
}

accelmm_info_session ComputeSession::info() const {
  const Quota& quota = device_.description().session_quota;
  return {.session = session_.id(),
          .asid = session_.asid(),
          .reserved = 0,
          .buffers = buffers_.size(),
          .buffer_bytes = account_->used().value(),
          .mappings = mappings(),
          .mapped_bytes = space_          ? space_->mapped_bytes().value()
                          : bus_mappings_ ? bus_mappings_->mapped_bytes().value()
                                          : 0,
          .page_table_bytes = space_ ? space_->table_bytes().value() : 0,
          .quota_bytes = quota.bytes.value(),
          .quota_buffers = quota.buffers,
          .quota_mappings = quota.mappings};
}

}  // namespace accelmm::devices
