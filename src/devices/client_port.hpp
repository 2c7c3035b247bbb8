// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/driver.hpp>
#include <accelmm/node.hpp>
#include <accelmm/transport.hpp>
#include <accelmm/uapi.h>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <vector>

namespace accelmm::devices {

class ComputeSession;
class ControlSession;
class HostedDevice;

/// One connection to a node: greets, keeps the order of calls, answers them, and ends the session
/// with the connection.
///
/// Threads   the loop's.
/// Lifetime  held by its device until the connection has ended and the session's resources are
/// given back.
class ClientPort final : public ConnectionEvents, public std::enable_shared_from_this<ClientPort> {
 public:
  ClientPort(HostedDevice& device, NodeKind kind, std::unique_ptr<Connection> connection);
  ~ClientPort() override;

  /// Gives the peer a second to say HELLO.
  void await_hello();
  void on_message(std::span<const std::byte> bytes, std::vector<UniqueFd> fds) override;
  void on_lost_fds(std::span<const std::byte> bytes) override;
  void on_end() override { end(); }

  /// The device made a session for this port, and is opening it.
  void adopt(std::unique_ptr<ComputeSession> session);
  /// The session has ended and is destroyed.
  void release_session();
  /// Opening the session has ended: the greeting can be answered.
  void opened(Result<void> result);
  /// Ends the connection from this side.
  void hang_up();
  /// Whether it has a session that is at rest, and no call is being answered or waits.
  [[nodiscard]] bool is_resting() const;
  /// Lets calls wait, and the session's end too, until release_hold(). Pre: is_resting().
  void hold();
  void release_hold();
  /// Ends every WAIT of its session with `code`.
  void abandon_waits(Errc code);

  [[nodiscard]] NodeKind kind() const { return kind_; }
  [[nodiscard]] ComputeSession* session() { return session_.get(); }
  [[nodiscard]] Peer peer() const { return peer_; }
  /// Whether the peer is gone, noticed or not.
  [[nodiscard]] bool is_ending() const;
  /// Whether its end was noticed: it must not be given a session any more.
  [[nodiscard]] bool has_ended() const { return state_ == State::ended; }
  /// Whether it holds or opens a session.
  [[nodiscard]] bool is_greeted() const { return state_ != State::greeting; }

 private:
  struct Packet {
    std::vector<std::byte> bytes;
    std::vector<UniqueFd> fds;
  };
  struct ActiveCall;

  void receive(std::span<const std::byte> bytes, std::vector<UniqueFd> fds);
  void enqueue(std::span<const std::byte> bytes, std::vector<UniqueFd> fds);
  void pump();
  void greet(const accelmm_message_header& header, std::span<const std::byte> payload);
  void answer(const accelmm_message_header& header, std::span<const std::byte> payload,
              std::vector<UniqueFd> fds);
  [[nodiscard]] Result<void> answer_info(const accelmm_message_header& header,
                                         std::span<const std::byte> payload);
  /// Pre: there is one.
  [[nodiscard]] Session& node_session() const;
  [[nodiscard]] const IoctlTable::Entry* find(std::uint32_t command) const;
  void call(const std::shared_ptr<ActiveCall>& active, const IoctlTable::Entry& entry);
  void finish(ActiveCall& active, Result<void> result);
  void reply(const accelmm_message_header& request, Result<void> result,
             std::span<const std::byte> args, std::size_t size, std::span<const UniqueFd> fds);
  void end();
  void advance_end();
  void be_forgotten();

  HostedDevice& device_;
  NodeKind kind_;
  std::unique_ptr<Connection> connection_;
  Peer peer_;
  enum class State : std::uint8_t { greeting, opening, open, ended } state_ = State::greeting;
  enum class Ending : std::uint8_t { no, stopping, stopped, closing } ending_ = Ending::no;
  accelmm_message_header hello_{};
  Transport::TimerId hello_timer_ = 0;
  std::unique_ptr<ComputeSession> session_;  // compute nodes
  std::unique_ptr<ControlSession> control_;  // control nodes
  std::deque<Packet> queue_;
  std::vector<std::byte> reply_buffer_;
  std::size_t active_calls_ = 0;
  bool opening_session_ = false;
  bool busy_ = false;     // an in-order call is being answered
  bool pumping_ = false;  // pump() is on the stack
  bool paused_ = false;
};

}  // namespace accelmm::devices
