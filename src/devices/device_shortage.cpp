// SPDX-License-Identifier: Apache-2.0
//
// ACCELMM_IOCTL_SHORTAGE: why there is no device memory, for who asked for it and for operators.
#include "devices/alloc_request.hpp"
#include "devices/hosted_device.hpp"

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

}  // namespace accelmm::devices
