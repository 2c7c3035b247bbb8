// SPDX-License-Identifier: Apache-2.0
// The theory of the client: a session is one ClientLink, and everything an application holds of the
// session shares it. Every request goes through exchange(), which believes nothing of the reply but
// its bytes: header, size and number of descriptors are compared with what was asked before the
// payload is copied out, and what the payload says is checked by the call that knows its struct
// (buffer_calls, info_calls). A call that fails has changed nothing and has closed what came.
#include "client/link.hpp"

#include "base/socket_channel.hpp"

#include <accelmm/client.hpp>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <new>
#include <utility>

namespace accelmm {

namespace {

// Room for a header and the largest common struct, accelmm_info (24 + 480 bytes), twice on the
// stack: requests that fit allocate nothing.
constexpr std::size_t small_packet = 512;
static_assert(sizeof(accelmm_message_header) + sizeof(accelmm_info) <= small_packet);

// Largest errno that a system call can give (MAX_ERRNO of include/linux/err.h).
constexpr std::int32_t max_errno = 4095;

// What a driver process must take in one message at least: the common ioctls.
constexpr std::uint32_t min_max_message = sizeof(accelmm_message_header) + sizeof(accelmm_info);

// Compares the header of a reply with the request. `reply` is what came, header included.
Result<accelmm_message_header> check_header(const accelmm_message_header& sent,
                                            std::span<const std::byte> reply,
                                            std::size_t fd_count) {
  accelmm_message_header header;
  if (reply.size() < sizeof(header)) return fail(Errc::protocol_error, "reply without a header");
  std::memcpy(&header, reply.data(), sizeof(header));
  if (header.magic != ACCELMM_MAGIC) return fail(Errc::protocol_error, "reply of something else");
  if (header.kind != sent.kind || header.sequence != sent.sequence ||
      header.command != sent.command)
    return fail(Errc::protocol_error, "reply to another request");
  if (header.size != reply.size() - sizeof(header))
    return fail(Errc::protocol_error, "reply lies about its size");
  if (header.fd_count != fd_count)
    return fail(Errc::protocol_error, "reply lies about its descriptors");
  if (header.status > 0 || header.status < -max_errno)
    return fail(Errc::protocol_error, "status of a reply is no errno");
  return header;
}

Result<ClientLink::Facts> check_hello(const accelmm_hello& hello) {
  if (hello.major != ACCELMM_PROTOCOL_MAJOR || hello.minor > ACCELMM_PROTOCOL_MINOR)
    return fail(Errc::protocol_error, "driver process speaks another version of the protocol");
  if (hello.features != 0 || hello.reserved != 0)
    return fail(Errc::protocol_error, "driver process chose features that were not offered");
  if (hello.node != ACCELMM_NODE_COMPUTE && hello.node != ACCELMM_NODE_CONTROL)
    return fail(Errc::protocol_error, "node of an unknown kind");
  if (hello.device >= max_devices) return fail(Errc::protocol_error, "device number is too large");
  if (hello.max_message < min_max_message)
    return fail(Errc::protocol_error, "driver process takes too short messages");
  return ClientLink::Facts{
      .session = hello.session,
      .device = hello.device,
      .node = hello.node == ACCELMM_NODE_COMPUTE ? NodeKind::compute : NodeKind::control,
      .max_message = std::min<std::uint32_t>(hello.max_message, ACCELMM_MAX_MESSAGE),
      .max_fds = std::min<std::uint32_t>(hello.max_fds, ACCELMM_MAX_FDS)};
}

}  // namespace

Result<std::shared_ptr<ClientLink>> ClientLink::connect(const std::string& path) {
  auto channel = SocketChannel::connect(path);
  if (channel) return create(std::move(*channel));
  return fail(channel.error());
}

Result<std::shared_ptr<ClientLink>> ClientLink::connect(std::uint32_t device, NodeKind kind,
                                                        const std::string& directory) try {
  if (device >= max_devices) return fail(Errc::no_device, "numbers of devices are below 256");
  const std::string& where = directory.empty() ? default_runtime_directory() : directory;
  auto link = connect(node_path(where, device, kind));
  if (!link) return link;
  if ((*link)->facts().device != device || (*link)->facts().node != kind)
    return fail(Errc::protocol_error, "another node than the one named answered");
  return link;
} catch (const std::bad_alloc&) {
  return fail(Errc::no_memory, "no memory for the path of a node");
}

Result<std::shared_ptr<ClientLink>> ClientLink::create(std::unique_ptr<Channel> channel) try {
  if (channel == nullptr) return fail(Errc::invalid_argument, "no channel");
  std::shared_ptr<ClientLink> link(new ClientLink(std::move(channel)));
  if (const auto greeted = link->greet(); !greeted) return fail(greeted.error());
  return link;
} catch (const std::bad_alloc&) {
  return fail(Errc::no_memory, "no memory for a session");
}

Result<void> ClientLink::greet() {
  accelmm_hello hello = {};
  hello.major = ACCELMM_PROTOCOL_MAJOR;
  hello.minor = ACCELMM_PROTOCOL_MINOR;
  hello.max_message = ACCELMM_MAX_MESSAGE;
  hello.max_fds = ACCELMM_MAX_FDS;
  facts_.max_message = ACCELMM_MAX_MESSAGE;
  std::vector<UniqueFd> fds;
  const auto bytes = std::as_writable_bytes(std::span(&hello, 1));
  const Outgoing outgoing{.kind = ACCELMM_MESSAGE_HELLO, .command = 0, .fds = {}};
  if (const auto answered = exchange(outgoing, bytes, fds); !answered) return answered;
  if (!fds.empty()) return fail(Errc::protocol_error, "descriptors came with HELLO");
  const auto facts = check_hello(hello);
  if (!facts) return fail(facts.error());
  facts_ = *facts;
  return {};
}

Result<void> ClientLink::ioctl(std::uint32_t command, std::span<std::byte> args,
                               std::span<const FdView> fds, std::vector<UniqueFd>& reply_fds) {
  if (args.size() != _IOC_SIZE(command))
    return fail(Errc::invalid_argument, "the ioctl's number is for a struct of another size");
  return exchange({.kind = ACCELMM_MESSAGE_IOCTL, .command = command, .fds = fds}, args, reply_fds);
}

Result<void> ClientLink::exchange(const Outgoing& outgoing, std::span<std::byte> payload,
                                  std::vector<UniqueFd>& reply_fds) try {
  if (outgoing.fds.size() > facts_.max_fds)
    return fail(Errc::invalid_argument, "more descriptors than one message takes");
  for (const FdView fd : outgoing.fds)
    if (!fd.valid()) return fail_errno(EBADF, "an empty descriptor was passed");
  const std::size_t packet = sizeof(accelmm_message_header) + payload.size();
  if (packet > facts_.max_message)
    return fail(Errc::invalid_argument, "larger than the driver process takes");
  if (packet <= small_packet) {
    std::array<std::byte, small_packet> request;
    std::array<std::byte, small_packet> reply;
    return exchange_in(outgoing, payload, std::span(request).first(packet),
                       std::span(reply).first(packet), reply_fds);
  }
  std::vector<std::byte> both(2 * packet);
  return exchange_in(outgoing, payload, std::span(both).first(packet),
                     std::span(both).subspan(packet), reply_fds);
} catch (const std::bad_alloc&) {
  return fail(Errc::no_memory, "no memory for a message");
}

Result<void> ClientLink::exchange_in(const Outgoing& outgoing, std::span<std::byte> payload,
                                     std::span<std::byte> request, std::span<std::byte> reply,
                                     std::vector<UniqueFd>& reply_fds) {
  accelmm_message_header sent = {.magic = ACCELMM_MAGIC,
                                 .kind = outgoing.kind,
                                 .fd_count = static_cast<std::uint16_t>(outgoing.fds.size()),
                                 .sequence = 0,
                                 .command = outgoing.command,
                                 .status = 0,
                                 .size = static_cast<std::uint32_t>(payload.size())};
  std::memcpy(request.data(), &sent, sizeof(sent));
  if (!payload.empty()) std::memcpy(request.data() + sizeof(sent), payload.data(), payload.size());
  std::vector<UniqueFd> received;
  const auto size = channel_->call(request, outgoing.fds, reply, received);
  if (!size) return fail(size.error());
  if (*size > reply.size()) return fail(Errc::protocol_error, "reply longer than its room");
  std::memcpy(&sent, request.data(), sizeof(sent));  // the channel chose the sequence number
  const auto header = check_header(sent, reply.first(*size), received.size());
  if (!header) return fail(header.error());
  if (header->status != 0) {
    const auto code = static_cast<Errc>(-header->status);
    return fail(code, error_text(code));
  }
  if (header->size != payload.size())
    return fail(Errc::protocol_error, "reply of another size than its request");
  const bool replied =
      outgoing.kind == ACCELMM_MESSAGE_HELLO || (_IOC_DIR(outgoing.command) & _IOC_READ) != 0;
  if (replied && !payload.empty())
    std::memcpy(payload.data(), reply.data() + sizeof(sent), payload.size());
  reply_fds = std::move(received);
  return {};
}

Result<const EventReader*> ClientLink::events() {
  if (maker_.in_forked_child()) return fail(Errc::no_device, "events were asked for after fork");
  const MutexLock lock(events_mutex_);
  if (events_.has_value()) return &*events_;
  accelmm_events args = {};
  auto fds = ioctl_with_fds(ACCELMM_IOCTL_EVENTS, args);
  if (!fds) return fail(fds.error());
  if (fds->size() != 1 || args.fd != 0)
    return fail(Errc::protocol_error, "EVENTS gives exactly one descriptor");
  auto reader = EventReader::create(std::move(fds->front()));
  if (!reader) return fail(reader.error());
  events_ = std::move(*reader);
  return &*events_;
}

Result<FdView> ClientLink::event_fd() {
  const auto reader = events();
  if (!reader) return fail(reader.error());
  return (*reader)->fd();
}

Result<std::optional<accelmm_event>> ClientLink::read_event() {
  const auto reader = events();
  if (!reader) return fail(reader.error());
  accelmm_event event = {};
  const auto size = (*reader)->read(std::as_writable_bytes(std::span(&event, 1)));
  if (!size) {
    if (size.error().code == Errc::try_again) return std::nullopt;
    return fail(size.error());
  }
  if (*size == 0) return fail(Errc::no_device, "no event is left and none will come");
  if (*size != sizeof(event)) return fail(Errc::protocol_error, "event of another size");
  if (const auto point = point_from_wire(event.point); !point) return fail(point.error());
  if (event.status > 0 || event.status < -max_errno)
    return fail(Errc::protocol_error, "status of an event is no errno");
  return event;
}

Result<Point> point_from_wire(const accelmm_point& point) {
  if (point.reserved != 0) return fail(Errc::protocol_error, "point with a reserved field set");
  switch (point.timeline) {
    case ACCELMM_TIMELINE_ADDRESS_SPACE:
      return Point{.timeline = TimelineKind::address_space, .value = point.value};
    case ACCELMM_TIMELINE_JOBS:
      return Point{.timeline = TimelineKind::jobs, .value = point.value};
    case ACCELMM_TIMELINE_PRESSURE:
      return Point{.timeline = TimelineKind::pressure, .value = point.value};
    default:
      return fail(Errc::protocol_error, "point on an unknown timeline");
  }
}

accelmm_point point_to_wire(Point point) noexcept {
  return {
      .timeline = static_cast<std::uint32_t>(point.timeline), .reserved = 0, .value = point.value};
}

Result<void> wait_for(ClientLink& link, Point point, std::uint64_t deadline_ns) {
  accelmm_wait args = {.point = point_to_wire(point), .deadline_ns = deadline_ns};
  return link.ioctl_alone(ACCELMM_IOCTL_WAIT, args);
}

Result<void> watch(ClientLink& link, Point point) {
  accelmm_watch args = {.point = point_to_wire(point)};
  return link.ioctl_alone(ACCELMM_IOCTL_WATCH, args);
}

}  // namespace accelmm
