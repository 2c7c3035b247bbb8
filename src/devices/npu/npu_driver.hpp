// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/device.hpp>
#include <accelmm/driver.hpp>
#include <accelmm/sim/npu_model.hpp>
#include <accelmm/units.hpp>

#include <cstdint>
#include <memory>

namespace accelmm::sim {

struct NpuOptions {
  ByteCount memory = ByteCount(std::uint64_t{4} << 30);
  /// Page tables only: 16384 of them, enough for 32 GiB mapped in small pages.
  ByteCount private_memory = ByteCount(std::uint64_t{64} << 20);
  ComputeSessions compute_sessions = ComputeSessions::many;
  NpuModelOptions model;
  /// Test hook: while the job of this number (the first is 1) waits and runs, the page-table entry
  /// of its source address is gone, behind the back of the code that wrote it. 0: never.
  std::uint64_t drop_entry = 0;
};

/// What the NPU is, for Runtime::register_device().
[[nodiscard]] DeviceDescription npu_description(const NpuOptions& options);

/// The driver of the NPU, with its hardware, which is switched on at probe.
/// Errors  no_memory.
[[nodiscard]] Result<std::unique_ptr<Driver>> make_npu_driver(const NpuOptions& options);

}  // namespace accelmm::sim
