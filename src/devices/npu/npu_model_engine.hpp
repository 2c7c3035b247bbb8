// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "npu_model_mmu.hpp"

#include <accelmm/error.hpp>
#include <accelmm/sim/npu_model.hpp>
#include <accelmm/units.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <expected>
#include <functional>
#include <optional>
#include <span>
#include <vector>

namespace accelmm::sim {

/// The engine of the NPU: it executes one command after the other, in bursts through the MMU.
///
/// Between two bursts it asks whether to go on; that is when translations are forgotten and work is
/// stopped, so that no burst ever sees either happen halfway.
/// Owns      the SRAM: four lines of NpuModel::max_width bytes.
/// Threads   the model's thread.
class NpuEngine {
 public:
  enum class Verdict : std::uint8_t { go_on, stop };
  using BetweenBursts = std::function<Verdict()>;

  /// May throw std::bad_alloc.
  NpuEngine(NpuMmu& mmu, BetweenBursts between_bursts);

  /// Why a command ended before its work was done: a fault, or a verdict to stop.
  struct Interruption {
    std::optional<NpuFault> fault;
  };
  using Progress = std::expected<void, Interruption>;

  [[nodiscard]] Progress execute(std::uint32_t asid, const NpuCopy& copy);
  [[nodiscard]] Progress execute(std::uint32_t asid, const NpuConvolve& convolve);
  [[nodiscard]] Progress execute(std::uint32_t asid, const NpuMove& move);

  /// Whether execute() may be called with it. Errors: as NpuModel::check().
  [[nodiscard]] static Result<void> check(const NpuCopy& copy);
  [[nodiscard]] static Result<void> check(const NpuConvolve& convolve);
  [[nodiscard]] static Result<void> check(const NpuMove& move);

 private:
  using Line = std::span<std::byte>;

  [[nodiscard]] Progress load(std::uint32_t asid, DeviceAddr from, Line line);
  [[nodiscard]] Progress store(std::uint32_t asid, DeviceAddr to, Line line);
  [[nodiscard]] Line line(std::size_t number, std::size_t size);

  NpuMmu& mmu_;
  BetweenBursts between_bursts_;
  std::vector<std::byte> sram_;
};

}  // namespace accelmm::sim
