// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/error.hpp>
#include <accelmm/extent.hpp>
#include <accelmm/mmu/format.hpp>
#include <accelmm/units.hpp>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>

namespace accelmm::mmu {

/// Leaves of one size that stand side by side in one table.
struct Stretch {
  std::uint64_t va;
  std::uint64_t bus;
  unsigned hop;
  std::uint32_t index;
  std::uint32_t count;
};

/// Cuts a list of runs, mapped one after the other from a device address, into stretches of the
/// largest leaves.
///
/// Runs that continue each other on the bus are one run. At each point the largest leaf is taken
/// that the device address, the bus address and the rest of the run allow. A stretch ends where its
/// table ends: the only place where a larger leaf can begin to fit.
/// Pre   check_runs() accepted the same arguments.
/// Cost  next() O(hops + runs merged).
template <PteFormat F>
class RunSplitter {
  using G = Geometry<F>;

 public:
  RunSplitter(DeviceAddr va, std::span<const Run> runs) : runs_(runs), va_(va.value()) {}

  /// The next stretch, in ascending order of device addresses; nothing after the last.
  [[nodiscard]] std::optional<Stretch> next() {
    if (left_ == 0) {
      if (next_run_ == runs_.size()) return std::nullopt;
      merge();
    }
    const unsigned hop = largest_leaf();
    const std::uint64_t size = G::span(hop);
    const std::uint32_t index = G::index(hop, va_);
    const std::uint64_t room = G::entries(hop) - index;
    const auto count = static_cast<std::uint32_t>(std::min(room, left_ / size));
    const Stretch stretch{va_, bus_, hop, index, count};
    va_ += count * size;
    bus_ += count * size;
    left_ -= count * size;
    return stretch;
  }

 private:
  void merge() {
    bus_ = runs_[next_run_].address.value();
    do {
      left_ += runs_[next_run_].length.value();
      ++next_run_;
    } while (next_run_ < runs_.size() && runs_[next_run_].address.value() == bus_ + left_);
  }

  [[nodiscard]] unsigned largest_leaf() const {
    for (unsigned hop = 0; hop < G::last_hop; ++hop)
      if (F::has_leaf(hop) && left_ >= G::span(hop) && ((va_ | bus_) & (G::span(hop) - 1)) == 0)
        return hop;
    return G::last_hop;
  }

  std::span<const Run> runs_;
  std::size_t next_run_ = 0;
  std::uint64_t va_;
  std::uint64_t bus_ = 0;
  std::uint64_t left_ = 0;  // of the merged run that bus_ lies in
};

/// Adds up a list of runs, refusing what a format of these pages and bus addresses cannot map.
///
/// Errors  invalid_argument: no runs, an empty or unaligned one, one beyond the bus addresses, or a
///         sum beyond 64 bits.
[[nodiscard]] inline Result<ByteCount> total_length(std::span<const Run> runs, Alignment page,
                                                    unsigned bus_bits) {
  constexpr std::uint64_t most = std::numeric_limits<std::uint64_t>::max();
  const std::uint64_t bus_last = most >> (64 - bus_bits);
  if (runs.empty()) return fail(Errc::invalid_argument, "nothing to map");
  std::uint64_t total = 0;
  for (const Run& run : runs) {
    const std::uint64_t length = run.length.value();
    if (length == 0 || !page.divides(length) || !page.divides(run.address))
      return fail(Errc::invalid_argument, "run is empty or not whole pages");
    if (run.address.value() > bus_last || length - 1 > bus_last - run.address.value())
      return fail(Errc::invalid_argument, "run lies beyond the bus addresses of the format");
    if (length > most - total)
      return fail(Errc::invalid_argument, "runs are longer than any address space");
    total += length;
  }
  return ByteCount(total);
}

/// The device addresses that the runs take from `va` on.
///
/// Errors  invalid_argument: total_length() refuses the runs, `va` is unaligned, or the end lies
///         beyond the format's device addresses.
template <PteFormat F>
[[nodiscard]] Result<Range<DeviceAddr>> check_runs(DeviceAddr va, std::span<const Run> runs) {
  constexpr Alignment page(Geometry<F>::page_size);
  const auto total = total_length(runs, page, F::bus_bits);
  if (!total) return fail(total.error());
  if (!page.divides(va))
    return fail(Errc::invalid_argument, "device address is not aligned to a page");
  if (va.value() >= Geometry<F>::va_end || total->value() > Geometry<F>::va_end - va.value())
    return fail(Errc::invalid_argument, "mapping ends beyond the device addresses of the format");
  return Range<DeviceAddr>{va, va + *total};
}

}  // namespace accelmm::mmu
