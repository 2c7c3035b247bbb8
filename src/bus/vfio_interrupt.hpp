// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "bus/vfio_files.hpp"

#include <accelmm/vfio_device.hpp>

#include <atomic>
#include <memory>

namespace accelmm {

/// An eventfd that the kernel signals when the interrupt comes.
struct VfioInterrupt::State {
  State(std::shared_ptr<const VfioFiles> of, Kind which, UniqueFd event)
      : files(std::move(of)), kind(which), signalled(std::move(event)) {}
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  ~State();

  /// The best kind that the device has.
  /// Errors  not_supported: none.  busy: it is in use.
  [[nodiscard]] static Result<std::unique_ptr<State>> open(std::shared_ptr<const VfioFiles> files);
  [[nodiscard]] Result<void> switch_on();

  std::shared_ptr<const VfioFiles> files;
  Kind kind;
  UniqueFd signalled;
  std::atomic<bool> canceled{false};
  bool on = false;
};

}  // namespace accelmm
