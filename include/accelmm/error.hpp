// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cerrno>
#include <cstdint>
#include <expected>
#include <utility>

namespace accelmm {

/// An error number. The values are Linux errno values, so that the boundary to C is the identity.
///
/// The enumerators name those that accelmm produces itself; a system call may put any other errno
/// here. Each one's meaning is in docs/errors.md.
enum class Errc : std::int32_t {
  not_permitted = EPERM,
  no_entry = ENOENT,
  io_error = EIO,
  too_big = E2BIG,
  try_again = EAGAIN,
  no_memory = ENOMEM,
  fault = EFAULT,
  busy = EBUSY,
  exists = EEXIST,
  no_device = ENODEV,
  invalid_argument = EINVAL,
  too_many_files = EMFILE,
  unknown_ioctl = ENOTTY,
  overflow = EOVERFLOW,
  protocol_error = EPROTO,
  not_supported = EOPNOTSUPP,
  address_in_use = EADDRINUSE,
  timed_out = ETIMEDOUT,
  canceled = ECANCELED,
  over_quota = EDQUOT,
};

/// Why an operation failed. Never allocates: `what` is a string literal.
struct Error {
  Errc code;
  const char* what;
};

template <class T>
using Result = std::expected<T, Error>;

/// Makes the failure value of any Result: `return fail(Errc::busy, "node is held by a session")`.
[[nodiscard]] inline std::unexpected<Error> fail(Errc code, const char* what) {
  return std::unexpected(Error{code, what});
}

/// Passes an error on: `if (!r) return fail(r.error());`.
[[nodiscard]] inline std::unexpected<Error> fail(Error error) {
  return std::unexpected(error);
}

/// Makes the failure value from the errno that a system call just left.
[[nodiscard]] inline std::unexpected<Error> fail_errno(int error_number, const char* what) {
  return std::unexpected(Error{static_cast<Errc>(error_number), what});
}

}  // namespace accelmm
