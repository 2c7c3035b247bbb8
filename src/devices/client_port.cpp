// SPDX-License-Identifier: Apache-2.0
#include "devices/client_port.hpp"

#include "base/clock.hpp"
#include "devices/compute_session.hpp"
#include "devices/control_session.hpp"
#include "devices/hosted_device.hpp"
#include "devices/in_loop.hpp"
#include "devices/ioctl_args.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <new>
#include <optional>
#include <utility>

namespace accelmm::devices {
namespace {

// A peer that connects and says nothing holds a descriptor of ours: it gets as long as a slow start
// may take.
constexpr std::uint64_t hello_timeout_ns = 1'000'000'000;

// Packets of one session that wait behind a call; more stay in the peer's socket.
constexpr std::size_t queue_limit = 16;

// Without a number, descriptors were sent and lost: it says how many.
std::optional<accelmm_message_header> parse_header(std::span<const std::byte> bytes,
                                                   std::optional<std::size_t> fds) {
  accelmm_message_header header;
  if (bytes.size() < sizeof header) return std::nullopt;
  std::memcpy(&header, bytes.data(), sizeof header);
  const bool well_formed = header.magic == ACCELMM_MAGIC && header.status == 0 &&
                           header.size == bytes.size() - sizeof header &&
                           (fds ? header.fd_count == *fds : header.fd_count > 0);
  if (!well_formed) return std::nullopt;
  return header;
}

}  // namespace

struct ClientPort::ActiveCall {
  ActiveCall(const accelmm_message_header& request, Session& session)
      : header(request), call{session, {}, {}, {}} {}
  accelmm_message_header header;
  IoctlTable::Order order = IoctlTable::Order::in_order;
  std::size_t sent_size = 0;
  std::vector<std::byte> args;
  IoctlCall call;
  // A handler that ends its call before it returns is answered after it returned, so that running
  // out of memory half way is one answer: ENOMEM.
  enum class Stage : std::uint8_t { in_handler, pending, ended } stage = Stage::in_handler;
  Result<void> result;
};

ClientPort::ClientPort(HostedDevice& device, NodeKind kind, std::unique_ptr<Connection> connection)
    : device_(device), kind_(kind), connection_(std::move(connection)), peer_(connection_->peer()) {
  reply_buffer_.resize(sizeof(accelmm_message_header) + max_ioctl_size);
}

ClientPort::~ClientPort() = default;

void ClientPort::await_hello() {
  hello_timer_ =
      device_.transport().call_at(monotonic_ns() + hello_timeout_ns, [held = weak_from_this()] {
        if (const auto self = held.lock(); self && self->state_ == State::greeting) self->hang_up();
      });
}

bool ClientPort::is_ending() const {
  return state_ == State::ended || (connection_ != nullptr && connection_->hung_up());
}

void ClientPort::on_message(std::span<const std::byte> bytes, std::vector<UniqueFd> fds) {
  const auto keep = shared_from_this();
  try {
    receive(bytes, std::move(fds));
  } catch (const std::bad_alloc&) {
    hang_up();  // no memory even to say so
  }
}

// One call's misfortune, not its session's: others that wait before it are answered as ever.
void ClientPort::on_lost_fds(std::span<const std::byte> bytes) {
  const auto keep = shared_from_this();
  const auto header = parse_header(bytes, std::nullopt);
  if (!header || state_ != State::open || header->kind != ACCELMM_MESSAGE_IOCTL) return hang_up();
  reply(*header, fail(Errc::too_many_files, "no room for the descriptors of the call"), {}, 0, {});
}

void ClientPort::receive(std::span<const std::byte> bytes, std::vector<UniqueFd> fds) {
  const auto header = parse_header(bytes, fds.size());
  if (!header) return hang_up();
  const auto payload = bytes.subspan(sizeof *header);
  switch (state_) {
    case State::greeting:
      if (header->kind != ACCELMM_MESSAGE_HELLO) return hang_up();
      return greet(*header, payload);
    case State::open:
      if (header->kind != ACCELMM_MESSAGE_IOCTL) return hang_up();
      if (busy_ || !queue_.empty()) return enqueue(bytes, std::move(fds));
      return answer(*header, payload, std::move(fds));
    case State::opening:  // spoke before it was answered
    case State::ended:
      return hang_up();
  }
}

void ClientPort::enqueue(std::span<const std::byte> bytes, std::vector<UniqueFd> fds) {
  queue_.push_back({{bytes.begin(), bytes.end()}, std::move(fds)});
  if (queue_.size() < queue_limit || paused_) return;
  connection_->pause();
  paused_ = true;
}

void ClientPort::pump() {
  if (pumping_) return;
  pumping_ = true;
  while (state_ == State::open && !busy_ && !queue_.empty()) {
    Packet packet = std::move(queue_.front());
    queue_.pop_front();
    const auto header = parse_header(packet.bytes, packet.fds.size());
    ACCELMM_CHECK(header.has_value());  // it was well-formed when it was queued
    answer(*header, std::span<const std::byte>(packet.bytes).subspan(sizeof *header),
           std::move(packet.fds));
  }
  pumping_ = false;
  if (!paused_ || state_ != State::open || queue_.size() >= queue_limit) return;
  paused_ = false;
  connection_->resume();
}

void ClientPort::greet(const accelmm_message_header& header, std::span<const std::byte> payload) {
  device_.transport().cancel_timer(hello_timer_);
  accelmm_hello hello{};
  hello_ = header;
  state_ = State::opening;
  // A longer HELLO comes from a newer minor version, whose additions we do not know.
  std::memcpy(&hello, payload.data(), std::min(payload.size(), sizeof hello));
  if (payload.size() < sizeof hello || hello.major != ACCELMM_PROTOCOL_MAJOR)
    return opened(fail(Errc::protocol_error, "application speaks another protocol version"));
  if (device_.removed()) return opened(fail(Errc::no_device, "device was removed"));
  if (kind_ == NodeKind::control) {
    control_ = std::make_unique<ControlSession>(device_, peer_);
    return opened({});
  }
  device_.open_session(shared_from_this());
}

void ClientPort::adopt(std::unique_ptr<ComputeSession> session) {
  session_ = std::move(session);
  opening_session_ = true;
}

void ClientPort::release_session() {
  session_.reset();
}

void ClientPort::opened(Result<void> result) {
  opening_session_ = false;
  if (state_ == State::ended) return advance_end();
  const accelmm_hello hello{.major = ACCELMM_PROTOCOL_MAJOR,
                            .minor = ACCELMM_PROTOCOL_MINOR,
                            .node = kind_ == NodeKind::compute
                                        ? static_cast<__u32>(ACCELMM_NODE_COMPUTE)
                                        : static_cast<__u32>(ACCELMM_NODE_CONTROL),
                            .features = 0,
                            .device = device_.device().number(),
                            .max_message = ACCELMM_MAX_MESSAGE,
                            .max_fds = ACCELMM_MAX_FDS,
                            .reserved = 0,
                            .session = result ? node_session().id() : 0};
  reply(hello_, result, std::as_bytes(std::span(&hello, 1)), sizeof hello, {});
  if (!result) return hang_up();
  state_ = State::open;
  device_.counters().sessions += 1;
}

Session& ClientPort::node_session() const {
  return control_ ? control_->session() : session_->session();
}

const IoctlTable::Entry* ClientPort::find(std::uint32_t command) const {
  if (_IOC_TYPE(command) != ACCELMM_IOCTL_TYPE) return nullptr;
  if (control_) return find_ioctl(control_->ioctls(), command);
  if (session_ == nullptr) return nullptr;
  if (const auto* entry = find_ioctl(session_->ioctls(), command)) return entry;
  return find_ioctl(device_.driver_ioctls(), command);
}

void ClientPort::answer(const accelmm_message_header& header, std::span<const std::byte> payload,
                        std::vector<UniqueFd> fds) {
  const auto refuse = [&](Errc code, const char* what) {
    reply(header, fail(code, what), {}, 0, {});
  };
  if (device_.removed()) return refuse(Errc::no_device, "device was removed");
  if (is_ioctl(header.command, ACCELMM_IOCTL_INFO)) {
    if (const auto result = answer_info(header, payload); !result)
      refuse(result.error().code, result.error().what);
    return;
  }
  const IoctlTable::Entry* entry = find(header.command);
  if (entry == nullptr) return refuse(Errc::unknown_ioctl, "this node has no such ioctl");
  try {
    auto active = std::make_shared<ActiveCall>(header, node_session());
    active->order = entry->order;
    active->sent_size = payload.size();
    active->args.resize(args_size(*entry));
    active->call.args = active->args;
    active->call.fds = std::move(fds);
    if (const auto taken = take_args(*entry, header.command, payload, active->args); !taken)
      return refuse(taken.error().code, taken.error().what);
    call(active, *entry);
  } catch (const std::bad_alloc&) {
    refuse(Errc::no_memory, "no memory for the call");
  }
}

Result<void> ClientPort::answer_info(const accelmm_message_header& header,
                                     std::span<const std::byte> payload) {
  static const IoctlTable::Entry entry{
      ACCELMM_IOCTL_INFO, {}, IoctlTable::Order::in_order, nullptr};
  accelmm_info info;
  const auto bytes = std::as_writable_bytes(std::span(&info, 1));
  if (const auto taken = take_args(entry, header.command, payload, bytes); !taken) return taken;
  device_.counters().ioctls += 1;
  if (const auto told = device_.info(kind_, session_.get(), info); !told) return told;
  reply(header, {}, bytes, payload.size(), {});
  return {};
}

void ClientPort::call(const std::shared_ptr<ActiveCall>& active, const IoctlTable::Entry& entry) {
  Completion done =
      in_loop(device_.transport(), [self = shared_from_this(), active](Result<void> result) {
        active->result = result;
        if (std::exchange(active->stage, ActiveCall::Stage::ended) == ActiveCall::Stage::pending)
          self->finish(*active, result);
      });
  ++active_calls_;
  if (active->order == IoctlTable::Order::in_order) busy_ = true;
  device_.counters().ioctls += 1;
  try {
    entry.handler(active->call, std::move(done));
  } catch (const std::bad_alloc&) {
    active->stage = ActiveCall::Stage::ended;
    active->result = fail(Errc::no_memory, "no memory for the call");
  }
  if (active->stage == ActiveCall::Stage::ended) return finish(*active, active->result);
  active->stage = ActiveCall::Stage::pending;
}

void ClientPort::finish(ActiveCall& active, Result<void> result) {
  --active_calls_;
  if (active.order == IoctlTable::Order::in_order) busy_ = false;
  reply(active.header, result, active.args, active.sent_size, active.call.reply_fds);
  active.call.fds.clear();
  active.call.reply_fds.clear();
  if (state_ == State::ended)
    advance_end();
  else
    pump();
}

void ClientPort::reply(const accelmm_message_header& request, Result<void> result,
                       std::span<const std::byte> args, std::size_t size,
                       std::span<const UniqueFd> fds) {
  if (connection_ == nullptr) return;
  accelmm_message_header header = request;
  header.status = result ? 0 : -static_cast<std::int32_t>(result.error().code);
  header.size = result ? static_cast<std::uint32_t>(size) : 0;
  header.fd_count = result ? static_cast<std::uint16_t>(fds.size()) : 0;
  ACCELMM_CHECK(fds.size() <= ACCELMM_MAX_FDS);
  std::memcpy(reply_buffer_.data(), &header, sizeof header);
  // The caller gets back what it sent: as much of our struct as it knows, and zeros where it knows
  // more than we.
  const auto payload = std::span(reply_buffer_).subspan(sizeof header, header.size);
  const auto known = args.first(std::min<std::size_t>(args.size(), payload.size()));
  std::ranges::fill(std::ranges::copy(known, payload.begin()).out, payload.end(), std::byte{0});
  std::array<FdView, ACCELMM_MAX_FDS> views;
  std::ranges::transform(fds.first(header.fd_count), views.begin(), &UniqueFd::view);
  connection_->send(std::span<const std::byte>(reply_buffer_).first(sizeof header + header.size),
                    std::span<const FdView>(views).first(header.fd_count));
}

void ClientPort::hang_up() {
  connection_.reset();
  end();
}

bool ClientPort::is_resting() const {
  return state_ == State::open && session_ != nullptr && active_calls_ == 0 && !busy_ &&
         queue_.empty() && session_->is_resting();
}

// As if a call were being answered.
void ClientPort::hold() {
  ACCELMM_CHECK(is_resting());
  ++active_calls_;
  busy_ = true;
}

void ClientPort::release_hold() {
  const auto self = shared_from_this();
  --active_calls_;
  busy_ = false;
  if (state_ == State::ended)
    advance_end();
  else
    pump();
}

void ClientPort::abandon_waits(Errc code) {
  if (session_) session_->abandon_waits(code);
  if (control_) control_->abandon_waits(code);
}

void ClientPort::end() {
  if (state_ == State::ended) return;
  if (state_ == State::greeting) device_.transport().cancel_timer(hello_timer_);
  state_ = State::ended;
  connection_.reset();
  queue_.clear();
  advance_end();
}

// The session ends step by step: its waits, its work, its calls, and then what it holds.
void ClientPort::advance_end() {
  if (opening_session_) return;  // opened() comes back here
  const auto self = shared_from_this();
  if (session_ == nullptr) {
    abandon_waits(Errc::no_device);
    if (active_calls_ > 0) return;  // finish() comes back here
    if (std::exchange(ending_, Ending::closing) != Ending::closing) be_forgotten();
    return;
  }
  if (ending_ == Ending::no) {
    ending_ = Ending::stopping;
    abandon_waits(Errc::no_device);
    session_->stop(Completion([self](Result<void>) {
      self->ending_ = Ending::stopped;
      self->advance_end();
    }));
    return;
  }
  if (ending_ != Ending::stopped || active_calls_ > 0) return;
  ending_ = Ending::closing;
  session_->close(Completion([self](Result<void>) { self->be_forgotten(); }));
}

// Later, when none of the session's functions is on the stack.
void ClientPort::be_forgotten() {
  until_memory([this] {
    device_.transport().post([self = shared_from_this()] { self->device_.forget(self); });
  });
}

}  // namespace accelmm::devices
