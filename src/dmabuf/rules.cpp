// SPDX-License-Identifier: Apache-2.0
#include "dmabuf/rules.hpp"

#include <accelmm/check.hpp>

#include <algorithm>
#include <limits>

namespace accelmm::dmabuf {

namespace {

constexpr std::uint64_t most = std::numeric_limits<std::uint64_t>::max();

std::optional<std::uint64_t> sum(std::uint64_t a, std::uint64_t b) {
  if (b > most - a) return std::nullopt;
  return a + b;
}

std::optional<std::uint64_t> product(std::uint64_t a, std::uint64_t b) {
  if (a != 0 && b > most / a) return std::nullopt;
  return a * b;
}

std::optional<std::uint64_t> next_multiple(std::uint64_t value, std::uint64_t divisor) {
  if (value == 0) return 0;
  if (divisor == 0) return std::nullopt;
  const std::uint64_t rest = value % divisor;
  return rest == 0 ? value : sum(value, divisor - rest);
}

// Of the sizes, addresses and segments that are allowed.
std::uint64_t largest_size(const Constraints& constraints) {
  std::uint64_t largest = constraints.max_size.value();
  if (constraints.address_bits < 64)
    largest = std::min(largest, std::uint64_t{1} << constraints.address_bits);
  const auto in_segments = product(constraints.largest_segment.value(), constraints.max_segments);
  return in_segments ? std::min(largest, *in_segments) : largest;
}

std::optional<std::uint64_t> fitting_size(const Constraints& constraints, std::uint64_t content) {
  const auto used = sum(content, constraints.padding.value());
  if (!used) return std::nullopt;
  const auto size = next_multiple(*used, constraints.size_divisor);
  if (!size || *size > largest_size(constraints)) return std::nullopt;
  return size;
}

bool domain_holds(const Constraints& constraints) {
  CoherenceDomains usable = constraints.domains;
  if (constraints.needs.contains(Use::cpu_map))
    usable &= {CoherenceDomain::cpu, CoherenceDomain::ram};
  return !usable.empty();
}

bool layout_holds(const Constraints& constraints) {
  if (!constraints.images) return true;
  const auto fits = [&](const auto& image) { return fit(constraints, image.second).has_value(); };
  const auto is_named = [](const auto& image) { return image.first.fourcc.has_value(); };
  if (std::ranges::none_of(*constraints.images, is_named))
    return std::ranges::any_of(*constraints.images, fits);
  return std::ranges::any_of(*constraints.images,
                             [&](const auto& image) { return is_named(image) && fits(image); });
}

}  // namespace

std::optional<Fit> fit(const Constraints& constraints, const ImageConstraints& image) {
  const auto stride = next_multiple(image.min_stride.value(), image.stride_divisor);
  if (!stride || *stride > image.max_stride.value()) return std::nullopt;
  const auto lines = product(*stride, image.rows);
  if (!lines) return std::nullopt;
  const std::uint64_t content =
      std::max({*lines, image.min_size.value(), constraints.min_size.value()});
  const auto size = fitting_size(constraints, content);
  if (!size) return std::nullopt;
  return Fit{.stride = ByteCount(*stride), .size = ByteCount(*size)};
}

std::optional<std::uint32_t> fitting_count(const BufferCounts& counts) {
  const std::uint64_t held =
      std::uint64_t{counts.camping} + std::uint64_t{counts.dedicated} + counts.shared;
  const std::uint64_t needed = std::max({held, std::uint64_t{counts.min}, std::uint64_t{1}});
  if (needed > counts.max) return std::nullopt;
  return static_cast<std::uint32_t>(needed);
}

bool holds(Rule rule, const Constraints& constraints) {
  switch (rule) {
    case Rule::divisor:
      return constraints.size_divisor != 0 && constraints.offset_divisor != 0;
    case Rule::address:
      return constraints.address_bits == 64 ||
             constraints.base_alignment.value() >> constraints.address_bits == 0;
    case Rule::size:
      return fit(constraints, ImageConstraints{}).has_value();
    case Rule::heap:
      return !constraints.heaps || !constraints.heaps->empty();
    case Rule::domain:
      return domain_holds(constraints);
    case Rule::count:
      return fitting_count(constraints.counts).has_value();
    case Rule::format:
      return !constraints.images || !constraints.images->empty();
    case Rule::layout:
      return layout_holds(constraints);
    case Rule::well_formed:
    case Rule::named:
    case Rule::memory:
      break;
  }
  ACCELMM_CHECK(rule <= Rule::layout && rule >= Rule::divisor);
  return false;
}

}  // namespace accelmm::dmabuf
