// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/backing.hpp>
#include <accelmm/device.hpp>
#include <accelmm/dmabuf.hpp>
#include <accelmm/driver.hpp>
#include <accelmm/node.hpp>
#include <accelmm/transport.hpp>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace accelmm {

struct RuntimeOptions {
  /// Where the nodes are. Empty: default_runtime_directory(). Made with mode 0755 (0700 below a
  /// temporary directory).
  std::string directory;
  /// Address space reserved for host buffers; costs nothing until buffers are placed in it.
  ByteCount host_window = ByteCount(std::uint64_t{64} << 30);
  /// How host buffers are made where their sessions leave it open.
  BackingRequest host_backing = {};
  /// What sessions may have of huge pages.
  BackingPolicy backing_policy = {};
  /// How host buffers, and device memory that CPUs see, are shared.
  SharingPolicy sharing = {};
  /// Where requests come in quick succession, how long the thread that serves them looks for the next
  /// one before it sleeps, in nanoseconds. Saves them the time of waking it up, and costs processor
  /// time for as long once a burst. 0: it sleeps at once.
  std::uint64_t busy_poll_ns = 50'000;
  /// Takes the lines that this process logs, without a newline: how it shares, at its start, and
  /// warnings. At most one a second and device. Called in the runtime's thread. Empty: nothing is logged.
  std::function<void(const std::string& line)> log = {};
};

/// A driver process: its devices, their nodes, and the thread that serves them from create() on.
///
/// Threads   every function from any thread but its own, that is: not from a driver's operations.
/// Lifetime  destroying it stops the loop, removes all devices and ends all sessions.
class Runtime {
 public:
  [[nodiscard]] static Result<std::unique_ptr<Runtime>> create(const RuntimeOptions& options);
  ~Runtime();
  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;

  /// Registers a device: claims the lowest free number, calls Driver::probe, creates the nodes
  /// accel<N> and accel_controlD<N>. Returns the number once the device can be opened.
  /// Errors  invalid_argument: the description contradicts itself.  busy: all 256 numbers are
  ///         taken. What probe failed with.  Any errno of making the nodes. The driver is destroyed
  ///         then.
  [[nodiscard]] Result<std::uint32_t> register_device(DeviceDescription description,
                                                      std::unique_ptr<Driver> driver);
  /// Removes a device while its sessions live: its nodes disappear, every call on it is ENODEV, CPU
  /// mappings stay readable, and the last close frees.
  /// Errors  invalid_argument: no such device of this runtime.
  [[nodiscard]] Result<void> remove_device(std::uint32_t number);

  /// Blocks until stop() is called.
  void run();
  /// Makes run() return. From a signal handler too.
  void stop() noexcept;

  /// Opens a node without leaving the process (embedded mode).
  /// Errors  no_device: no such device.
  [[nodiscard]] Result<std::unique_ptr<Channel>> connect(std::uint32_t number, NodeKind kind);

  /// The dma-bufs of this process's memory that somebody else holds.
  /// Errors  no_memory.
  [[nodiscard]] Result<std::vector<ExportedBuffer>> exports() const;

  [[nodiscard]] const std::string& directory() const;
  /// The ways to share that were looked for, best first.
  [[nodiscard]] const std::vector<SharingBackEnd>& sharing() const;

 private:
  class State;
  explicit Runtime(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace accelmm
