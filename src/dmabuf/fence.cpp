// SPDX-License-Identifier: Apache-2.0
#include "base/system.hpp"
#include "base/system_dmabuf.hpp"
#include "dmabuf/deadline.hpp"
#include "dmabuf/dma_buf.hpp"

#include <accelmm/fence.hpp>

#include <array>
#include <cstring>
#include <string_view>
#include <utility>

#include <poll.h>
#include <sys/socket.h>

namespace accelmm {

namespace {

/// The one packet of a user fence: 0, or the errno that the work failed with.
using Word = std::array<std::byte, sizeof(std::int32_t)>;

Word word_of(std::int32_t code) {
  Word word{};
  std::memcpy(word.data(), &code, sizeof code);
  return word;
}

Result<void> result_of(std::int32_t code, const char* what) {
  if (code == 0) return {};
  return fail_errno(code, what);
}

// A sync_file that has ended says 1, or the negative errno of the first fence that failed.
std::optional<Result<void>> kernel_outcome(FdView fd) {
  const auto info = sys::sync_file_info(fd);
  if (!info) return Result<void>(fail(info.error()));
  if (info->status == 0) return std::nullopt;
  return result_of(info->status < 0 ? -info->status : 0, "the work of a driver failed");
}

// Everybody looks at the packet and nobody takes it.
std::optional<Result<void>> user_outcome(FdView fd) {
  Word word{};
  const auto packet = sys::receive_packet(fd, word, 0, MSG_PEEK | MSG_DONTWAIT);
  if (!packet) {
    if (packet.error().code == Errc::try_again) return std::nullopt;
    return Result<void>(fail(packet.error()));
  }
  if (packet->size == 0)
    return Result<void>(fail(Errc::no_device, "who was to end this fence is gone"));
  if (packet->size != word.size())
    return Result<void>(fail(Errc::protocol_error, "a fence's end that is none"));
  std::int32_t code = 0;
  std::memcpy(&code, word.data(), sizeof code);
  return result_of(code < 0 ? EPROTO : code, "the work of this fence failed");
}

std::optional<Result<void>> event_outcome(FdView fd) {
  const auto seen = sys::poll_one(fd, POLLIN, 0);
  if (!seen) return Result<void>(fail(seen.error()));
  if ((*seen & POLLIN) == 0) return std::nullopt;
  return Result<void>{};
}

// Only an eventfd has this line, in every kernel since 3.8.
bool is_eventfd(FdView fd) {
  const auto file = sys::open("/proc/self/fdinfo/" + std::to_string(fd.get()), 0 /* O_RDONLY */);
  if (!file) return false;
  std::array<char, 512> text{};
  const auto size = sys::read(file->view(), std::as_writable_bytes(std::span(text)));
  return size &&
         std::string_view(text.data(), *size).find("\neventfd-count:") != std::string_view::npos;
}

}  // namespace

Result<Fence::Pair> Fence::create() {
  auto ends = sys::socket_pair();
  if (!ends) return fail(ends.error());
  return Pair{Fence(std::move(ends->first), Kind::user), FenceSignal(std::move(ends->second))};
}

Result<Fence> Fence::adopt(UniqueFd fd) {
  if (!fd.valid()) return fail(Errc::invalid_argument, "no descriptor");
  if (sys::sync_file_info(fd.view())) return Fence(std::move(fd), Kind::kernel);
  if (sys::peer_credentials(fd.view())) return Fence(std::move(fd), Kind::user);
  if (is_eventfd(fd.view())) return Fence(std::move(fd), Kind::event);
  return fail(Errc::not_supported, "not a fence");
}

Result<Fence> Fence::of_dma_buf(FdView buffer, Access wanted) {
  const auto is = dmabuf::is_dma_buf(buffer);
  if (!is) return fail(is.error());
  if (!*is) return fail(Errc::not_supported, "not a dma-buf");
  auto fd = sys::dma_buf_export_fence(buffer, wanted);
  if (!fd) {
    if (fd.error().code != Errc::unknown_ioctl) return fail(fd.error());
    return fail(Errc::not_supported, "this kernel does not give out the fences of a dma-buf");
  }
  return Fence(std::move(*fd), Kind::kernel);
}

Result<Fence> Fence::merge(const Fence& first, const Fence& second) {
  if (first.kind_ != Kind::kernel || second.kind_ != Kind::kernel)
    return fail(Errc::not_supported, "only kernel fences are merged");
  auto fd = sys::sync_file_merge("accelmm", first.fd(), second.fd());
  if (!fd) return fail(fd.error());
  return Fence(std::move(*fd), Kind::kernel);
}

Result<Fence> Fence::duplicate() const {
  auto fd = sys::duplicate(fd_.view());
  if (!fd) return fail(fd.error());
  return Fence(std::move(*fd), kind_);
}

std::optional<Result<void>> Fence::outcome() const {
  switch (kind_) {
    case Kind::kernel:
      return kernel_outcome(fd_.view());
    case Kind::user:
      return user_outcome(fd_.view());
    case Kind::event:
      break;
  }
  return event_outcome(fd_.view());
}

Result<void> Fence::wait(std::uint64_t deadline_ns) const {
  const auto seen = dmabuf::poll_until(fd_.view(), POLLIN, deadline_ns);
  if (!seen) return fail(seen.error());
  const auto ended = outcome();
  return ended ? *ended : fail(Errc::io_error, "a fence that ended says nothing");
}

Result<void> Fence::attach_to(FdView buffer, Access access) const {
  if (kind_ != Kind::kernel)
    return fail(Errc::not_supported, "a program's promise is not given to the kernel");
  return sys::dma_buf_import_fence(buffer, fd_.view(), access);
}

Result<void> FenceSignal::signal(Result<void> outcome) {
  if (!fd_.valid()) return fail(Errc::invalid_argument, "the fence has ended");
  const Word word = word_of(outcome ? 0 : static_cast<std::int32_t>(outcome.error().code));
  const auto sent = sys::send_packet(fd_.view(), word, {}, MSG_DONTWAIT);
  // Nobody is there to wait any more: EPIPE.
  if (!sent && sent.error().code != static_cast<Errc>(EPIPE)) return sent;
  fd_.reset();
  return {};
}

}  // namespace accelmm
