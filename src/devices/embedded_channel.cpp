// SPDX-License-Identifier: Apache-2.0
#include "devices/embedded_channel.hpp"

#include "base/peer.hpp"
#include "base/process_mark.hpp"

#include <accelmm/check.hpp>
#include <accelmm/uapi.h>

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <map>
#include <mutex>
#include <optional>
#include <utility>

namespace accelmm::devices {
namespace {

Result<std::vector<UniqueFd>> duplicate_all(std::span<const FdView> fds) {
  std::vector<UniqueFd> copies;
  for (const FdView fd : fds) {
    auto copy = duplicate(fd);
    if (!copy) return fail(copy.error());
    copies.push_back(std::move(*copy));
  }
  return copies;
}

// What both ends share. The loop's end may go first (the node was removed, the runtime ended), or
// the caller's.
struct Link {
  explicit Link(Transport& via) : transport(&via) {}

  struct Slot {
    std::span<std::byte> reply;
    std::vector<UniqueFd>& fds;
    std::optional<Result<std::size_t>> outcome;
  };

  std::mutex mutex;
  std::condition_variable answered;
  Transport* transport;                  // null once the connection has ended
  ConnectionEvents* events = nullptr;    // the loop's thread only
  std::map<std::uint32_t, Slot*> slots;  // callers that wait
  std::uint32_t last_sequence = 0;
};

class EmbeddedConnection final : public Connection {
 public:
  explicit EmbeddedConnection(std::shared_ptr<Link> link) : link_(std::move(link)) {}
  ~EmbeddedConnection() override {
    const std::lock_guard lock(link_->mutex);
    link_->transport = nullptr;
    link_->events = nullptr;
    link_->answered.notify_all();
  }

  void send(std::span<const std::byte> bytes, std::span<const FdView> fds) override {
    accelmm_message_header header;
    ACCELMM_CHECK(bytes.size() >= sizeof header);
    std::memcpy(&header, bytes.data(), sizeof header);
    auto copies = duplicate_all(fds);
    const std::lock_guard lock(link_->mutex);
    const auto found = link_->slots.find(header.sequence);
    if (found == link_->slots.end()) return;
    Link::Slot& slot = *found->second;
    if (!copies) {
      slot.outcome = fail(copies.error());
    } else if (bytes.size() > slot.reply.size()) {
      slot.outcome = fail(Errc::protocol_error, "reply is larger than the caller's buffer");
    } else {
      std::ranges::copy(bytes, slot.reply.begin());
      std::ranges::move(*copies, std::back_inserter(slot.fds));
      slot.outcome = bytes.size();
    }
    link_->slots.erase(found);
    link_->answered.notify_all();
  }
  // Every caller has one packet under way at most, so there is nothing to hold back.
  void pause() override {}
  void resume() override {}
  [[nodiscard]] Peer peer() const override {
    Peer peer = own_peer();
    peer.memory = Peer::Memory::of_this_process;
    return peer;
  }
  [[nodiscard]] bool hung_up() const override { return false; }

 private:
  std::shared_ptr<Link> link_;
};

class EmbeddedChannel final : public Channel {
 public:
  explicit EmbeddedChannel(std::shared_ptr<Link> link) : link_(std::move(link)) {}
  ~EmbeddedChannel() override {
    if (mark_.in_forked_child()) return;  // the loop's thread is not here, and its lock may be held
    const std::lock_guard lock(link_->mutex);
    if (link_->transport == nullptr) return;
    link_->transport->post([link = link_] {
      if (link->events != nullptr) std::exchange(link->events, nullptr)->on_end();
    });
  }

  Result<std::size_t> call(std::span<std::byte> request, std::span<const FdView> fds,
                           std::span<std::byte> reply, std::vector<UniqueFd>& reply_fds) override {
    if (mark_.in_forked_child())
      return fail(Errc::no_device, "connection belongs to another process");
    accelmm_message_header header;
    if (request.size() < sizeof header || request.size() > ACCELMM_MAX_MESSAGE ||
        fds.size() > ACCELMM_MAX_FDS)
      return fail(Errc::invalid_argument, "request is no packet");
    auto copies = duplicate_all(fds);
    if (!copies) return fail(copies.error());
    Link::Slot slot{reply, reply_fds, std::nullopt};
    std::unique_lock lock(link_->mutex);
    if (link_->transport == nullptr) return fail(Errc::no_device, "connection has ended");
    std::memcpy(&header, request.data(), sizeof header);
    header.sequence = ++link_->last_sequence;
    std::memcpy(request.data(), &header, sizeof header);
    link_->slots.emplace(header.sequence, &slot);
    try {
      link_->transport->post([link = link_, bytes = std::vector(request.begin(), request.end()),
                              sent = std::move(*copies)]() mutable {
        if (link->events != nullptr) link->events->on_message(bytes, std::move(sent));
      });
    } catch (const std::bad_alloc&) {
      link_->slots.erase(header.sequence);
      throw;
    }
    link_->answered.wait(lock, [&] { return slot.outcome || link_->transport == nullptr; });
    if (slot.outcome) return *slot.outcome;
    link_->slots.erase(header.sequence);
    return fail(Errc::no_device, "connection has ended");
  }

 private:
  ProcessMark mark_;
  std::shared_ptr<Link> link_;
};

}  // namespace

EmbeddedPair make_embedded_pair(Transport& transport) {
  auto link = std::make_shared<Link>(transport);
  return {std::make_unique<EmbeddedChannel>(link), std::make_unique<EmbeddedConnection>(link),
          [link](ConnectionEvents* events) { link->events = events; }};
}

}  // namespace accelmm::devices
