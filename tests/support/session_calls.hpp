// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "support/npu_host.hpp"

#include <accelmm/client.hpp>

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace accelmm::test {

/// A session that holds one of everything, so that whatever ends it has all of it to give back.
struct BusySession {
  static constexpr ByteCount size{std::uint64_t{64} << 10};

  /// How a session is begun: by which way, on which device.
  using Connect = std::function<Result<Client>()>;

  explicit BusySession(Connect by) : connect(std::move(by)) {}

  /// Connects, and fills the session. Throws what fails.
  void begin() {
    client.emplace(value(connect()));
    host.emplace(value(client->allocate(size)));
    cpu.emplace(value(host->map_cpu()));
    host_at.emplace(value(host->map_device()));
    device.emplace(value(client->allocate(size, {.domain = Domain::device})));
    device_at.emplace(value(device->map_device()));
    visible.emplace(
        value(client->allocate(size, {.domain = Domain::device, .cpu = CpuVisibility::visible})));
    exported.emplace(value(host->export_view()));
    imported.emplace(value(client->import_view(*exported)));
  }
  [[nodiscard]] Result<Point> submit() const {
    return submit_copy(*client, host_at->address(), device_at->address(), size);
  }
  /// Leaves everything to the end of the session.
  void let_go() {
    for (auto* buffer : {&host, &device, &visible, &imported})
      if (*buffer) static_cast<void>((*buffer)->release());
    for (auto* mapping : {&host_at, &device_at})
      if (*mapping) static_cast<void>((*mapping)->release());
  }

  Connect connect;
  std::optional<Client> client;
  std::optional<Buffer> host;
  std::optional<CpuMapping> cpu;
  std::optional<DeviceMapping> host_at;
  std::optional<Buffer> device;
  std::optional<DeviceMapping> device_at;
  std::optional<Buffer> visible;
  std::optional<Export> exported;
  std::optional<Buffer> imported;
  // What the calls below make.
  std::optional<Buffer> made;
  std::optional<CpuMapping> cpu_made;
  std::optional<DeviceMapping> mapping_made;
  std::optional<Export> export_made;
  std::optional<Point> job;
};

/// Keeps what a call made, or passes its error on.
template <class T>
Result<void> keep(Result<T> made, std::optional<T>& place) {
  if (!made) return fail(made.error());
  place.emplace(std::move(*made));
  return {};
}

/// One call of an application, and what must be there before it.
struct SessionCall {
  std::string name;
  std::function<void(BusySession&)> before;
  std::function<Result<void>(BusySession&)> make;
};

/// Everything but a prefault, whose system calls come from other threads whenever they like.
[[nodiscard]] inline BackingRequest backing_of_all_kinds() {
  BackingRequest request;
  request.pages = PageSize::transparent;
  request.nodes = {NodeRule::preferred, {1}};
  request.lock = MemoryLock::locked;
  request.dumps = CoreDumps::excluded;
  request.zero_on_free = ZeroOnFree::yes;
  return request;
}

/// Every call that a session can make once it has begun, but its end. One session can make them
/// all, in this order.
[[nodiscard]] inline std::vector<SessionCall> session_calls() {
  using S = BusySession;
  const auto nothing = [](S&) {};
  const auto job = [](S& s) { s.job.emplace(value(s.submit())); };
  const auto events = [](S& s) { static_cast<void>(value(s.client->event_fd())); };
  const auto allocate = [](BufferOptions options) {
    return [options](S& s) { return keep(s.client->allocate(S::size, options), s.made); };
  };
  return {
      {"info", nothing,
       [](S& s) -> Result<void> {
         if (const auto info = s.client->device_info(); !info) return fail(info.error());
         return {};
       }},
      {"shortage", nothing,
       [](S& s) -> Result<void> {
         if (const auto told = s.client->shortage(1_MiB); !told) return fail(told.error());
         return {};
       }},
      {"allocate host", nothing, allocate({})},
      {"allocate host read-only", nothing, allocate({.cpu = CpuVisibility::read_only})},
      {"allocate host backed", nothing, allocate({.backing = backing_of_all_kinds()})},
      {"backing", nothing,
       [](S& s) -> Result<void> {
         if (const auto report = s.host->backing(); !report) return fail(report.error());
         return {};
       }},
      {"allocate device", nothing, allocate({.domain = Domain::device})},
      {"allocate device visible", nothing,
       allocate({.domain = Domain::device, .cpu = CpuVisibility::visible})},
      {"map cpu", nothing, [](S& s) { return keep(s.visible->map_cpu(), s.cpu_made); }},
      {"map device", nothing, [](S& s) { return keep(s.visible->map_device(), s.mapping_made); }},
      {"export", nothing, [](S& s) { return keep(s.visible->export_view(), s.export_made); }},
      {"import", nothing, [](S& s) { return keep(s.client->import_view(*s.exported), s.made); }},
      {"copy ioctl", nothing, [](S& s) { return keep(s.submit(), s.job); }},
      {"wait", job, [](S& s) { return s.client->wait(*s.job, soon()); }},
      {"events", nothing,
       [](S& s) -> Result<void> {
         if (const auto fd = s.client->event_fd(); !fd) return fail(fd.error());
         return {};
       }},
      {"watch",
       [=](S& s) {
         events(s);
         job(s);
       },
       [](S& s) { return s.client->watch(*s.job); }},
      {"unmap device", job,
       [](S& s) -> Result<void> {
         if (!s.device_at) return {};
         if (const auto point = s.device_at->unmap(); !point) return fail(point.error());
         s.device_at.reset();
         return {};
       }},
      {"free", nothing,
       [](S& s) -> Result<void> {
         if (!s.visible) return {};
         if (const auto freed = s.visible->free(); !freed) return freed;
         s.visible.reset();
         return {};
       }},
  };
}

}  // namespace accelmm::test
