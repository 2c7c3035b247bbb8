// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "driver_process.hpp"

#include <accelmm/fd.hpp>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <utility>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

/// What a program would write that shares memory files without a library. Nothing is checked but
/// that the calls succeed.
namespace accelmm::bench::bare {

constexpr std::size_t page = 4096;

/// Four sizes, and how rows name them.
struct Size {
  const char* name;
  std::size_t bytes;
};
constexpr std::array<Size, 4> sizes = {{{"4k", std::size_t{4} << 10},
                                        {"1m", std::size_t{1} << 20},
                                        {"4m", std::size_t{4} << 20},
                                        {"64m", std::size_t{64} << 20}}};

[[nodiscard]] inline UniqueFd sealed_memory(std::size_t size) {
  UniqueFd memory(memfd_create("bare", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (ftruncate(memory.get(), static_cast<off_t>(size)) != 0) return {};
  if (fcntl(memory.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) return {};
  return memory;
}

/// Maps all of it; null on failure.
[[nodiscard]] inline std::byte* map(int fd, std::size_t size, int flags = 0) {
  void* const at = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED | flags, fd, 0);
  return at == MAP_FAILED ? nullptr : static_cast<std::byte*>(at);
}

inline void write_pages(std::byte* at, std::size_t size) {
  for (std::size_t i = 0; i < size; i += page)
    *const_cast<volatile std::byte*>(at + i) = std::byte{1};
}

/// Maps all of it, reads a byte of each page, and unmaps.
[[nodiscard]] inline bool read_through(int fd, std::size_t size) {
  std::byte* const at = map(fd, size);
  if (at == nullptr) return false;
  for (std::size_t i = 0; i < size; i += page)
    static_cast<void>(*const_cast<volatile std::byte*>(at + i));
  return munmap(at, size) == 0;
}

/// What goes both ways is as large as accelmm's packets.
template <std::size_t bytes>
using Packet = std::array<std::byte, bytes>;

template <std::size_t bytes>
[[nodiscard]] bool send_packet(int socket, Packet<bytes>& packet, int fd = -1) {
  iovec part{packet.data(), packet.size()};
  alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(sizeof(int))> control{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (fd >= 0) {
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    cmsghdr* const header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(header), &fd, sizeof(int));
  }
  return sendmsg(socket, &message, MSG_NOSIGNAL) == static_cast<ssize_t>(bytes);
}

/// How a program waits for a packet: asleep, or for a while looking, as accelmm does.
enum class Waits : std::uint8_t { asleep, looking };
constexpr std::chrono::microseconds look{100};

/// One recvmsg(2) that the kernel makes whole; more where the program looks.
[[nodiscard]] inline ssize_t receive(int socket, msghdr& message, Waits waits) {
  const msghdr fresh = message;
  if (waits == Waits::looking) {
    const auto end = std::chrono::steady_clock::now() + look;
    do {
      message = fresh;
      const ssize_t size = recvmsg(socket, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
      if (size >= 0 || errno != EAGAIN) return size;
    } while (std::chrono::steady_clock::now() < end);
    message = fresh;
  }
  return recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
}

/// Whether a packet came; `fd` is what came with it.
template <std::size_t bytes>
[[nodiscard]] bool receive_packet(int socket, Packet<bytes>& packet, UniqueFd& fd,
                                  Waits waits = Waits::asleep) {
  iovec part{packet.data(), packet.size()};
  alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(sizeof(int))> control{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  if (receive(socket, message, waits) != static_cast<ssize_t>(bytes)) return false;
  int came = -1;
  if (const cmsghdr* const header = CMSG_FIRSTHDR(&message); header != nullptr)
    std::memcpy(&came, CMSG_DATA(header), sizeof(int));
  fd = UniqueFd(came);
  return true;
}

struct Ends {
  UniqueFd first, second;
};

[[nodiscard]] inline Ends socket_pair() {
  std::array<int, 2> ends = {-1, -1};
  static_cast<void>(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()));
  return {UniqueFd(ends[0]), UniqueFd(ends[1])};
}

}  // namespace accelmm::bench::bare
