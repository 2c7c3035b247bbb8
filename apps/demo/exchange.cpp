// SPDX-License-Identifier: Apache-2.0
#include "exchange.hpp"

#include <cerrno>

#include <sys/socket.h>
#include <sys/stat.h>

namespace demo {

Outcome<void> send_bytes(accelmm::FdView socket, const void* bytes, std::size_t size) {
  if (send(socket.get(), bytes, size, MSG_NOSIGNAL) != static_cast<ssize_t>(size))
    return refuse_errno("cannot reach the other process", errno);
  return {};
}

Outcome<void> receive_bytes(accelmm::FdView socket, void* bytes, std::size_t size) {
  ssize_t received = 0;
  do received = recv(socket.get(), bytes, size, 0);
  while (received < 0 && errno == EINTR);
  if (received < 0) return refuse_errno("cannot hear the other process", errno);
  if (received != static_cast<ssize_t>(size)) return refuse("the other process ended too early");
  return {};
}

Outcome<std::uint64_t> inode_of(const accelmm::Export& view) {
  struct stat facts{};
  if (view.pieces.empty() || fstat(view.pieces.front().fd.get(), &facts) != 0)
    return refuse("an export has no memory to look at");
  return facts.st_ino;
}

}  // namespace demo
