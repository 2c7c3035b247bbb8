// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "devices/device_host.hpp"
#include "support/inline_transport.hpp"
#include "support/plain_driver.hpp"

#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace accelmm::test {

/// One device of PlainDriver, reached by packets in the test's own thread: nothing happens but what
/// the test does.
class PlainHost {
 public:
  explicit PlainHost(DeviceDescription description = plain_description(),
                     const devices::HostMemory& memory = {}, devices::Log log = {}) {
    auto region =
        devices::Region::create({.domain = devices::Domain::host, .size = 64_MiB, .host = memory});
    if (!region) std::abort();
    host.emplace(transport, std::move(*region), std::string(), std::move(log));
    auto made = std::make_unique<PlainDriver>();
    made->has_mmu = description.mmu.has_value();
    driver = made.get();
    host->register_device(std::move(description), std::move(made),
                          [](Result<std::uint32_t> number) {
                            if (!number) std::abort();
                          });
  }
  ~PlainHost() {
    host->shut_down(Completion([](Result<void>) {}));
    transport.drain();
  }
  PlainHost(const PlainHost&) = delete;
  PlainHost& operator=(const PlainHost&) = delete;

  [[nodiscard]] devices::HostedDevice& device() { return *host->find(0); }

  InlineTransport transport;
  std::optional<devices::DeviceHost> host;
  PlainDriver* driver = nullptr;
};

/// The application's end of a connection to a PlainHost, packet by packet.
class RawClient {
 public:
  explicit RawClient(PlainHost& host, NodeKind kind = NodeKind::compute,
                     const Peer& peer = own_peer())
      : host_(host) {
    log_->peer = peer;
    events_ = host.host->connect(0, kind, std::make_unique<KeptConnection>(log_));
  }
  RawClient(const RawClient&) = delete;
  RawClient& operator=(const RawClient&) = delete;
  ~RawClient() {
    if (log_->open) events_->on_end();
    host_.transport.drain();
  }

  /// Delivers bytes as a packet, whatever they are.
  void deliver(std::span<const std::byte> bytes, std::vector<UniqueFd> fds = {}) {
    if (log_->open) events_->on_message(bytes, std::move(fds));
    host_.transport.drain();
  }
  /// Delivers a packet whose header says `fds` descriptors, of which the kernel kept some back.
  void deliver_without_fds(accelmm_message_header header, std::span<const std::byte> payload) {
    header.sequence = ++sequence_;
    std::vector<std::byte> packet(sizeof header + payload.size());
    std::memcpy(packet.data(), &header, sizeof header);
    std::ranges::copy(payload, packet.begin() + sizeof header);
    if (log_->open) events_->on_lost_fds(packet);
    host_.transport.drain();
  }
  void say_hello() {
    accelmm_hello hello{};
    hello.major = ACCELMM_PROTOCOL_MAJOR;
    send(ACCELMM_MESSAGE_HELLO, 0, std::as_bytes(std::span(&hello, 1)));
  }
  void send(std::uint16_t kind, std::uint32_t command, std::span<const std::byte> payload,
            std::vector<UniqueFd> fds = {}) {
    const accelmm_message_header header{.magic = ACCELMM_MAGIC,
                                        .kind = kind,
                                        .fd_count = static_cast<__u16>(fds.size()),
                                        .sequence = ++sequence_,
                                        .command = command,
                                        .status = 0,
                                        .size = static_cast<__u32>(payload.size())};
    std::vector<std::byte> packet(sizeof header + payload.size());
    std::memcpy(packet.data(), &header, sizeof header);
    std::ranges::copy(payload, packet.begin() + sizeof header);
    deliver(packet, std::move(fds));
  }
  /// Makes a call and returns its status, with the reply's payload in `reply`.
  std::int32_t call(std::uint32_t command, std::span<const std::byte> args,
                    KeptConnection::Packet* reply = nullptr, std::vector<UniqueFd> fds = {}) {
    log_->sent.clear();
    send(ACCELMM_MESSAGE_IOCTL, command, args, std::move(fds));
    if (log_->sent.empty()) return 1;  // no reply: a positive number is no status
    const std::int32_t status = log_->sent.back().header.status;
    if (reply != nullptr) *reply = std::move(log_->sent.back());
    return status;
  }
  template <class Args>
  std::int32_t ioctl(std::uint32_t command, Args& args, std::vector<UniqueFd> fds = {}) {
    KeptConnection::Packet reply{};
    const std::int32_t status =
        call(command, std::as_bytes(std::span(&args, 1)), &reply, std::move(fds));
    if (status == 0) std::memcpy(&args, reply.payload.data(), sizeof args);
    return status;
  }
  [[nodiscard]] KeptConnection::Log& log() { return *log_; }

 private:
  PlainHost& host_;
  std::shared_ptr<KeptConnection::Log> log_ = std::make_shared<KeptConnection::Log>();
  ConnectionEvents* events_ = nullptr;
  std::uint32_t sequence_ = 0;
};

}  // namespace accelmm::test
