// SPDX-License-Identifier: Apache-2.0
//
// Each field of Constraints is a lattice: numbers with min or max, divisors with their least common
// multiple, sets with union or intersection. 0 is the greatest divisor, because 0 is a multiple of
// each: what does not fit in 64 bits becomes 0, and stays it. Counts that are added stop at their
// largest. So combine() is total, and the order in which participants come does not matter.
#include <accelmm/constraints.hpp>

#include <algorithm>
#include <iterator>
#include <numeric>
#include <utility>

namespace accelmm {

namespace {

constexpr std::size_t most_members = 64;

std::uint64_t common_multiple(std::uint64_t a, std::uint64_t b) {
  if (a == 0 || b == 0) return 0;
  const std::uint64_t factor = a / std::gcd(a, b);
  return factor > std::numeric_limits<std::uint64_t>::max() / b ? 0 : factor * b;
}

std::uint32_t saturating_sum(std::uint32_t a, std::uint32_t b) {
  return b > std::numeric_limits<std::uint32_t>::max() - a
             ? std::numeric_limits<std::uint32_t>::max()
             : a + b;
}

template <class T>
bool overlap(const std::optional<T>& a, const std::optional<T>& b) {
  return !a || !b || *a == *b;
}

bool overlap(const FormatPattern& a, const FormatPattern& b) {
  return overlap(a.fourcc, b.fourcc) && overlap(a.modifier, b.modifier);
}

FormatPattern narrower(const FormatPattern& a, const FormatPattern& b) {
  return {.fourcc = a.fourcc ? a.fourcc : b.fourcc,
          .modifier = a.modifier ? a.modifier : b.modifier};
}

ImageConstraints combine(const ImageConstraints& a, const ImageConstraints& b) {
  return {.min_stride = std::max(a.min_stride, b.min_stride),
          .max_stride = std::min(a.max_stride, b.max_stride),
          .stride_divisor = common_multiple(a.stride_divisor, b.stride_divisor),
          .rows = std::max(a.rows, b.rows),
          .min_size = std::max(a.min_size, b.min_size),
          .cost = saturating_sum(a.cost, b.cost)};
}

using Images = std::optional<std::map<FormatPattern, ImageConstraints>>;

// The patterns of one side do not overlap, so what they have in common with one of the other side
// does not either: no pattern comes out twice.
Images combine(const Images& a, const Images& b) {
  if (!a) return b;
  if (!b) return a;
  std::map<FormatPattern, ImageConstraints> both;
  for (const auto& [one, image] : *a) {
    for (const auto& [other, other_image] : *b) {
      if (overlap(one, other)) both.emplace(narrower(one, other), combine(image, other_image));
    }
  }
  return both;
}

using Heaps = std::optional<std::set<std::string>>;

Heaps combine(const Heaps& a, const Heaps& b) {
  if (!a) return b;
  if (!b) return a;
  std::set<std::string> both;
  std::ranges::set_intersection(*a, *b, std::inserter(both, both.end()));
  return both;
}

BufferCounts combine(const BufferCounts& a, const BufferCounts& b) {
  return {.camping = saturating_sum(a.camping, b.camping),
          .dedicated = saturating_sum(a.dedicated, b.dedicated),
          .shared = std::max(a.shared, b.shared),
          .min = std::max(a.min, b.min),
          .max = std::min(a.max, b.max)};
}

bool patterns_overlap(const std::map<FormatPattern, ImageConstraints>& images) {
  for (auto one = images.begin(); one != images.end(); ++one) {
    for (auto other = std::next(one); other != images.end(); ++other) {
      if (overlap(one->first, other->first)) return true;
    }
  }
  return false;
}

}  // namespace

bool is_well_formed(const Constraints& constraints) {
  if (constraints.address_bits == 0 || constraints.address_bits > 64) return false;
  if (constraints.size_divisor == 0 || constraints.offset_divisor == 0) return false;
  if (constraints.heaps && constraints.heaps->size() > most_members) return false;
  if (!constraints.images) return true;
  if (constraints.images->size() > most_members) return false;
  if (std::ranges::any_of(*constraints.images,
                          [](const auto& image) { return image.second.stride_divisor == 0; }))
    return false;
  return !patterns_overlap(*constraints.images);
}

Constraints combine(const Constraints& a, const Constraints& b) {
  return {.min_size = std::max(a.min_size, b.min_size),
          .max_size = std::min(a.max_size, b.max_size),
          .padding = std::max(a.padding, b.padding),
          .size_divisor = common_multiple(a.size_divisor, b.size_divisor),
          .offset_divisor = common_multiple(a.offset_divisor, b.offset_divisor),
          .base_alignment = std::max(a.base_alignment, b.base_alignment),
          .contiguity = std::max(a.contiguity, b.contiguity),
          .address_bits = std::min(a.address_bits, b.address_bits),
          .largest_segment = std::min(a.largest_segment, b.largest_segment),
          .max_segments = std::min(a.max_segments, b.max_segments),
          .needs = a.needs | b.needs,
          .domains = a.domains & b.domains,
          .heaps = combine(a.heaps, b.heaps),
          .counts = combine(a.counts, b.counts),
          .images = combine(a.images, b.images)};
}

}  // namespace accelmm
