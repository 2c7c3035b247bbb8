// SPDX-License-Identifier: Apache-2.0
#include "devices/pressure_watch.hpp"

#include "base/until_memory.hpp"

namespace accelmm::devices {

void PressureWatch::on_pressure(Pressure pressure, ByteCount available) noexcept {
  now_ = pressure;
  available_ = available;
  ++changes_;
  if (posted_) return;
  until_memory([this] { transport_.post([self = shared_from_this()] { self->tell(); }); });
  posted_ = true;
}

void PressureWatch::tell() {
  posted_ = false;
  // Points are given out one ahead, so that whoever knows how many changes there were can wait for
  // the next.
  const std::uint64_t changes = changes_;
  while (timeline_.reached() < changes) {
    const std::uint64_t change = timeline_.reached() + 1;
    static_cast<void>(timeline_.next());
    timeline_.reach(change);
  }
  if (driver_ == nullptr || told_ == now_) return;
  told_ = now_;
  driver_->pressure(now_, available_);
}

}  // namespace accelmm::devices
