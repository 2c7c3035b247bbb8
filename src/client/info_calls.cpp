// SPDX-License-Identifier: Apache-2.0
#include "client/info_calls.hpp"

#include <algorithm>
#include <cstring>
#include <limits>
#include <span>

namespace accelmm {

namespace {

Result<accelmm_info> read_info(ClientLink& link, std::uint32_t topic) {
  accelmm_info info = {};
  info.topic = topic;
  if (const auto done = link.ioctl_alone(ACCELMM_IOCTL_INFO, info); !done)
    return fail(done.error());
  if (info.topic != topic) return fail(Errc::protocol_error, "facts about another topic");
  return info;
}

template <class Struct>
Result<Struct> read_topic(ClientLink& link, std::uint32_t topic) {
  static_assert(sizeof(Struct) <= ACCELMM_INFO_DATA_SIZE);
  const auto info = read_info(link, topic);
  if (!info) return fail(info.error());
  Struct out = {};
  std::memcpy(&out, info->data, std::min(data_size(*info), sizeof(out)));
  return out;
}

bool has_end(const __u8 (&name)[ACCELMM_NAME_SIZE]) {
  return std::memchr(name, 0, sizeof(name)) != nullptr;
}

}  // namespace

std::size_t data_size(const accelmm_info& info) noexcept {
  return std::min<std::size_t>(info.size, ACCELMM_INFO_DATA_SIZE);
}

Result<accelmm_info_device> read_device_info(ClientLink& link) {
  const auto info = read_topic<accelmm_info_device>(link, ACCELMM_INFO_DEVICE);
  if (!info) return info;
  if (!has_end(info->driver) || !has_end(info->mmu_format))
    return fail(Errc::protocol_error, "a name does not end");
  if (info->number != link.facts().device)
    return fail(Errc::protocol_error, "facts about another device");
  return info;
}

Result<accelmm_info_usage> read_usage(ClientLink& link) {
  return read_topic<accelmm_info_usage>(link, ACCELMM_INFO_USAGE);
}

Result<accelmm_info_session> read_session_info(ClientLink& link) {
  return read_topic<accelmm_info_session>(link, ACCELMM_INFO_SESSION);
}

Result<accelmm_info_fault> read_fault(ClientLink& link) {
  return read_topic<accelmm_info_fault>(link, ACCELMM_INFO_FAULT);
}

Result<accelmm_info> read_driver_info(ClientLink& link, std::uint32_t topic) {
  if (topic > std::numeric_limits<std::uint32_t>::max() - ACCELMM_INFO_DRIVER)
    return fail(Errc::invalid_argument, "no such topic");
  return read_info(link, ACCELMM_INFO_DRIVER + topic);
}

}  // namespace accelmm
