// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "filter.hpp"
#include "outcome.hpp"

#include <accelmm/client.hpp>
#include <accelmm/sim/npu_uapi.h>
#include <accelmm/units.hpp>

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace demo {

/// Memory that the NPU can reach: a buffer and its mapping in the session's address space.
struct NpuBuffer {
  accelmm::Buffer buffer;
  accelmm::DeviceMapping mapping;
  [[nodiscard]] accelmm::DeviceAddr address() const { return mapping.address(); }
};

/// A session with an NPU: the few calls that the demo needs, with every failure explained.
class Npu {
 public:
  [[nodiscard]] static Outcome<Npu> open(std::uint32_t device, const std::string& directory);

  [[nodiscard]] const accelmm::Client& client() const { return client_; }
  [[nodiscard]] std::uint64_t jobs() const { return points_.size(); }
  [[nodiscard]] std::string name() const { return "accel" + std::to_string(client_.device()); }

  [[nodiscard]] Outcome<NpuBuffer> allocate(accelmm::ByteCount size, accelmm::Domain domain);
  /// Makes the engines reach a buffer, and waits until they do.
  [[nodiscard]] Outcome<NpuBuffer> map(accelmm::Buffer buffer, accelmm::Access access);

  /// Submits a copy; finish() waits for it.
  [[nodiscard]] Outcome<void> copy(accelmm::DeviceAddr from, accelmm::DeviceAddr to,
                                   accelmm::ByteCount length);

  /// A picture in memory that the NPU can reach, without gaps between its rows.
  struct Frame {
    accelmm::DeviceAddr address;
    std::uint32_t width;
    std::uint32_t height;
  };
  /// Submits the passes from one frame to another of the same size; finish() waits for them. A
  /// picture that is wider than the NPU's rows goes through it in strips, by way of a scratch
  /// buffer.
  [[nodiscard]] Outcome<void> filter(std::span<const Pass> passes, const Frame& from,
                                     const Frame& to);
  /// Waits for all jobs and explains the first that failed.
  [[nodiscard]] Outcome<void> finish();

  /// What the hardware counted so far, for all of its sessions.
  [[nodiscard]] Outcome<accelmm_info_npu> counters() const;

 private:
  explicit Npu(accelmm::Client client) : client_(std::move(client)) {}

  /// Rows of one strip: where they are and how far apart.
  struct Rows {
    accelmm::DeviceAddr address;
    std::uint64_t stride;
  };
  struct Size {
    std::uint32_t width;
    std::uint32_t height;
  };
  [[nodiscard]] Outcome<void> convolve(const Pass& pass, Rows from, Rows to, Size size);
  [[nodiscard]] Outcome<void> filter_in_strips(std::span<const Pass> passes, const Frame& from,
                                               const Frame& to);
  [[nodiscard]] std::string describe_fault() const;

  accelmm::Client client_;
  std::vector<std::uint64_t> points_;  // of all jobs
  std::size_t finished_ = 0;           // jobs that were waited for
  std::vector<NpuBuffer> scratch_;
};

}  // namespace demo
