// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "devices/npu/npu_driver.hpp"
#include "support/temporary_folder.hpp"

#include <accelmm/client.hpp>
#include <accelmm/runtime.hpp>
#include <accelmm/sim/npu_uapi.h>

#include <chrono>
#include <memory>
#include <stdexcept>
#include <utility>

#include <gtest/gtest.h>

namespace accelmm::test {

/// The way an application reaches a device.
enum class Path : std::uint8_t { socket, embedded };

/// What a Result holds, or the end of the test with its error.
template <class T>
T value(Result<T> result) {
  if (!result) throw std::runtime_error(result.error().what);
  return std::move(*result);
}
inline void value(const Result<void>& result) {
  if (!result) throw std::runtime_error(result.error().what);
}

/// The error code that a call must have ended with; no_error if it did not fail.
constexpr Errc no_error{0};
template <class T>
[[nodiscard]] Errc code(const Result<T>& result) {
  return result ? no_error : result.error().code;
}

/// A driver process's runtime in this process, in a folder of its own, hosting NPUs.
class NpuHost {
 public:
  explicit NpuHost(Path path = Path::socket)
      : path_(path), runtime_(value(Runtime::create({.directory = folder_.path()}))) {}

  /// Registers one more NPU; returns its number.
  std::uint32_t add(const sim::NpuOptions& options = {}) {
    return value(runtime_->register_device(sim::npu_description(options),
                                           value(sim::make_npu_driver(options))));
  }
  [[nodiscard]] Result<Client> try_connect(std::uint32_t number = 0,
                                           NodeKind kind = NodeKind::compute) {
    if (path_ == Path::socket) return Client::connect(number, kind, folder_.path());
    auto channel = runtime_->connect(number, kind);
    if (!channel) return fail(channel.error());
    return Client::connect(std::move(*channel));
  }
  [[nodiscard]] Client connect(std::uint32_t number = 0, NodeKind kind = NodeKind::compute) {
    return value(try_connect(number, kind));
  }
  [[nodiscard]] Runtime& runtime() { return *runtime_; }
  [[nodiscard]] const std::string& directory() const { return folder_.path(); }

 private:
  TemporaryFolder folder_;
  Path path_;
  std::unique_ptr<Runtime> runtime_;
};

/// A deadline that only a hang misses.
inline std::chrono::steady_clock::time_point soon() {
  return std::chrono::steady_clock::now() + std::chrono::seconds(20);
}

/// Submits a copy on the device; the point of the job.
inline Result<Point> submit_copy(const Client& client, DeviceAddr source, DeviceAddr destination,
                                 ByteCount length) {
  accelmm_npu_copy args{};
  args.source = source.value();
  args.destination = destination.value();
  args.length = length.value();
  if (auto submitted = client.ioctl(ACCELMM_IOCTL_NPU_COPY, args); !submitted)
    return fail(submitted.error());
  return Point::job(args.point.value);
}

inline Result<void> copy_and_wait(const Client& client, DeviceAddr source, DeviceAddr destination,
                                  ByteCount length) {
  const auto point = submit_copy(client, source, destination, length);
  if (!point) return fail(point.error());
  return client.wait(*point, soon());
}

}  // namespace accelmm::test
