// SPDX-License-Identifier: Apache-2.0
#include "base/system.hpp"
#include "base/system_call.hpp"

#include <array>
#include <cstring>
#include <new>

#include <fcntl.h>
#include <sys/un.h>
#include <unistd.h>

namespace accelmm::sys {

namespace {

// SCM_MAX_FD of the kernel (include/net/scm.h): more in one packet are refused by sendmsg(2).
constexpr std::size_t max_packet_fds = 253;

// Room for the ancillary data of one packet, aligned as its header wants.
struct ControlSpace {
  alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(max_packet_fds * sizeof(int))> bytes;
};

Result<sockaddr_un> make_address(const std::string& path) {
  sockaddr_un address = {};
  // An empty name, or one that begins with a zero byte, would be a name outside the file system.
  if (path.empty() || path.find('\0') != std::string::npos)
    return fail(Errc::invalid_argument, "socket path is empty or holds a zero byte");
  if (path.size() >= sizeof(address.sun_path))
    return fail_errno(ENAMETOOLONG, "socket path is longer than 107 bytes");
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  return address;
}

Result<UniqueFd> make_socket(int extra_type) {
  const int type = SOCK_SEQPACKET | SOCK_CLOEXEC | extra_type;
  UniqueFd fd(system_call("socket", [=] { return ::socket(AF_UNIX, type, 0); }));
  if (!fd.valid()) return fail_errno(errno, "socket failed");
  return fd;
}

// The sockets API takes addresses through a pointer to their common beginning.
const sockaddr* generic(const sockaddr_un& address) {
  return reinterpret_cast<const sockaddr*>(&address);
}

// Nobody can connect until listen(), so the mode is right before the first connection. The
// process-wide umask, which other threads' files depend on, is left alone.
Result<void> restrict_and_listen(FdView socket, const std::string& path) {
  if (const auto restricted = chmod(path, 0600); !restricted) return restricted;
  if (system_call("listen", [=] { return ::listen(socket.get(), SOMAXCONN); }) != 0)
    return fail_errno(errno, "listen failed");
  return {};
}

// Takes ownership of every descriptor in the ancillary data.
void collect_fds(msghdr& message, std::vector<UniqueFd>& fds) {
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr;
       header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    const std::size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t i = 0; i < count; ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(header) + i * sizeof(int), sizeof(int));
      fds.emplace_back(fd);
    }
  }
}

}  // namespace

Result<UniqueFd> listen_seqpacket(const std::string& path) {
  const auto address = make_address(path);
  if (!address) return fail(address.error());
  auto socket = make_socket(SOCK_NONBLOCK);
  if (!socket) return socket;
  const auto bind = [&] { return ::bind(socket->get(), generic(*address), sizeof(*address)); };
  if (system_call("bind", bind) != 0) return fail_errno(errno, "bind failed");
  if (const auto listening = restrict_and_listen(socket->view(), path); !listening) {
    static_cast<void>(::unlink(path.c_str()));
    return fail(listening.error());
  }
  return socket;
}

Result<UniqueFd> connect_seqpacket(const std::string& path) {
  const auto address = make_address(path);
  if (!address) return fail(address.error());
  auto socket = make_socket(0);
  if (!socket) return socket;
  // A local connect that was interrupted while the queue was full has changed nothing: it may be
  // repeated.
  const auto connect = [&] {
    return ::connect(socket->get(), generic(*address), sizeof(*address));
  };
  if (system_call("connect", connect) != 0) return fail_errno(errno, "connect failed");
  return socket;
}

Result<SocketPair> socket_pair() {
  int ends[2] = {-1, -1};
  const int type = SOCK_SEQPACKET | SOCK_CLOEXEC;
  if (system_call("socketpair", [&] { return ::socketpair(AF_UNIX, type, 0, ends); }) != 0)
    return fail_errno(errno, "socketpair failed");
  return SocketPair{UniqueFd(ends[0]), UniqueFd(ends[1])};
}

Result<struct ucred> peer_credentials(FdView socket) {
  ucred credentials = {};
  socklen_t size = sizeof(credentials);
  const auto call = [&] {
    return ::getsockopt(socket.get(), SOL_SOCKET, SO_PEERCRED, &credentials, &size);
  };
  if (system_call("peer_credentials", call) != 0)
    return fail_errno(errno, "reading the peer's credentials failed");
  return credentials;
}

Result<void> send_packet(FdView socket, std::span<const std::byte> bytes,
                         std::span<const FdView> fds, int extra_flags) {
  if (bytes.empty()) return fail(Errc::invalid_argument, "an empty packet would read as the end");
  if (fds.size() > max_packet_fds)
    return fail(Errc::invalid_argument, "more than 253 descriptors in one packet");
  // sendmsg(2) does not write through this pointer; iovec serves both directions.
  iovec vector{.iov_base = const_cast<std::byte*>(bytes.data()), .iov_len = bytes.size()};
  msghdr message = {};
  message.msg_iov = &vector;
  message.msg_iovlen = 1;
  ControlSpace control;
  if (!fds.empty()) {
    message.msg_control = control.bytes.data();
    message.msg_controllen = CMSG_SPACE(fds.size() * sizeof(int));
    std::memset(control.bytes.data(), 0, message.msg_controllen);
    cmsghdr* const header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(fds.size() * sizeof(int));
    for (std::size_t i = 0; i < fds.size(); ++i) {
      const int fd = fds[i].get();
      std::memcpy(CMSG_DATA(header) + i * sizeof(int), &fd, sizeof(int));
    }
  }
  const int flags = MSG_NOSIGNAL | extra_flags;
  const auto call = [&] { return ::sendmsg(socket.get(), &message, flags); };
  if (system_call("send_packet", call) < 0) return fail_errno(errno, "sending a packet failed");
  return {};
}

Result<ReceivedPacket> receive_packet(FdView socket, std::span<std::byte> bytes,
                                      std::size_t max_fds, int extra_flags,
                                      std::uint64_t busy_poll_until_ns) {
  if (max_fds > max_packet_fds) max_fds = max_packet_fds;
  ReceivedPacket packet;
  // The room is taken before the packet, so that running out of memory loses neither packet nor
  // descriptors.
  try {
    packet.fds.reserve(max_fds);
  } catch (const std::bad_alloc&) {
    return fail(Errc::no_memory, "no memory for received descriptors");
  }
  iovec vector{.iov_base = bytes.data(), .iov_len = bytes.size()};
  msghdr message = {};
  ControlSpace control;
  const auto receive = [&](int flags) {
    message = {};
    message.msg_iov = &vector;
    message.msg_iovlen = 1;
    // CMSG_LEN, not CMSG_SPACE: the padding of the latter would let one descriptor more in than was
    // asked for.
    if (max_fds != 0) {
      message.msg_control = control.bytes.data();
      message.msg_controllen = CMSG_LEN(max_fds * sizeof(int));
    }
    return ::recvmsg(socket.get(), &message, MSG_CMSG_CLOEXEC | extra_flags | flags);
  };
  const auto call = [&] {
    while (monotonic_ns() < busy_poll_until_ns) {
      const ssize_t size = receive(MSG_DONTWAIT);
      if (size != -1 || errno != EAGAIN) return size;
    }
    return receive(0);
  };
  const ssize_t size = system_call("receive_packet", call);
  if (size < 0) return fail_errno(errno, "receiving a packet failed");
  collect_fds(message, packet.fds);
  if ((message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0)
    return fail(Errc::protocol_error, "a packet or its descriptors did not fit");
  packet.size = static_cast<std::size_t>(size);
  return packet;
}

}  // namespace accelmm::sys
