// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/completion.hpp>
#include <accelmm/error.hpp>
#include <accelmm/units.hpp>
#include <accelmm/vfio_device.hpp>

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

namespace accelmm::edu {

/// The DMA engine of QEMU's edu device: one transfer at a time, in the order of submission.
///
/// Owns      a thread, which programs the device and waits for its interrupt.
/// Threads   any. What ends a job runs in the engine's thread, under no lock.
/// Lifetime  destroying it ends what waits as canceled, and waits for the transfer under way.
/// Source    docs/specs/edu.txt of QEMU.
class EduEngine {
 public:
  struct Options {
    std::chrono::nanoseconds timeout;  ///< of one transfer
  };
  enum class Direction : std::uint8_t { to_device, to_memory };
  struct Job {
    std::uint64_t session;
    Direction direction;
    DeviceAddr memory;
    std::uint32_t offset;  ///< into the device's buffer
    std::uint32_t length;
    /// The device would miss the memory: ends as a fault when its turn comes, and is not begun.
    std::optional<DeviceAddr> unreachable;
    /// Errors  fault: unreachable.  timed_out: no interrupt came.  io_error: the device hangs since
    ///         an earlier transfer, or its registers failed.  canceled.
    std::move_only_function<void(std::uint64_t point, Result<void>)> done;
    std::uint64_t point = 0;  ///< for `done`
  };
  struct Statistics {
    std::uint64_t transfers = 0;
    std::uint64_t bytes = 0;
    std::uint64_t interrupts = 0;
    std::uint64_t timeouts = 0;
  };

  /// Brings the device up: it may reach memory from here on.
  /// Errors  no_device: it is no edu.  io_error: it does not answer.  Those of VfioDevice.
  [[nodiscard]] static Result<std::unique_ptr<EduEngine>> create(VfioDevice& device,
                                                                 const Options& options);
  EduEngine(const EduEngine&) = delete;
  EduEngine& operator=(const EduEngine&) = delete;
  ~EduEngine();

  /// Takes a list of jobs, so that it cannot fail. Pre: the ranges lie in the device's buffer.
  void submit(std::list<Job> jobs) noexcept;
  /// Ends what waits of a session as canceled, and completes when nothing of it is under way. Needs
  /// no memory.
  void cancel(std::uint64_t session, Completion done);

  [[nodiscard]] Statistics statistics() const;
  [[nodiscard]] std::uint32_t version() const { return version_; }
  [[nodiscard]] VfioInterrupt::Kind interrupt_kind() const { return interrupt_.kind(); }

 private:
  EduEngine(VfioDevice& device, const Options& options, VfioRegion registers,
            VfioInterrupt interrupt, std::uint32_t version);
  void work();
  [[nodiscard]] Result<void> run(const Job& job);
  [[nodiscard]] Result<void> start(const Job& job);
  [[nodiscard]] Result<void> await_end();
  [[nodiscard]] Result<bool> take_interrupt();
  void note_transfer(std::uint32_t length);
  void recover();

  VfioDevice& device_;
  const Options options_;
  VfioRegion registers_;
  VfioInterrupt interrupt_;
  const std::uint32_t version_;
  bool hangs_ = false;  // the engine's thread only

  mutable std::mutex mutex_;  // guards what follows; held over no call outward
  std::condition_variable changed_;
  std::list<Job> waiting_;
  std::optional<std::uint64_t> running_;  // whose
  std::vector<Completion> when_idle_;     // for the one that runs
  Statistics statistics_;
  bool ending_ = false;
  std::thread thread_;
};

}  // namespace accelmm::edu
