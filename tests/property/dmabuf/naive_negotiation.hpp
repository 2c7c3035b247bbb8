// SPDX-License-Identifier: Apache-2.0
//
// A negotiation that combines nothing: each participant is asked about each allocation of a small
// world, and random participants of that world. A wrong operator in combine(), or a wrong rule, shows
// as an allocation that somebody refuses, or as a refusal where an allocation exists.
#pragma once

#include <accelmm/negotiation.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace accelmm::test {

/// A number in [0, sides).
using Roll = std::function<std::uint64_t(std::uint64_t sides)>;

/// The world: two formats, two modifiers, three heaps, limits of strides to 40, at most five rows.
inline constexpr std::uint64_t world_strides = 40;
/// The largest of the least strides: divisors to 8 have no larger common multiple.
inline constexpr std::uint64_t largest_stride = 840;
/// No least size is larger: five rows of the largest stride, paddings below 20 of four participants, and
/// that rounded up to a common multiple of divisors to 6.
inline constexpr std::uint64_t world_sizes = 5 * largest_stride + 4 * 20 + 60;
inline constexpr std::array world_formats = {PixelFormat{1, 0}, PixelFormat{1, 1},
                                             PixelFormat{2, 0}, PixelFormat{2, 1}};
inline constexpr std::array world_heaps = {"one", "two", "three"};

inline ImageConstraints random_image(const Roll& roll) {
  ImageConstraints image;
  if (roll(2) == 0) image.min_stride = ByteCount(roll(20));
  if (roll(3) == 0) image.max_stride = ByteCount(roll(world_strides));
  if (roll(2) == 0) image.stride_divisor = 1 + roll(8);
  if (roll(2) == 0) image.rows = static_cast<std::uint32_t>(roll(6));
  if (roll(3) == 0) image.min_size = ByteCount(roll(100));
  image.cost = static_cast<std::uint32_t>(roll(4));
  return image;
}

inline FormatPattern random_pattern(const Roll& roll) {
  FormatPattern pattern;
  if (roll(4) != 0) pattern.fourcc = static_cast<std::uint32_t>(1 + roll(2));
  if (roll(4) != 0) pattern.modifier = roll(2);
  return pattern;
}

/// Well-formed constraints of the world, mostly with few demands.
inline Constraints random_constraints(const Roll& roll) {
  Constraints made;
  if (roll(2) == 0) made.min_size = ByteCount(1 + roll(80));
  if (roll(4) == 0) made.max_size = ByteCount(20 + roll(200));
  if (roll(4) == 0) made.padding = ByteCount(roll(20));
  if (roll(2) == 0) made.size_divisor = 1 + roll(6);
  if (roll(4) == 0) made.offset_divisor = 1 + roll(6);
  if (roll(4) == 0) made.base_alignment = Alignment(std::uint64_t{1} << roll(7));
  if (roll(6) == 0) made.address_bits = static_cast<unsigned>(5 + roll(5));
  if (roll(6) == 0) made.largest_segment = ByteCount(1 + roll(30));
  if (roll(6) == 0) made.max_segments = static_cast<std::uint32_t>(1 + roll(16));
  if (roll(4) == 0) made.contiguity = Contiguity::contiguous;
  if (roll(4) == 0) made.needs |= {Use::cpu_map};
  if (roll(8) == 0) made.domains &= {CoherenceDomain::cpu, CoherenceDomain::inaccessible};
  if (roll(8) == 0) made.domains &= {CoherenceDomain::ram, CoherenceDomain::inaccessible};
  if (roll(8) == 0) made.domains &= {CoherenceDomain::inaccessible};
  if (roll(4) == 0) {
    made.heaps.emplace();
    for (const char* heap : world_heaps) {
      if (roll(3) != 0) made.heaps->insert(heap);
    }
  }
  made.counts = {.camping = static_cast<std::uint32_t>(roll(3)),
                 .dedicated = static_cast<std::uint32_t>(roll(2)),
                 .shared = static_cast<std::uint32_t>(roll(3)),
                 .min = static_cast<std::uint32_t>(roll(5))};
  if (roll(4) == 0) made.counts.max = static_cast<std::uint32_t>(3 + roll(6));
  if (roll(2) != 0) return made;
  made.images.emplace();
  const std::uint64_t patterns = 1 + roll(4);
  for (std::uint64_t i = 0; i < patterns; ++i) {
    // In this order, so that an input means the same to each compiler.
    const FormatPattern pattern = random_pattern(roll);
    const auto [entry, fresh] = made.images->emplace(pattern, random_image(roll));
    if (fresh && !is_well_formed(made)) made.images->erase(entry);
  }
  return made;
}

inline std::vector<Participant> random_participants(const Roll& roll, std::uint64_t most) {
  std::vector<Participant> participants;
  const std::uint64_t count = 1 + roll(most);
  for (std::uint64_t i = 0; i < count; ++i)
    participants.push_back({std::string(1, static_cast<char>('a' + i)), random_constraints(roll)});
  return participants;
}

/// The entry of a participant that names a format; nullptr: none does. `named` collects what its
/// pattern names of it.
struct Named {
  bool fourcc = false;
  bool modifier = false;
};
inline const ImageConstraints* entry_for(const Participant& participant, PixelFormat format,
                                         Named& named) {
  for (const auto& [pattern, image] : *participant.constraints.images) {
    if (pattern.fourcc && *pattern.fourcc != format.fourcc) continue;
    if (pattern.modifier && *pattern.modifier != format.modifier) continue;
    named.fourcc |= pattern.fourcc.has_value();
    named.modifier |= pattern.modifier.has_value();
    return &image;
  }
  return nullptr;
}

class NaiveNegotiation {
 public:
  explicit NaiveNegotiation(std::span<const Participant> participants)
      : participants_(participants) {}

  /// What negotiate() must find; nothing: there is nothing.
  [[nodiscard]] std::optional<Agreement> run() const {
    Agreement found;
    if (!heap_exists() || !address_exists()) return std::nullopt;
    if (!find_count(found) || !find_domain(found)) return std::nullopt;
    const bool images = std::ranges::any_of(
        participants_, [](const auto& one) { return one.constraints.images.has_value(); });
    if (!images) return find_size(0, 0, found) ? std::optional(found) : std::nullopt;
    std::optional<Agreement> best;
    std::uint64_t best_cost = 0;
    for (const PixelFormat format : world_formats) {
      const auto cost = find_layout(format, found);
      if (!cost || (best && *cost >= best_cost)) continue;
      best = found;
      best_cost = *cost;
    }
    return best;
  }

 private:
  template <class Predicate>
  [[nodiscard]] bool all(Predicate predicate) const {
    return std::ranges::all_of(participants_,
                               [&](const auto& one) { return predicate(one.constraints); });
  }

  [[nodiscard]] bool heap_exists() const {
    // What no list names may be "another": it serves where nobody has a list.
    for (const char* heap : {"one", "two", "three", "another"}) {
      if (all([&](const auto& c) { return !c.heaps || c.heaps->contains(heap); })) return true;
    }
    return false;
  }
  [[nodiscard]] bool address_exists() const {
    for (std::uint64_t address = 1; address <= 1024; ++address) {
      if (all([&](const auto& c) {
            return address % c.base_alignment.value() == 0 &&
                   (c.address_bits == 64 || address < std::uint64_t{1} << c.address_bits);
          }))
        return true;
    }
    return false;
  }
  bool find_count(Agreement& found) const {
    std::uint32_t used = 0;
    std::uint32_t shared = 0;
    for (const auto& one : participants_) {
      used += one.constraints.counts.camping + one.constraints.counts.dedicated;
      shared = std::max(shared, one.constraints.counts.shared);
    }
    for (found.count = 1; found.count < 100; ++found.count) {
      if (found.count >= used + shared && all([&](const auto& c) {
            return found.count >= c.counts.min && found.count <= c.counts.max;
          }))
        return true;
    }
    return false;
  }
  bool find_domain(Agreement& found) const {
    const bool by_cpu = !all([](const auto& c) { return !c.needs.contains(Use::cpu_map); });
    std::vector<CoherenceDomain> order = {CoherenceDomain::inaccessible, CoherenceDomain::ram,
                                          CoherenceDomain::cpu};
    if (by_cpu) order = {CoherenceDomain::cpu, CoherenceDomain::ram};
    for (const CoherenceDomain domain : order) {
      found.domain = domain;
      if (all([&](const auto& c) { return c.domains.contains(domain); })) return true;
    }
    return false;
  }
  bool find_size(std::uint64_t image, std::uint64_t lines, Agreement& found) const {
    std::uint64_t content = std::max(image, lines);
    for (const auto& one : participants_)
      content = std::max(content, one.constraints.min_size.value());
    for (std::uint64_t size = 1; size <= world_sizes; ++size) {
      if (all([&](const auto& c) {
            return size >= content + c.padding.value() && size <= c.max_size.value() &&
                   size % c.size_divisor == 0 &&
                   (c.address_bits == 64 || size <= std::uint64_t{1} << c.address_bits);
          }) &&
          in_segments(size)) {
        found.size = ByteCount(size);
        return true;
      }
    }
    return false;
  }
  // A piece must suit all, so the shortest limit holds for all of them.
  [[nodiscard]] bool in_segments(std::uint64_t size) const {
    std::uint64_t longest = world_sizes;
    std::uint64_t most = world_sizes;
    for (const auto& one : participants_) {
      longest = std::min(longest, one.constraints.largest_segment.value());
      most = std::min<std::uint64_t>(most, one.constraints.max_segments);
    }
    return size <= longest * most;
  }
  // The cost of a format with its least stride and size; nothing: it cannot be.
  std::optional<std::uint64_t> find_layout(PixelFormat format, Agreement& found) const {
    std::vector<const ImageConstraints*> entries;
    Named named;
    for (const auto& one : participants_) {
      if (!one.constraints.images) continue;
      entries.push_back(entry_for(one, format, named));
      if (entries.back() == nullptr) return std::nullopt;
    }
    if (!named.fourcc || (format.modifier != 0 && !named.modifier)) return std::nullopt;
    std::uint64_t cost = 0;
    std::uint64_t least = 0;
    std::uint32_t rows = 0;
    for (const auto* entry : entries) {
      cost += entry->cost;
      least = std::max(least, entry->min_size.value());
      rows = std::max(rows, entry->rows);
    }
    for (std::uint64_t stride = 0; stride <= largest_stride; ++stride) {
      if (!std::ranges::all_of(entries, [&](const auto* entry) {
            return stride >= entry->min_stride.value() && stride <= entry->max_stride.value() &&
                   stride % entry->stride_divisor == 0;
          }))
        continue;
      found.image = {.format = format, .stride = ByteCount(stride), .rows = rows};
      return find_size(least, stride * rows, found) ? std::optional(cost) : std::nullopt;
    }
    return std::nullopt;
  }

  std::span<const Participant> participants_;
};

/// Whether two answers name the same allocation.
inline bool same(const Agreement& a, const Agreement& b) {
  return a.size == b.size && a.count == b.count && a.domain == b.domain && a.image == b.image;
}

/// The participants whom a disagreement names.
inline std::vector<Participant> named_by(const Disagreement& disagreement,
                                         std::span<const Participant> participants) {
  std::vector<Participant> named;
  for (const Participant& one : participants) {
    if (std::ranges::any_of(disagreement.demands,
                            [&](const Demand& demand) { return demand.participant == one.name; }))
      named.push_back(one);
  }
  return named;
}

/// Whether those whom it names disagree by themselves, and any one fewer of them do not.
inline bool is_irreducible(const Disagreement& disagreement,
                           std::span<const Participant> participants) {
  const std::vector<Participant> named = named_by(disagreement, participants);
  const auto alone = negotiate(named);
  if (alone || alone.error().rule != disagreement.rule) return false;
  if (disagreement.rule == Rule::named) return true;
  for (std::size_t i = 0; i < named.size(); ++i) {
    std::vector<Participant> fewer = named;
    fewer.erase(fewer.begin() + static_cast<std::ptrdiff_t>(i));
    const auto without = negotiate(fewer);
    if (!without && without.error().rule == disagreement.rule) return false;
  }
  return true;
}

/// What is wrong with an answer of negotiate(); nullptr: nothing.
inline const char* fault_of(std::span<const Participant> participants) {
  const auto expected = NaiveNegotiation(participants).run();
  const auto found = negotiate(participants);
  if (found && !expected) return "agrees on what somebody refuses";
  if (!found && expected) return "refuses although an allocation satisfies all";
  if (!found) {
    return is_irreducible(found.error(), participants)
               ? nullptr
               : "names those who would agree, or more than needed";
  }
  return same(*found, *expected) ? nullptr : "is not the least that serves";
}

}  // namespace accelmm::test
