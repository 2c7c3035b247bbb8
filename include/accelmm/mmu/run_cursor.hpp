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
#include <span>

namespace accelmm::mmu {

/// Leaves of one size that stand side by side in one table.
struct Stretch {
  std::uint64_t va;
  std::uint64_t bus;
  std::uint64_t bytes;
  unsigned lg2;  ///< each leaf has 2^lg2 bytes
  constexpr bool operator==(const Stretch&) const = default;
};

/// Goes along a list of runs that are mapped one after the other from a device address, and says at
/// each point what the largest leaf is.
///
/// Runs that continue each other on the bus are one run. A leaf fits where device address and bus
/// address are aligned to it and the rest of the run covers it.
/// Pre   check_runs() accepted the same arguments.
/// Cost  O(1) a call, and O(1) a run merged.
template <PteFormat F>
class RunCursor {
  using G = Geometry<F>;

 public:
  RunCursor(DeviceAddr va, std::span<const Run> runs)
      : run_(runs.data()), end_(runs.data() + runs.size()), va_(va.value()) {
    merge();
  }

  [[nodiscard]] bool done() const { return left_ == 0; }
  [[nodiscard]] std::uint64_t va() const { return va_; }
  [[nodiscard]] std::uint64_t bus() const { return bus_; }
  /// Bytes up to the end of this run.
  [[nodiscard]] std::uint64_t left() const { return left_; }

  /// Whether leaves of one entry of the hop can fit anywhere in this run. Pre: not done.
  [[nodiscard]] bool is_congruent(unsigned hop) const {
    return ((va_ ^ bus_) & (G::span(hop) - 1)) == 0;
  }
  /// Whether this run goes on up to `va`, or beyond.
  [[nodiscard]] bool reaches(std::uint64_t va) const { return left_ >= va - va_; }

  /// The largest leaf here, as a power of two. Pre: not done.
  [[nodiscard]] unsigned largest_leaf() const {
    const std::uint64_t place = va_ | bus_ | (std::uint64_t{1} << 63);
    const std::uint64_t most = std::min(std::bit_floor(left_), place & (~place + 1));
    return static_cast<unsigned>(std::bit_width(G::leaf_sizes() & (most | (most - 1)))) - 1;
  }

  /// The leaves of largest_leaf() here, up to where a larger one may begin or the table of `hop`
  /// ends. Pre: they stand in tables of `hop`.
  [[nodiscard]] Stretch stretch(unsigned hop, unsigned lg2) const {
    constexpr std::uint64_t one = 1;
    const std::uint64_t larger = G::leaf_sizes() & ~((one << lg2 << 1) - 1);
    const std::uint64_t next_size = larger & (~larger + 1);
    std::uint64_t border = one << (F::shift(hop) + F::index_bits(hop));
    if (next_size != 0 && ((va_ ^ bus_) & (next_size - 1)) == 0)
      border = std::min(border, next_size);
    std::uint64_t bytes = std::min(left_ & ~((one << lg2) - 1), border - (va_ & (border - 1)));
    if constexpr (F::step_bits < 64) {
      constexpr std::uint64_t part = std::uint64_t{1} << F::step_bits;
      bytes = std::min(bytes, part - (bus_ & (part - 1)));
    }
    return {va_, bus_, bytes, lg2};
  }

  /// Pre: the run lasts as long.
  void advance(std::uint64_t bytes) {
    va_ += bytes;
    bus_ += bytes;
    left_ -= bytes;
    if (left_ == 0) merge();
  }

  /// Goes on to `va`, or to the end.
  void skip_to(std::uint64_t va) {
    while (va_ < va && left_ != 0) advance(std::min(va - va_, left_));
  }

 private:
  void merge() {
    if (run_ == end_) return;
    bus_ = run_->address.value();
    do {
      left_ += run_->length.value();
      ++run_;
    } while (run_ != end_ && run_->address.value() == bus_ + left_);
  }

  const Run* run_;
  const Run* end_;
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
