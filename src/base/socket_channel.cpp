// SPDX-License-Identifier: Apache-2.0
#include "base/socket_channel.hpp"

#include <accelmm/uapi.h>

#include <cstring>
#include <new>
#include <utility>

#include <sys/socket.h>

namespace accelmm {

namespace {

constexpr std::size_t header_size = sizeof(accelmm_message_header);

// A sender whose peer does not read looks this often whether the connection has broken meanwhile.
constexpr int send_wait_ms = 100;

// How often a reader asks again for memory, 1 ms apart, before it gives the connection up: a reply
// that is on its way cannot be refused, and a second is longer than any shortage that ends.
constexpr int memory_attempts = 1000;

// How long a reader looks for the reply before it sleeps, where replies come soon (BusyPoll). Both
// processes asleep, a call takes 60 to 80 us between processors of a virtual machine; with a shorter
// limit the first looking would never begin there.
constexpr std::uint64_t busy_poll_ns = 100'000;

constexpr const char* gone = "the driver process is gone or the node was removed";

accelmm_message_header read_header(const std::byte* bytes) {
  accelmm_message_header header;
  std::memcpy(&header, bytes, header_size);
  return header;
}

// Sleeps for a millisecond.
void pause_briefly() {
  static_cast<void>(sys::poll_one(FdView(), 0, 1));
}

Result<void> check_request(std::span<const std::byte> request, std::span<const FdView> fds) {
  if (request.size() < header_size)
    return fail(Errc::invalid_argument, "a request is shorter than its header");
  if (request.size() > ACCELMM_MAX_MESSAGE)
    return fail(Errc::invalid_argument, "a request is longer than a message may be");
  if (fds.size() > ACCELMM_MAX_FDS)
    return fail(Errc::invalid_argument, "a request has more descriptors than a message may have");
  return {};
}

}  // namespace

// One call in progress; lives on the caller's stack. Guarded by the channel's lock.
struct SocketChannel::Waiter {
  std::uint32_t sequence = 0;
  std::span<std::byte> reply;
  std::vector<UniqueFd>* reply_fds = nullptr;  // with room for ACCELMM_MAX_FDS more
  bool done = false;
  Result<std::size_t> result = std::size_t{0};
  bool asleep = false;
  Condition wake;
  Waiter* previous = nullptr;
  Waiter* next = nullptr;

  // Under the lock: the waiter may be gone as soon as it is released.
  void finish(Result<std::size_t> with) {
    done = true;
    result = with;
    wake.notify_one();
  }
};

Result<std::unique_ptr<Channel>> SocketChannel::connect(const std::string& path) {
  std::unique_ptr<std::byte[]> buffer(new (std::nothrow) std::byte[ACCELMM_MAX_MESSAGE]);
  if (buffer == nullptr) return fail(Errc::no_memory, "no memory for a channel");
  auto socket = ForkGuard::open([&path] { return sys::connect_seqpacket(path); });
  if (!socket) {
    const int error = std::to_underlying(socket.error().code);
    if (error == ENOENT) return fail(Errc::no_device, "there is no such node");
    if (error == ECONNREFUSED) return fail(Errc::no_device, "nobody serves this node");
    return fail(socket.error());
  }
  std::unique_ptr<Channel> channel(new (std::nothrow)
                                       SocketChannel(std::move(*socket), std::move(buffer)));
  if (channel == nullptr) return fail(Errc::no_memory, "no memory for a channel");
  return channel;
}

SocketChannel::SocketChannel(ForkGuard socket, std::unique_ptr<std::byte[]> buffer)
    : socket_(std::move(socket)),
      buffer_(std::move(buffer)),
      busy_poll_(sys::is_on_one_processor() ? 0 : busy_poll_ns) {}

// A child inherits the list of the calls that its parent's other threads were in.
SocketChannel::~SocketChannel() {
  ACCELMM_CHECK(waiters_ == nullptr || socket_.in_forked_child());
}

Result<std::size_t> SocketChannel::call(std::span<std::byte> request, std::span<const FdView> fds,
                                        std::span<std::byte> reply,
                                        std::vector<UniqueFd>& reply_fds) {
  // Before any lock: in a forked child it may be held by a thread that does not exist there.
  if (socket_.in_forked_child()) return fail(Errc::no_device, "a channel was used after fork");
  if (const auto checked = check_request(request, fds); !checked) return fail(checked.error());
  Waiter waiter;
  waiter.reply = reply;
  waiter.reply_fds = &reply_fds;
  try {
    reply_fds.reserve(reply_fds.size() + ACCELMM_MAX_FDS);
  } catch (const std::bad_alloc&) {
    return fail(Errc::no_memory, "no memory for the descriptors of a reply");
  }
  if (const auto enlisted = enlist(waiter); !enlisted) return fail(enlisted.error());
  accelmm_message_header header = read_header(request.data());
  header.sequence = waiter.sequence;
  std::memcpy(request.data(), &header, header_size);
  const auto sent = send(request, fds);
  if (sent) await(waiter);
  dismiss(waiter);
  if (!sent) return fail(sent.error());
  return waiter.result;
}

// Gives the waiter its sequence number.
Result<void> SocketChannel::enlist(Waiter& waiter) {
  const MutexLock held(lock_);
  if (broken_) return fail(Errc::no_device, gone);
  do {
    waiter.sequence = next_sequence_++;
  } while (find(waiter.sequence) != nullptr);
  waiter.next = waiters_;
  if (waiters_ != nullptr) waiters_->previous = &waiter;
  waiters_ = &waiter;
  return {};
}

void SocketChannel::dismiss(Waiter& waiter) {
  const MutexLock held(lock_);
  (waiter.previous != nullptr ? waiter.previous->next : waiters_) = waiter.next;
  if (waiter.next != nullptr) waiter.next->previous = waiter.previous;
}

SocketChannel::Waiter* SocketChannel::find(std::uint32_t sequence) {
  for (Waiter* waiter = waiters_; waiter != nullptr; waiter = waiter->next)
    if (waiter->sequence == sequence) return waiter;
  return nullptr;
}

// Packets are atomic, so that senders need no lock among each other.
Result<void> SocketChannel::send(std::span<const std::byte> request, std::span<const FdView> fds) {
  while (true) {
    const auto sent = sys::send_packet(socket_.fd(), request, fds, MSG_DONTWAIT);
    if (sent) return {};
    const int error = std::to_underlying(sent.error().code);
    if (error == EPIPE || error == ECONNRESET) {
      const MutexLock held(lock_);
      break_off();
      return fail(Errc::no_device, gone);
    }
    if (error != EAGAIN) return sent;
    const auto room = sys::poll_one(socket_.fd(), POLLOUT, send_wait_ms);
    if (!room) return fail(room.error());
    const MutexLock held(lock_);
    if (broken_) return fail(Errc::no_device, gone);
  }
}

void SocketChannel::await(Waiter& waiter) {
  lock_.lock();
  while (!waiter.done) {
    if (reading_) {
      waiter.asleep = true;
      waiter.wake.wait(lock_);
      waiter.asleep = false;
      continue;
    }
    reading_ = true;
    lock_.unlock();
    auto packet = receive();
    lock_.lock();
    dispatch(std::move(packet));
    reading_ = false;
  }
  hand_over();
  lock_.unlock();
}

Result<sys::ReceivedPacket> SocketChannel::receive() {
  for (int attempt = 1;; ++attempt) {
    // What was there before must not look like the header of a packet that failed.
    std::memset(buffer_.get(), 0, header_size);
    const std::uint64_t begin_ns = sys::monotonic_ns();
    auto packet = sys::receive_packet(socket_.fd(), std::span(buffer_.get(), ACCELMM_MAX_MESSAGE),
                                      ACCELMM_MAX_FDS, 0, begin_ns + busy_poll_.begin());
    busy_poll_.end(sys::monotonic_ns() - begin_ns);
    if (packet || packet.error().code != Errc::no_memory || attempt == memory_attempts)
      return packet;
    pause_briefly();
  }
}

void SocketChannel::dispatch(Result<sys::ReceivedPacket> packet) {
  if (packet) return deliver(std::move(*packet));
  if (packet.error().code == Errc::protocol_error) return lose_descriptors();
  break_off();
}

void SocketChannel::deliver(sys::ReceivedPacket packet) {
  if (packet.size < header_size) return break_off();
  const accelmm_message_header header = read_header(buffer_.get());
  Waiter* const waiter = find(header.sequence);
  if (header.magic != ACCELMM_MAGIC || header.size != packet.size - header_size ||
      header.fd_count != packet.fds.size() || waiter == nullptr || waiter->done) {
    return break_off();
  }
  if (packet.size > waiter->reply.size())
    return waiter->finish(fail(Errc::protocol_error, "a reply is larger than its room"));
  std::memcpy(waiter->reply.data(), buffer_.get(), packet.size);
  for (UniqueFd& fd : packet.fds) waiter->reply_fds->push_back(std::move(fd));
  waiter->finish(packet.size);
}

// A packet came cut. If it fits a message and is somebody's, only its descriptors can be lost: this
// process is at its limit of open files, which is the caller's trouble and not the peer's fault.
void SocketChannel::lose_descriptors() {
  const accelmm_message_header header = read_header(buffer_.get());
  Waiter* const waiter = find(header.sequence);
  if (header.magic != ACCELMM_MAGIC || header.size > ACCELMM_MAX_MESSAGE - header_size ||
      header.fd_count == 0 || header.fd_count > ACCELMM_MAX_FDS || waiter == nullptr ||
      waiter->done) {
    return break_off();
  }
  waiter->finish(fail(Errc::too_many_files, "no room for the descriptors of a reply"));
}

// The end, for every caller, now and later.
void SocketChannel::break_off() {
  broken_ = true;
  for (Waiter* waiter = waiters_; waiter != nullptr; waiter = waiter->next)
    if (!waiter->done) waiter->finish(fail(Errc::no_device, gone));
}

// Wakes one sleeper to read on, when nobody does.
void SocketChannel::hand_over() {
  if (reading_) return;
  for (Waiter* waiter = waiters_; waiter != nullptr; waiter = waiter->next) {
    if (waiter->done || !waiter->asleep) continue;
    waiter->wake.notify_one();
    return;
  }
}

}  // namespace accelmm
