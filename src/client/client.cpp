// SPDX-License-Identifier: Apache-2.0
#include "base/mapping.hpp"
#include "client/buffer_calls.hpp"
#include "client/info_calls.hpp"
#include "client/link.hpp"
#include "client/pieces.hpp"
#include "client/shortage_calls.hpp"

#include <accelmm/client.hpp>

#include <algorithm>
#include <iterator>
#include <new>
#include <utility>

namespace accelmm {

Result<Client> Client::connect(std::uint32_t device, NodeKind kind, const std::string& directory) {
  auto link = ClientLink::connect(device, kind, directory);
  if (!link) return fail(link.error());
  return Client(std::move(*link));
}

Result<Client> Client::connect(const std::string& path) {
  auto link = ClientLink::connect(path);
  if (!link) return fail(link.error());
  return Client(std::move(*link));
}

Result<Client> Client::connect(std::unique_ptr<Channel> channel) {
  auto link = ClientLink::create(std::move(channel));
  if (!link) return fail(link.error());
  return Client(std::move(*link));
}

std::uint64_t Client::session() const noexcept {
  return link_->facts().session;
}
std::uint32_t Client::device() const noexcept {
  return link_->facts().device;
}
NodeKind Client::node() const noexcept {
  return link_->facts().node;
}

Result<accelmm_info_device> Client::device_info() const {
  return read_device_info(*link_);
}
Result<accelmm_info_usage> Client::usage() const {
  return read_usage(*link_);
}
Result<accelmm_info_session> Client::session_info() const {
  return read_session_info(*link_);
}
Result<accelmm_info_fault> Client::last_fault() const {
  return read_fault(*link_);
}

Result<accelmm_shortage> Client::shortage(ByteCount size, std::uint32_t flags) const {
  return read_shortage(*link_, size, flags);
}

Result<accelmm_defragment> Client::defragment(ByteCount budget, ByteCount run) const {
  return make_room(*link_, budget, run);
}

Result<std::vector<std::byte>> Client::driver_info(std::uint32_t topic) const try {
  const auto info = read_driver_info(*link_, topic);
  if (!info) return fail(info.error());
  const auto data = std::as_bytes(std::span(info->data)).first(data_size(*info));
  return std::vector<std::byte>(data.begin(), data.end());
} catch (const std::bad_alloc&) {
  return fail(Errc::no_memory, "no memory for facts");
}

Result<Buffer> Client::allocate(ByteCount size, BufferOptions options) const {
  const auto request = make_request(size, options);
  if (!request) return fail(request.error());
  const auto made = allocate_buffer(*link_, *request);
  if (!made) return fail(made.error());
  return Buffer(link_, made->handle, made->size, made->access);
}

Result<Buffer> Client::import_view(const Export& view) const {
  const auto made = with_views(
      view, [this](std::span<const PieceView> pieces) { return import_pieces(*link_, pieces); });
  if (!made) return fail(made.error());
  return Buffer(link_, made->handle, made->size, made->access);
}

Result<Buffer> Client::adopt(std::span<std::byte> memory, BufferOptions options) const {
  if (!is_whole_pages(memory))
    return fail(Errc::invalid_argument, "adopted memory is not whole pages");
  // A pool's pages fit only where huge ones were before.
  PageSize& pages = options.backing.pages;
  if (pages == PageSize::as_configured) pages = PageSize::base;
  if (options.domain != Domain::host || pages == PageSize::huge_2m || pages == PageSize::huge_1g)
    return fail(Errc::invalid_argument, "memory is adopted by pages of the host only");
  auto buffer = allocate(ByteCount(memory.size()), options);
  if (!buffer) return buffer;
  if (buffer->size() != ByteCount(memory.size()))
    return fail(Errc::protocol_error, "another size than asked for was allocated");
  auto mapping = buffer->map_cpu();
  if (!mapping) return fail(mapping.error());
  std::ranges::copy(memory, mapping->bytes().begin());
  if (auto moved = mapping->move_over(memory.data()); !moved) return fail(moved.error());
  return buffer;
}

Result<DeviceMapping> Client::map_in_place(std::span<std::byte> memory, Access access,
                                           DevicePlacement placement) const {
  const auto mapped = map_memory(*link_, memory, access, placement);
  if (!mapped) return fail(mapped.error());
  return DeviceMapping(link_, mapped->address, ByteCount(memory.size()), mapped->point);
}

Result<void> Client::ioctl_bytes(std::uint32_t command, std::span<std::byte> args,
                                 std::span<const FdView> fds,
                                 std::vector<UniqueFd>* reply_fds) const try {
  std::vector<UniqueFd> received;
  // Taken before the call, so that nothing can fail after it.
  if (reply_fds != nullptr) reply_fds->reserve(reply_fds->size() + ACCELMM_MAX_FDS);
  if (const auto done = link_->ioctl(command, args, fds, received); !done) return done;
  if (reply_fds != nullptr)
    reply_fds->insert(reply_fds->end(), std::make_move_iterator(received.begin()),
                      std::make_move_iterator(received.end()));
  return {};
} catch (const std::bad_alloc&) {
  return fail(Errc::no_memory, "no memory for descriptors");
}

Result<void> Client::wait(Point point, std::uint64_t deadline_ns) const {
  return wait_for(*link_, point, deadline_ns);
}

Result<void> Client::wait(Point point, std::chrono::steady_clock::time_point deadline) const {
  // The steady clock of libstdc++ is CLOCK_MONOTONIC. A time before the machine started has passed.
  const auto ns = std::chrono::nanoseconds(deadline.time_since_epoch()).count();
  return wait(point, ns > 0 ? static_cast<std::uint64_t>(ns) : 0);
}

Result<void> Client::watch(Point point) const {
  return accelmm::watch(*link_, point);
}
Result<FdView> Client::event_fd() const {
  return link_->event_fd();
}
Result<std::optional<accelmm_event>> Client::read_event() const {
  return link_->read_event();
}

}  // namespace accelmm
