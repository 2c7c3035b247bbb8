// SPDX-License-Identifier: Apache-2.0
#include "base/listening_socket.hpp"

#include "base/system.hpp"

#include <utility>

namespace accelmm {

ListeningSocket::ListeningSocket(ListeningSocket&& other) noexcept
    : path_(std::exchange(other.path_, {})), socket_(std::move(other.socket_)) {}

ListeningSocket& ListeningSocket::operator=(ListeningSocket&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(socket_, other.socket_);
  return *this;
}

ListeningSocket::~ListeningSocket() {
  if (!path_.empty()) static_cast<void>(sys::unlink(path_));
}

Result<ListeningSocket> ListeningSocket::create(std::string path, const Permissions& permissions) {
  if (auto removed = sys::unlink(path); !removed && removed.error().code != Errc::no_entry)
    return fail(removed.error());
  auto socket = sys::listen_seqpacket(path);
  if (!socket) return fail(socket.error());
  ListeningSocket result(std::move(path), std::move(*socket));
  // The socket is made with mode 0600, so until chmod only this user could have connected.
  if (permissions.uid != static_cast<uid_t>(-1) || permissions.gid != static_cast<gid_t>(-1))
    if (auto owned = sys::chown(result.path_, permissions.uid, permissions.gid); !owned)
      return fail(owned.error());
  if (auto opened = sys::chmod(result.path_, permissions.mode); !opened)
    return fail(opened.error());
  return result;
}

}  // namespace accelmm
