// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "devices/region.hpp"

#include <accelmm/device_heap.hpp>
#include <accelmm/error.hpp>
#include <accelmm/uapi.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include <sys/types.h>

namespace accelmm::devices {

/// Takes a line of the driver process's log.
using Log = std::function<void(const std::string& line)>;

/// A request of device memory that failed, and who asked.
struct FailedRequest {
  Region::Request request;
  Error error;
  OwnerId owner{};
  std::uint64_t session = 0;
  uid_t uid = 0;
  std::uint64_t time_ns = 0;  // CLOCK_MONOTONIC
};

/// The requests of device memory that failed, of one session or of all: how many, and the last.
///
/// Threads  the loop's.
class FailedRequests {
 public:
  void add(const FailedRequest& failed) noexcept {
    ++(failed.error.code == Errc::over_quota ? over_quota_ : out_of_memory_);
    last_ = failed;
  }
  [[nodiscard]] std::uint64_t out_of_memory() const { return out_of_memory_; }
  [[nodiscard]] std::uint64_t over_quota() const { return over_quota_; }
  [[nodiscard]] const std::optional<FailedRequest>& last() const { return last_; }

 private:
  std::uint64_t out_of_memory_ = 0;
  std::uint64_t over_quota_ = 0;
  std::optional<FailedRequest> last_;
};

/// Logs shortages of one device: one line a second at most, which says how many it stands for.
///
/// Threads  the loop's.
class ShortageLog {
 public:
  static constexpr std::uint64_t interval_ns = 1'000'000'000;

  ShortageLog(std::uint32_t device, Log log) : device_(device), log_(std::move(log)) {}

  /// Never fails: a line that there is no memory for counts as one that was held back.
  void add(const FailedRequest& failed, const Region& memory) noexcept;

 private:
  std::uint32_t device_;
  Log log_;
  std::uint64_t next_ns_ = 0;    // no line before
  std::uint64_t held_back_ = 0;  // since the last line
};

/// The name of an errno that a request of memory fails with.
[[nodiscard]] const char* errno_name(Errc code);

/// One line: who got what error for how much, how the memory lies, and who holds most.
/// Throws std::bad_alloc.
[[nodiscard]] std::string shortage_line(const FailedRequest& failed, const Shortage& shortage);

/// Whose memory an answer tells of.
enum class Disclosure : std::uint8_t { own, all };

/// Writes who holds what, and how it lies, into the answer to an ioctl: all of it but what the
/// caller fills in itself, the request and the failures.
void put_shortage(const Shortage& shortage, Disclosure disclosure, accelmm_shortage& args);

}  // namespace accelmm::devices
