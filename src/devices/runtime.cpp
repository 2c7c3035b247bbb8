// SPDX-License-Identifier: Apache-2.0
#include "base/lock_file.hpp"
#include "base/stop_event.hpp"
#include "devices/device_host.hpp"
#include "devices/embedded_channel.hpp"
#include "loop/loop.hpp"

#include <accelmm/runtime.hpp>

#include <future>
#include <new>
#include <thread>
#include <utility>

namespace accelmm {
namespace {

using devices::DeviceHost;
using devices::Domain;
using devices::Region;

Result<std::string> prepare_directory(const std::string& asked_for) {
  if (!asked_for.empty()) {
    if (const auto made = ensure_directory(asked_for, 0755); !made) return fail(made.error());
    return asked_for;
  }
  std::string directory = default_runtime_directory();
  // Below a temporary directory anyone could come first: nobody else may enter there.
  const unsigned mode = directory == "/run/accelmm" ? 0755 : 0700;
  if (const auto made = ensure_directory(directory, mode); !made) return fail(made.error());
  return directory;
}

}  // namespace

class Runtime::State {
 public:
  State(std::unique_ptr<Transport> transport, std::shared_ptr<Region> host, std::string directory,
        StopEvent stop_event, devices::Log log)
      : stopped(std::move(stop_event)),
        directory_(std::move(directory)),
        transport_(std::move(transport)),
        host_(*transport_, std::move(host), directory_, std::move(log)) {}
  ~State() {
    if (!thread_.joinable()) return;
    std::promise<void> done;
    transport_->post([&] {
      host_.shut_down(Completion([&](Result<void>) {
        // What is still posted, such as the ends of sessions that hold nothing, runs before run()
        // returns.
        transport_->stop();
        done.set_value();
      }));
    });
    done.get_future().wait();
    thread_.join();
  }

  void start() {
    thread_ = std::thread([this] { ACCELMM_CHECK(transport_->run().has_value()); });
  }

  /// Runs `function` with a promise in the loop's thread and waits until it is kept.
  template <class T, class F>
  T ask(F function) {
    std::promise<T> promise;
    auto answer = promise.get_future();
    transport_->post([&] { function(promise); });
    return answer.get();
  }

  [[nodiscard]] DeviceHost& host() { return host_; }
  [[nodiscard]] Transport& transport() { return *transport_; }
  [[nodiscard]] const std::string& directory() const { return directory_; }

  StopEvent stopped;

 private:
  std::string directory_;
  std::unique_ptr<Transport> transport_;
  DeviceHost host_;
  std::thread thread_;
};

Runtime::Runtime(std::unique_ptr<State> state) : state_(std::move(state)) {}
Runtime::~Runtime() = default;

Result<std::unique_ptr<Runtime>> Runtime::create(const RuntimeOptions& options) try {
  auto directory = prepare_directory(options.directory);
  if (!directory) return fail(directory.error());
  auto sharing = dmabuf::BackEnds::probe(options.sharing, options.backing_policy.huge_importable);
  auto host = Region::create({.domain = Domain::host,
                              .size = options.host_window,
                              .host = {options.host_backing, options.backing_policy},
                              .sharing = sharing});
  if (!host) return fail(host.error());
  auto transport = create_transport(options.busy_poll_ns);
  if (!transport) return fail(transport.error());
  if (options.log)
    (*transport)->post([log = options.log, line = "shares by " + describe(sharing->report())] {
      log(line);
    });
  auto stop_event = StopEvent::create();
  if (!stop_event) return fail(stop_event.error());
  auto state = std::make_unique<State>(std::move(*transport), std::move(*host),
                                       std::move(*directory), std::move(*stop_event), options.log);
  state->start();
  return std::unique_ptr<Runtime>(new Runtime(std::move(state)));
} catch (const std::bad_alloc&) {
  return fail(Errc::no_memory, "no memory for a runtime");
}

Result<std::uint32_t> Runtime::register_device(DeviceDescription description,
                                               std::unique_ptr<Driver> driver) {
  using Answer = Result<std::uint32_t>;
  return state_->ask<Answer>([&](std::promise<Answer>& promise) {
    state_->host().register_device(std::move(description), std::move(driver),
                                   [&promise](Answer answer) { promise.set_value(answer); });
  });
}

Result<void> Runtime::remove_device(std::uint32_t number) {
  return state_->ask<Result<void>>([&](std::promise<Result<void>>& promise) {
    state_->host().remove_device(
        number, Completion([&promise](Result<void> result) { promise.set_value(result); }));
  });
}

void Runtime::run() {
  state_->stopped.wait();
}

void Runtime::stop() noexcept {
  state_->stopped.set();
}

Result<std::unique_ptr<Channel>> Runtime::connect(std::uint32_t number, NodeKind kind) try {
  auto pair = devices::make_embedded_pair(state_->transport());
  const bool connected = state_->ask<bool>([&](std::promise<bool>& promise) {
    ConnectionEvents* events = state_->host().connect(number, kind, std::move(pair.connection));
    pair.attach(events);
    promise.set_value(events != nullptr);
  });
  if (!connected) return fail(Errc::no_device, "this process hosts no such device");
  return std::move(pair.channel);
} catch (const std::bad_alloc&) {
  return fail(Errc::no_memory, "no memory for a connection");
}

Result<std::vector<ExportedBuffer>> Runtime::exports() const try {
  using Answer = Result<std::vector<ExportedBuffer>>;
  return state_->ask<Answer>([&](std::promise<Answer>& promise) {
    try {
      promise.set_value(state_->host().exports());
    } catch (const std::bad_alloc&) {
      promise.set_value(fail(Errc::no_memory, "no memory to list exports"));
    }
  });
} catch (const std::bad_alloc&) {
  return fail(Errc::no_memory, "no memory to list exports");
}

const std::vector<SharingBackEnd>& Runtime::sharing() const {
  return state_->host().host().sharing().report();
}

const std::string& Runtime::directory() const {
  return state_->directory();
}

}  // namespace accelmm
