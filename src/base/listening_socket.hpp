// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/error.hpp>
#include <accelmm/fd.hpp>

#include <string>

#include <sys/types.h>

namespace accelmm {

/// A SOCK_SEQPACKET socket that others can connect to by its path, until this is destroyed.
class ListeningSocket {
 public:
  struct Permissions {
    uid_t uid;  ///< -1: as the process
    gid_t gid;  ///< -1: as the process
    mode_t mode;
  };
  /// Replaces whatever socket is at `path`: the caller holds the lock that says nobody listens
  /// there. Nobody can connect before owner, group and mode are set.
  /// Errors  any value of bind(2), chown(2), chmod(2), listen(2); nothing is left at `path` then.
  [[nodiscard]] static Result<ListeningSocket> create(std::string path,
                                                      const Permissions& permissions);
  ListeningSocket(ListeningSocket&& other) noexcept;
  ListeningSocket& operator=(ListeningSocket&& other) noexcept;
  ~ListeningSocket();

  [[nodiscard]] const std::string& path() const { return path_; }
  /// Gives the socket to whoever accepts on it; the path stays this object's to remove.
  [[nodiscard]] UniqueFd take_socket() { return std::move(socket_); }

 private:
  ListeningSocket(std::string path, UniqueFd socket)
      : path_(std::move(path)), socket_(std::move(socket)) {}
  std::string path_;  // empty: moved from
  UniqueFd socket_;
};

}  // namespace accelmm
