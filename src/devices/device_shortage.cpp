// SPDX-License-Identifier: Apache-2.0
//
// Why there is no device memory, for who asked for it and for operators; and making room by moving
// what is there.
#include "devices/alloc_request.hpp"
#include "devices/client_port.hpp"
#include "devices/hosted_device.hpp"
#include "devices/memory_moves.hpp"

#include <new>
#include <utility>

namespace accelmm::devices {

void HostedDevice::note_failure(const FailedRequest& failed) noexcept {
  failures_.add(failed);
  if (log_) log_->add(failed, *memory_);
}

Result<void> HostedDevice::explain(accelmm_shortage& args, const FailedRequests& failures,
                                   OwnerId owner, Disclosure disclosure) const {
  if (!memory_) return fail(Errc::not_supported, "device has no memory of its own");
  const auto& last = failures.last();
  Region::Request request{};
  if (args.size != 0) {
    const auto asked = device_request(ByteCount(args.size), args.flags);
    if (!asked) return fail(asked.error());
    request = *asked;
  } else if (args.flags != 0) {
    return fail(Errc::invalid_argument, "flags of no request");
  } else if (last) {
    request = last->request;
    owner = last->owner;
  }
  args = {};
  args.flags = wire_flags(request);
  put_shortage(memory_->explain(request, owner), disclosure, args);
  args.memory_failures = failures.out_of_memory();
  args.quota_failures = failures.over_quota();
  args.pressure = std::to_underlying(pressure_->pressure());
  if (!last) return {};
  args.failed_session = last->session;
  args.failed_uid = last->uid;
  args.failed_ns = last->time_ns;
  args.failed_status = -std::to_underlying(last->error.code);
  return {};
}

std::vector<std::shared_ptr<ClientPort>> HostedDevice::resting_ports() const {
  std::vector<std::shared_ptr<ClientPort>> resting;
  for (const auto& port : ports_)
    if (port->is_resting() && port->session()->memory_owner() != OwnerId{}) resting.push_back(port);
  return resting;
}

void HostedDevice::defragment(const Defragmentation& wanted, DefragmentedFunction done) {
  if (removed_) return done(fail(Errc::no_device, "device was removed"));
  CopyEngine* const engine = driver_->copy_engine();
  if (!memory_ || engine == nullptr || !description_.mmu)
    return done(fail(Errc::not_supported, "device cannot move its memory"));
  if (wanted.budget == ByteCount(0)) return done(fail(Errc::invalid_argument, "nothing may move"));
  if (moving_) return done(fail(Errc::busy, "device is moving memory already"));
  std::shared_ptr<MemoryMoves> moves;
  try {
    moves = std::make_shared<MemoryMoves>(*this, *engine, std::move(done));
  } catch (const std::bad_alloc&) {
    return done(fail(Errc::no_memory, "no memory to move memory"));
  }
  moving_ = true;
  moves->start(wanted);
}

}  // namespace accelmm::devices
