// SPDX-License-Identifier: Apache-2.0
#include "loop/socket_operations.hpp"

#include "loop/uring_connection.hpp"

#include <accelmm/check.hpp>
#include <accelmm/fault_injection.hpp>

#include <cstring>
#include <new>
#include <utility>

namespace accelmm {

namespace {

// Calls `visit` with every descriptor in the ancillary data.
template <class Visit>
void for_each_fd(msghdr& message, Visit visit) {
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr;
       header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    const std::size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t i = 0; i < count; ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(header) + i * sizeof(int), sizeof(int));
      visit(UniqueFd(fd));
    }
  }
}

}  // namespace

Result<std::unique_ptr<ReceiveOperation>> ReceiveOperation::create(UringConnection& owner,
                                                                   SharedSocket socket) {
  std::unique_ptr<std::byte[]> buffer(new (std::nothrow) std::byte[ACCELMM_MAX_MESSAGE]);
  if (buffer == nullptr) return fail(Errc::no_memory, "no memory to receive packets");
  std::unique_ptr<ReceiveOperation> operation(
      new (std::nothrow) ReceiveOperation(owner, std::move(socket), std::move(buffer)));
  if (operation == nullptr) return fail(Errc::no_memory, "no memory to receive packets");
  return operation;
}

ReceiveOperation::ReceiveOperation(UringConnection& owner, SharedSocket socket,
                                   std::unique_ptr<std::byte[]> buffer)
    : owner_(owner), socket_(std::move(socket)), buffer_(std::move(buffer)) {}

ReceiveOperation::~ReceiveOperation() {
  drop_fds();
}

void ReceiveOperation::prepare(io_uring_sqe& sqe) {
  vector_ = {.iov_base = buffer_.get(), .iov_len = ACCELMM_MAX_MESSAGE};
  message_ = {};
  message_.msg_iov = &vector_;
  message_.msg_iovlen = 1;
  message_.msg_control = control_.data();
  message_.msg_controllen = control_.size();
  // Until the kernel writes there, the room must not read as descriptors.
  std::memset(control_.data(), 0, sizeof(cmsghdr));
  io_uring_prep_recvmsg(&sqe, socket_->fd().get(), &message_, MSG_CMSG_CLOEXEC);
}

void ReceiveOperation::complete(int result) {
  if (const int injected = fault_injection::point("io_uring_recvmsg"); injected != 0) {
    drop_fds();
    result = -injected;
  }
  owner_.received(result);
  if (!abandoned()) owner_.listen_on();
}

void ReceiveOperation::discard(int /*result*/) noexcept {
  drop_fds();
}

bool ReceiveOperation::whole(int result) const {
  // A packet of no bytes cannot be told from the end, and is not one that anybody may send.
  if (result <= 0 || (message_.msg_flags & MSG_TRUNC) != 0) return false;
  return (message_.msg_flags & MSG_CTRUNC) == 0 || lost_fds();
}

bool ReceiveOperation::lost_fds() const {
  // Where the room for them is full, more were sent than anybody may send.
  return (message_.msg_flags & MSG_CTRUNC) != 0 && fd_count() < ACCELMM_MAX_FDS;
}

std::size_t ReceiveOperation::fd_count() const {
  const cmsghdr* const header = CMSG_FIRSTHDR(&message_);
  return header == nullptr ? 0 : (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
}

std::span<const std::byte> ReceiveOperation::bytes(int result) const {
  ACCELMM_CHECK(result > 0 && result <= ACCELMM_MAX_MESSAGE);
  return {buffer_.get(), static_cast<std::size_t>(result)};
}

Result<std::vector<UniqueFd>> ReceiveOperation::take_fds() {
  std::vector<UniqueFd> fds;
  if (message_.msg_controllen == 0) return fds;
  try {
    fds.reserve(ACCELMM_MAX_FDS);
  } catch (const std::bad_alloc&) {
    drop_fds();
    return fail(Errc::no_memory, "no memory for received descriptors");
  }
  for_each_fd(message_, [&fds](UniqueFd fd) { fds.push_back(std::move(fd)); });
  message_.msg_controllen = 0;
  return fds;
}

void ReceiveOperation::drop_fds() noexcept {
  for_each_fd(message_, [](UniqueFd fd) { fd.reset(); });
  message_.msg_controllen = 0;
}

PollOperation::PollOperation(UringConnection& owner, SharedSocket socket, unsigned events,
                             Done done)
    : owner_(owner), socket_(std::move(socket)), events_(events), done_(done) {}

void PollOperation::prepare(io_uring_sqe& sqe) {
  io_uring_prep_poll_add(&sqe, socket_->fd().get(), events_);
}

void PollOperation::complete(int result) {
  (owner_.*done_)(result);
}

void PollOperation::discard(int /*result*/) noexcept {}

void EndOperation::prepare(io_uring_sqe& /*sqe*/) {
  ACCELMM_CHECK(false && "never submitted");
}

void EndOperation::complete(int /*result*/) {
  owner_.end();
}

void EndOperation::discard(int /*result*/) noexcept {}

}  // namespace accelmm
