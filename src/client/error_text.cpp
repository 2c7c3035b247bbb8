// SPDX-License-Identifier: Apache-2.0
#include "client/error_text.hpp"

#include <accelmm/client.hpp>

#include <array>

namespace accelmm {

namespace {

constexpr Errc errc(int error_number) {
  return static_cast<Errc>(error_number);
}

constexpr std::array texts = {
    ErrorText{Errc::too_big, "E2BIG", "the struct holds something that the driver does not know"},
    ErrorText{errc(EACCES), "EACCES", "the node's owner or mode refuses this user"},
    ErrorText{Errc::address_in_use, "EADDRINUSE", "the device address is taken"},
    ErrorText{Errc::try_again, "EAGAIN", "the device is in reset, or nothing is there yet"},
    ErrorText{errc(EBADF), "EBADF", "not an open descriptor"},
    ErrorText{Errc::busy, "EBUSY", "another session holds the device"},
    ErrorText{Errc::canceled, "ECANCELED", "the operation was dropped before it was done"},
    ErrorText{errc(ECONNRESET), "ECONNRESET", "the other end of a socket was closed"},
    ErrorText{Errc::over_quota, "EDQUOT", "the session or its user is over quota"},
    ErrorText{Errc::exists, "EEXIST", "it exists already"},
    ErrorText{Errc::fault, "EFAULT", "the device could not reach memory that its job used"},
    ErrorText{Errc::invalid_argument, "EINVAL",
              "malformed, or a handle that is stale, forged or another session's"},
    ErrorText{Errc::io_error, "EIO", "the hardware or the driver failed"},
    ErrorText{Errc::too_many_files, "EMFILE", "too many open descriptors"},
    ErrorText{Errc::no_device, "ENODEV", "the device is gone, or this is a forked child"},
    ErrorText{Errc::no_entry, "ENOENT", "there is no such file or directory"},
    ErrorText{Errc::no_memory, "ENOMEM", "nothing is left to allocate from"},
    ErrorText{errc(ENOTCONN), "ENOTCONN", "the session has no event descriptor yet"},
    ErrorText{Errc::unknown_ioctl, "ENOTTY", "unknown ioctl"},
    ErrorText{Errc::not_supported, "EOPNOTSUPP",
              "this format, back-end, bus or node cannot do that"},
    ErrorText{Errc::overflow, "EOVERFLOW", "a size or an address does not fit in its type"},
    ErrorText{Errc::not_permitted, "EPERM", "this node refuses this caller"},
    ErrorText{Errc::protocol_error, "EPROTO", "the other side does not speak accelmm's protocol"},
    ErrorText{Errc::timed_out, "ETIMEDOUT", "the deadline passed"},
};

}  // namespace

std::span<const ErrorText> error_texts() noexcept {
  return texts;
}

const char* error_text(Errc code) noexcept {
  if (code == Errc{}) return "success";
  for (const ErrorText& entry : texts)
    if (entry.code == code) return entry.text;
  return "the system refused it (see errno(3))";
}

}  // namespace accelmm
