// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/device_heap.hpp>
#include <accelmm/driver.hpp>
#include <accelmm/timeline.hpp>
#include <accelmm/transport.hpp>

#include <cstdint>
#include <memory>

namespace accelmm::devices {

/// Hears when the memory of a device gets short, and tells its driver and whoever waits for it.
///
/// The heap calls in the middle of what allocates and frees; what is told here may do both, so it is
/// told later, from the loop.
/// Threads   the loop's.
/// Lifetime  shared with what it has posted; forget_driver() before the driver is brought down.
class PressureWatch final : public PressureListener,
                            public std::enable_shared_from_this<PressureWatch> {
 public:
  PressureWatch(Transport& transport, Driver& driver) : transport_(transport), driver_(&driver) {
    static_cast<void>(timeline_.next());
  }

  void on_pressure(Pressure pressure, ByteCount available) noexcept override;
  void forget_driver() noexcept { driver_ = nullptr; }

  [[nodiscard]] Pressure pressure() const { return now_; }
  [[nodiscard]] std::uint64_t changes() const { return changes_; }
  /// Its n-th point is reached by the n-th change; the next one is always given out.
  [[nodiscard]] Timeline& timeline() { return timeline_; }

 private:
  void tell();

  Transport& transport_;
  Driver* driver_;  // null once it is being brought down
  Timeline timeline_;
  Pressure now_ = Pressure::none;
  Pressure told_ = Pressure::none;  // the driver
  ByteCount available_;
  std::uint64_t changes_ = 0;
  bool posted_ = false;
};

}  // namespace accelmm::devices
