// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/error.hpp>
#include <accelmm/fd.hpp>
#include <accelmm/units.hpp>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/types.h>

/// The system calls that accelmm makes, each once: close-on-exec always, EINTR retried, errno
/// turned into Error, and a fault-injection point of the call's own name passed first. Nothing else
/// in the tree calls the system, except the io_uring calls of src/loop (tools/check_syscalls.py).
namespace accelmm::sys {

// --- memory ---
/// A new memfd with MFD_CLOEXEC | MFD_ALLOW_SEALING | extra_flags, truncated to `size`.
[[nodiscard]] Result<UniqueFd> memfd_create(const char* name, ByteCount size,
                                            unsigned extra_flags = 0);
[[nodiscard]] Result<void> add_seals(FdView fd, int seals);
[[nodiscard]] Result<int> get_seals(FdView fd);
[[nodiscard]] Result<std::byte*> mmap(void* address, ByteCount length, int prot, int flags,
                                      FdView fd, std::uint64_t offset);
/// Cannot fail for ranges that mmap returned; checked.
void munmap(std::byte* address, ByteCount length) noexcept;
/// mremap(2) of a whole mapping onto other addresses, in the place of what is mapped there.
[[nodiscard]] Result<void> move_mapping(std::byte* from, ByteCount length, std::byte* to);
[[nodiscard]] Result<void> madvise(std::byte* address, ByteCount length, int advice);
/// Makes pages and maps them writable: MADV_POPULATE_WRITE. What would be a SIGBUS is EFAULT.
/// Errors  invalid_argument: kernel before 5.14.
[[nodiscard]] Result<void> populate(std::byte* address, ByteCount length);
/// mbind(2) with one word of nodes; `mode` is MPOL_*.
[[nodiscard]] Result<void> mbind(std::byte* address, ByteCount length, int mode,
                                 std::uint64_t nodes);
/// mlock2(2) with MLOCK_ONFAULT: what is there stays there, and what comes.
[[nodiscard]] Result<void> lock_on_fault(std::byte* address, ByteCount length);
/// move_pages(2) that moves nothing: the node of the page at each address, or a negative errno.
/// Pre     as many nodes as pages.
[[nodiscard]] Result<void> nodes_of_pages(std::span<void*> pages, std::span<int> nodes);
/// Whether the page at `address`, as this process maps it, is part of a huge page; false where none
/// is mapped. `pagemap` is /proc/self/pagemap.
/// Errors  unknown_ioctl: kernel before 6.7.
[[nodiscard]] Result<bool> is_huge_page(FdView pagemap, const std::byte* address);

// --- files ---
[[nodiscard]] Result<UniqueFd> open(const std::string& path, int flags, mode_t mode = 0);
[[nodiscard]] Result<UniqueFd> duplicate(FdView fd);
[[nodiscard]] Result<struct stat> fstat(FdView fd);
/// The magic number of the file system that holds a file, as in linux/magic.h.
[[nodiscard]] Result<std::int64_t> file_system_magic(FdView fd);
/// O_* access mode and status flags of an open description.
[[nodiscard]] Result<int> get_flags(FdView fd);
[[nodiscard]] Result<void> flock(FdView fd, int operation);
[[nodiscard]] Result<void> mkdir(const std::string& path, mode_t mode);
/// The names in a folder, sorted, without those that begin with a dot.
[[nodiscard]] Result<std::vector<std::string>> list_folder(const std::string& path);
[[nodiscard]] Result<void> unlink(const std::string& path);
[[nodiscard]] Result<void> chmod(const std::string& path, mode_t mode);
[[nodiscard]] Result<void> chown(const std::string& path, uid_t uid, gid_t gid);
[[nodiscard]] Result<void> set_nonblocking(FdView fd);
/// lseek(2): `whence` is SEEK_DATA, SEEK_HOLE or SEEK_END.
[[nodiscard]] Result<std::uint64_t> seek(FdView fd, std::uint64_t offset, int whence);
/// {read end, write end}, non-blocking.
struct Pipe {
  UniqueFd reader;
  UniqueFd writer;
};
[[nodiscard]] Result<Pipe> pipe();
[[nodiscard]] Result<std::size_t> read(FdView fd, std::span<std::byte> into);
[[nodiscard]] Result<std::size_t> write(FdView fd, std::span<const std::byte> from);
[[nodiscard]] Result<UniqueFd> eventfd();  // EFD_NONBLOCK

// --- sockets: AF_UNIX SOCK_SEQPACKET ---
/// A listening, non-blocking socket bound to `path` (at most 107 bytes) and created with mode 0600.
[[nodiscard]] Result<UniqueFd> listen_seqpacket(const std::string& path);
/// A connected socket, blocking.
[[nodiscard]] Result<UniqueFd> connect_seqpacket(const std::string& path);
struct SocketPair {
  UniqueFd first;
  UniqueFd second;
};
[[nodiscard]] Result<SocketPair> socket_pair();
[[nodiscard]] Result<struct ucred> peer_credentials(FdView socket);
/// Sends one packet with descriptors beside it. Flags MSG_NOSIGNAL | extra.
/// Errors  try_again with MSG_DONTWAIT and a full queue; EPIPE, ECONNRESET: the peer is gone.
[[nodiscard]] Result<void> send_packet(FdView socket, std::span<const std::byte> bytes,
                                       std::span<const FdView> fds, int extra_flags = 0);
struct ReceivedPacket {
  std::size_t size = 0;  // 0: the peer closed
  std::vector<UniqueFd> fds;
};
/// Receives one packet of at most bytes.size() bytes and `max_fds` descriptors.
/// Errors  protocol_error: the packet or its descriptors did not fit (what came is closed).
///         try_again with MSG_DONTWAIT and nothing there.
/// Until `busy_poll_until_ns` it asks again and again, without sleeping; with flags of 0 only.
[[nodiscard]] Result<ReceivedPacket> receive_packet(FdView socket, std::span<std::byte> bytes,
                                                    std::size_t max_fds, int extra_flags = 0,
                                                    std::uint64_t busy_poll_until_ns = 0);
/// poll(2) on one descriptor; revents, 0 at the timeout. A negative timeout waits for ever.
[[nodiscard]] Result<short> poll_one(FdView fd, short events, int timeout_ms);
/// poll(2) on several; how many have revents, 0 at the timeout or when a signal came first.
[[nodiscard]] Result<int> poll_any(std::span<pollfd> entries, int timeout_ms);

// --- time and process ---
/// CLOCK_MONOTONIC in nanoseconds; never fails.
[[nodiscard]] std::uint64_t monotonic_ns() noexcept;
/// Whether the calling thread may run on one processor only. Where the kernel does not tell: no.
[[nodiscard]] bool is_on_one_processor() noexcept;

}  // namespace accelmm::sys
