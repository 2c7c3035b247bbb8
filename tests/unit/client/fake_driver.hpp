// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/check.hpp>
#include <accelmm/transport.hpp>
#include <accelmm/uapi.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

namespace accelmm::test {

inline constexpr std::uint64_t page = 4096;

/// What a driver process answers, before a test tampers with it.
struct Reply {
  accelmm_message_header header;
  std::vector<std::byte> payload;
  std::vector<UniqueFd> fds;

  template <class Struct>
  [[nodiscard]] Struct& as() {
    ACCELMM_CHECK(payload.size() >= sizeof(Struct));
    // A vector of bytes is aligned as malloc aligns.
    return *reinterpret_cast<Struct*>(payload.data());
  }
};

/// What was asked of it.
struct Request {
  accelmm_message_header header;
  std::vector<std::byte> payload;
  std::size_t fd_count;
};

/// A driver process of a few lines that answers as uapi.h says, and what a test wants on top of that.
class FakeDriver {
 public:
  /// Changes the next reply to `command` (0: HELLO), after the header was filled in.
  void tamper(std::uint32_t command, std::function<void(Reply&)> change) {
    tampered_command_ = command;
    change_ = std::move(change);
  }
  /// Answers the next call of `command` with an errno, and does nothing.
  void refuse(std::uint32_t command, int error) {
    refused_command_ = command;
    refusal_ = error;
  }
  /// From now on every call is ENODEV, as of a channel whose driver process died.
  void die() {
    dead_ = true;
    event_writer_.reset();
  }
  void close_events() { event_writer_.reset(); }
  void write_event(std::span<const std::byte> bytes) const {
    ACCELMM_CHECK(::send(event_writer_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL) ==
                  static_cast<ssize_t>(bytes.size()));
  }
  void write_event(const accelmm_event& event) const {
    write_event(std::as_bytes(std::span(&event, 1)));
  }

  Result<std::size_t> call(std::span<std::byte> request, std::span<const FdView> fds,
                           std::span<std::byte> room, std::vector<UniqueFd>& reply_fds) {
    const std::scoped_lock held(mutex_);
    if (dead_) return fail(Errc::no_device, "dead");
    Reply reply;
    std::memcpy(&reply.header, request.data(), sizeof(reply.header));
    reply.header.sequence = ++sequence_;
    std::memcpy(request.data(), &reply.header, sizeof(reply.header));
    const auto payload = request.subspan(sizeof(reply.header));
    reply.payload.assign(payload.begin(), payload.end());
    if (keep_log) log.push_back({reply.header, reply.payload, fds.size()});
    if (refusal_ != 0 && refused_command_ == reply.header.command) {
      reply.payload.clear();
      refuse(reply, std::exchange(refusal_, 0));
    } else {
      answer(reply, fds);
    }
    reply.header.fd_count = static_cast<std::uint16_t>(reply.fds.size());
    reply.header.size = static_cast<std::uint32_t>(reply.payload.size());
    if (change_ && tampered_command_ == reply.header.command)
      std::exchange(change_, nullptr)(reply);
    return write(reply, room, reply_fds);
  }

  /// How often an ioctl was asked for.
  [[nodiscard]] std::size_t count(std::uint32_t command) const {
    std::size_t found = 0;
    for (const Request& request : log)
      if (request.header.command == command) ++found;
    return found;
  }
  /// What came with the last call.
  template <class Struct>
  [[nodiscard]] Struct last() const {
    Struct out;
    ACCELMM_CHECK(!log.empty() && log.back().payload.size() == sizeof(out));
    std::memcpy(&out, log.back().payload.data(), sizeof(out));
    return out;
  }

  bool keep_log = true;
  std::vector<Request> log;
  std::map<std::uint64_t, UniqueFd> buffers;  // by handle
  std::uint64_t fd_offset = 0;                // where buffers begin in their descriptors
  accelmm_info_device device = {};
  std::map<std::uint32_t, std::vector<std::byte>> topics;
  /// Answers a driver's own ioctls.
  std::function<void(Reply&, std::span<const FdView>)> driver;

 private:
  static Result<std::size_t> write(Reply& reply, std::span<std::byte> room,
                                   std::vector<UniqueFd>& reply_fds) {
    const std::size_t size = sizeof(reply.header) + reply.payload.size();
    if (size > room.size()) return fail(Errc::protocol_error, "reply does not fit");
    std::memcpy(room.data(), &reply.header, sizeof(reply.header));
    if (!reply.payload.empty())
      std::memcpy(room.data() + sizeof(reply.header), reply.payload.data(), reply.payload.size());
    for (UniqueFd& fd : reply.fds) reply_fds.push_back(std::move(fd));
    return size;
  }

  static void refuse(Reply& reply, int error) { reply.header.status = -error; }

  void answer(Reply& reply, std::span<const FdView> fds) {
    if (reply.header.kind == ACCELMM_MESSAGE_HELLO) return answer_hello(reply.as<accelmm_hello>());
    switch (reply.header.command) {
      case ACCELMM_IOCTL_INFO:
        return answer_info(reply);
      case ACCELMM_IOCTL_ALLOC:
        return answer_alloc(reply.as<accelmm_alloc>());
      case ACCELMM_IOCTL_FREE:
        if (buffers.erase(reply.as<accelmm_free>().handle) == 0) refuse(reply, EINVAL);
        return;
      case ACCELMM_IOCTL_MAP_CPU:
        return answer_map_cpu(reply);
      case ACCELMM_IOCTL_MAP_DEVICE:
        if (reply.as<accelmm_map_device>().placement == ACCELMM_PLACE_ANYWHERE)
          reply.as<accelmm_map_device>().address = next_address_ += 0x100000;
        reply.as<accelmm_map_device>().point.value = ++point_;
        return;
      case ACCELMM_IOCTL_UNMAP_DEVICE:
        reply.as<accelmm_unmap_device>().point.value = ++point_;
        return;
      case ACCELMM_IOCTL_EXPORT:
        return answer_export(reply);
      case ACCELMM_IOCTL_IMPORT:
        return answer_import(reply.as<accelmm_import>(), fds);
      case ACCELMM_IOCTL_WAIT:
        if (reply.as<accelmm_wait>().point.value > point_) refuse(reply, ETIMEDOUT);
        return;
      case ACCELMM_IOCTL_EVENTS:
        return answer_events(reply);
      case ACCELMM_IOCTL_WATCH:
        return;
      case ACCELMM_IOCTL_BACKING:
        if (!buffers.contains(reply.as<accelmm_backing>().handle)) return refuse(reply, EINVAL);
        return answer_backing(reply.as<accelmm_backing>());
      case ACCELMM_IOCTL_SHORTAGE:
        return answer_shortage(reply.as<accelmm_shortage>());
      case ACCELMM_IOCTL_DEFRAGMENT:
        reply.as<accelmm_defragment>().moves = 2;
        reply.as<accelmm_defragment>().moved = reply.as<accelmm_defragment>().budget / 2;
        return;
      default:
        if (driver) return driver(reply, fds);
        refuse(reply, ENOTTY);
    }
  }

  static void answer_hello(accelmm_hello& hello) {
    hello.node = ACCELMM_NODE_COMPUTE;
    hello.device = 3;
    hello.session = 17;
  }

  void answer_info(Reply& reply) {
    auto& info = reply.as<accelmm_info>();
    if (info.topic == ACCELMM_INFO_DEVICE) {
      device.number = 3;
      info.size = sizeof(device);
      std::memcpy(info.data, &device, sizeof(device));
      return;
    }
    const auto topic = topics.find(info.topic);
    if (topic == topics.end()) return refuse(reply, EINVAL);
    info.size = static_cast<std::uint32_t>(topic->second.size());
    std::memcpy(info.data, topic->second.data(),
                std::min<std::size_t>(topic->second.size(), ACCELMM_INFO_DATA_SIZE));
  }

  std::uint64_t add_buffer(std::uint64_t size) {
    UniqueFd fd(::memfd_create("fake", MFD_CLOEXEC));
    ACCELMM_CHECK(::ftruncate(fd.get(), static_cast<off_t>(fd_offset + size)) == 0);
    buffers[++next_handle_] = std::move(fd);
    return next_handle_;
  }

  [[nodiscard]] UniqueFd duplicate(std::uint64_t handle) const {
    const auto found = buffers.find(handle);
    if (found == buffers.end()) return UniqueFd();
    return UniqueFd(::fcntl(found->second.get(), F_DUPFD_CLOEXEC, 0));
  }

  void answer_alloc(accelmm_alloc& args) {
    args.size = (args.size + page - 1) / page * page;
    args.handle = add_buffer(args.size);
  }

  static void answer_backing(accelmm_backing& args) {
    args.pages = ACCELMM_PAGES_TRANSPARENT;
    args.prefault = ACCELMM_PREFAULT_RUNNING;
    args.page_size = 0x200000;
    args.populated = 3 * page;
    args.prefaulted = 2 * page;
    args.locked = page;
    args.nodes = 5;
    args.samples = 9;
    args.samples_present = 8;
    args.samples_huge = 7;
    args.refused_pages = -EPERM;
    args.refused_lock = -EDQUOT;
    args.refused_sample = -ENOTTY;
  }

  static void answer_shortage(accelmm_shortage& args) {
    args.owner_count = 2;
    args.other_owners = 3;
    args.memory_failures = 4;
    args.quota_failures = 5;
    args.failed_session = 17;
    args.failed_uid = 1000;
    args.failed_status = -EDQUOT;
    args.native_page = page;
    args.total = 100 * page;
    args.free = 60 * page;
    args.largest_free = 6 * page;
    args.free_in_runs[0] = 60 * page;
    args.free_in_runs[1] = 30 * page;
    args.owners[0] = {17, 1000, 30 * page, 31 * page, 29 * page, 0, 7, 0, 0};
    args.owners[1] = {16, 0, 10 * page, 10 * page, 10 * page, 0, 1, 1, 0};
  }

  void answer_map_cpu(Reply& reply) {
    auto& args = reply.as<accelmm_map_cpu>();
    UniqueFd fd = duplicate(args.handle);
    if (!fd.valid()) return refuse(reply, EINVAL);
    args.fd_offset = fd_offset + args.offset;
    reply.fds.push_back(std::move(fd));
  }

  void answer_export(Reply& reply) {
    auto& args = reply.as<accelmm_export>();
    UniqueFd fd = duplicate(args.handle);
    if (!fd.valid()) return refuse(reply, EINVAL);
    args.count = 1;
    args.pieces[0] = {.fd = 0, .reserved = 0, .offset = args.offset, .length = args.length};
    reply.fds.push_back(std::move(fd));
  }

  void answer_import(accelmm_import& args, std::span<const FdView> fds) {
    ACCELMM_CHECK(args.count == fds.size());
    for (std::size_t i = 0; i < args.count; ++i) {
      ACCELMM_CHECK(args.pieces[i].fd == i);
      args.size += args.pieces[i].length;
    }
    args.access = ACCELMM_ACCESS_READ;
    args.handle = ++next_handle_;
    buffers[next_handle_] = UniqueFd(::fcntl(fds[0].get(), F_DUPFD_CLOEXEC, 0));
  }

  // A blocking end: making it non-blocking is the receiver's affair.
  void answer_events(Reply& reply) {
    int ends[2];
    ACCELMM_CHECK(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0);
    event_writer_ = UniqueFd(ends[0]);
    reply.fds.emplace_back(ends[1]);
  }

  std::mutex mutex_;
  std::function<void(Reply&)> change_;
  std::uint32_t tampered_command_ = 0;
  std::uint32_t refused_command_ = 0;
  int refusal_ = 0;
  std::uint32_t sequence_ = 100;
  std::uint64_t next_handle_ = 0x1000;
  std::uint64_t next_address_ = 0;
  std::uint64_t point_ = 0;
  UniqueFd event_writer_;
  bool dead_ = false;
};

/// The application's end of a FakeDriver.
class FakeChannel final : public Channel {
 public:
  explicit FakeChannel(std::shared_ptr<FakeDriver> driver) : driver_(std::move(driver)) {}
  [[nodiscard]] Result<std::size_t> call(std::span<std::byte> request, std::span<const FdView> fds,
                                         std::span<std::byte> reply,
                                         std::vector<UniqueFd>& reply_fds) override {
    return driver_->call(request, fds, reply, reply_fds);
  }

 private:
  std::shared_ptr<FakeDriver> driver_;
};

}  // namespace accelmm::test
