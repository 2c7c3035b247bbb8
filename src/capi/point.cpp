// SPDX-License-Identifier: Apache-2.0
#include "capi/guarded.hpp"
#include "capi/session.hpp"
#include "client/link.hpp"

namespace accelmm {

namespace {

// A point that a caller made up is his mistake, not the protocol's.
Result<Point> point_from_c(const accelmm_point& point) {
  const auto known = point_from_wire(point);
  if (!known) return fail(Errc::invalid_argument, known.error().what);
  return *known;
}

}  // namespace

}  // namespace accelmm

extern "C" {

int accelmm_point_wait(accelmm_session* session, struct accelmm_point point, uint64_t deadline_ns) {
  using namespace accelmm;
  if (session == nullptr) return -EINVAL;
  return guarded([&] {
    const auto known = point_from_c(point);
    if (!known) return to_c(known.error());
    return to_c(wait_for(*session->link, *known, deadline_ns));
  });
}

int accelmm_point_watch(accelmm_session* session, struct accelmm_point point) {
  using namespace accelmm;
  if (session == nullptr) return -EINVAL;
  return guarded([&] {
    const auto known = point_from_c(point);
    if (!known) return to_c(known.error());
    return to_c(watch(*session->link, *known));
  });
}

int accelmm_event_get_fd(accelmm_session* session) {
  using namespace accelmm;
  if (session == nullptr) return -EINVAL;
  return guarded([&] {
    const auto fd = session->link->event_fd();
    return fd ? fd->get() : to_c(fd.error());
  });
}

int accelmm_event_read(accelmm_session* session, struct accelmm_event* event) {
  using namespace accelmm;
  if (session == nullptr || event == nullptr) return -EINVAL;
  return guarded([&] {
    const auto read = session->link->read_event();
    if (!read) return to_c(read.error());
    if (!read->has_value()) return 0;
    *event = **read;
    return 1;
  });
}

}  // extern "C"
