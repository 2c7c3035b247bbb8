// SPDX-License-Identifier: Apache-2.0
#include "capi/guarded.hpp"
#include "capi/session.hpp"
#include "capi/view.hpp"
#include "client/info_calls.hpp"

#include <algorithm>
#include <cstring>

namespace accelmm {

namespace {

// Writes what `read` learns to an application that knows `size` bytes of the struct.
template <class Struct>
int read_for_c(accelmm_session* session, Result<Struct> (*read)(ClientLink&), Struct* info,
               size_t size) noexcept {
  if (session == nullptr || info == nullptr || size == 0) return -EINVAL;
  return guarded([&] {
    const auto facts = read(*session->link);
    if (!facts) return to_c(facts.error());
    extend_to_c(*facts, info, size);
    return 0;
  });
}

}  // namespace

}  // namespace accelmm

extern "C" {

int accelmm_info_read_device(accelmm_session* session, struct accelmm_info_device* info,
                             size_t size) {
  return accelmm::read_for_c(session, accelmm::read_device_info, info, size);
}

int accelmm_info_read_usage(accelmm_session* session, struct accelmm_info_usage* info,
                            size_t size) {
  return accelmm::read_for_c(session, accelmm::read_usage, info, size);
}

int accelmm_info_read_session(accelmm_session* session, struct accelmm_info_session* info,
                              size_t size) {
  return accelmm::read_for_c(session, accelmm::read_session_info, info, size);
}

int accelmm_info_read_fault(accelmm_session* session, struct accelmm_info_fault* info,
                            size_t size) {
  return accelmm::read_for_c(session, accelmm::read_fault, info, size);
}

int accelmm_info_read_driver(accelmm_session* session, uint32_t topic, void* data,
                             size_t capacity) {
  if (session == nullptr || (data == nullptr && capacity != 0)) return -EINVAL;
  return accelmm::guarded([&] {
    const auto info = accelmm::read_driver_info(*session->link, topic);
    if (!info) return accelmm::to_c(info.error());
    const size_t size = accelmm::data_size(*info);
    if (capacity != 0) std::memcpy(data, info->data, std::min(size, capacity));
    return static_cast<int>(size);
  });
}

}  // extern "C"
