// SPDX-License-Identifier: Apache-2.0
#include <accelmm/negotiation.hpp>

#include <algorithm>
#include <array>
#include <limits>
#include <new>
#include <tuple>

namespace accelmm {

namespace {

struct UseName {
  Use use;
  const char* wanted;
};
constexpr std::array use_names = {UseName{Use::cpu_map, "memory that the CPU maps"},
                                  UseName{Use::pin, "memory that can be pinned by address"},
                                  UseName{Use::vmap, "memory that the kernel maps"},
                                  UseName{Use::attach, "dma-bufs"},
                                  UseName{Use::charged, "memory that is charged to a cgroup"}};

std::uint64_t pieces(ByteCount size, const SourceDescription& source) {
  if (source.contiguity == Contiguity::contiguous) return 1;
  const std::uint64_t piece = std::max<std::uint64_t>(source.segment.value(), 1);
  return size.value() / piece + (size.value() % piece == 0 ? 0 : 1);
}

// What the device is told of a piece may be cut: into parts of the largest segment.
std::uint64_t segments(ByteCount size, const Constraints& wanted, const SourceDescription& source) {
  const std::uint64_t piece =
      source.contiguity == Contiguity::contiguous
          ? size.value()
          : std::max<std::uint64_t>(std::min(source.segment, size).value(), 1);
  const std::uint64_t cut = std::max<std::uint64_t>(wanted.largest_segment.value(), 1);
  const std::uint64_t parts = piece / cut + (piece % cut == 0 ? 0 : 1);
  const std::uint64_t many = pieces(size, source);
  return parts > std::numeric_limits<std::uint64_t>::max() / std::max<std::uint64_t>(many, 1)
             ? std::numeric_limits<std::uint64_t>::max()
             : many * parts;
}

std::string bytes(std::uint64_t number) {
  return std::to_string(number) + " bytes";
}

// "X; <heap> gives Y", or nothing where the source serves. `size` is a buffer of this source.
std::optional<std::string> mismatch(const Constraints& wanted, const SourceDescription& source,
                                    ByteCount size) {
  const std::string gives = "; " + source.heap + " gives ";
  if (wanted.heaps && !wanted.heaps->contains(source.heap))
    return "another heap" + gives + "its own";
  if ((wanted.domains & source.domains).empty())
    return "another coherence domain" + gives + "its own";
  for (const auto& [use, name] : use_names) {
    if (wanted.needs.contains(use) && !source.can.contains(use)) return name + gives + "none";
  }
  if (wanted.contiguity > source.contiguity) return "contiguous memory" + gives + "scattered pages";
  if (wanted.address_bits < source.address_bits)
    return "addresses of " + std::to_string(wanted.address_bits) + " bits" + gives + "up to " +
           std::to_string(source.address_bits);
  if (wanted.base_alignment > source.granule)
    return "addresses aligned to " + bytes(wanted.base_alignment.value()) + gives + "to " +
           std::to_string(source.granule.value());
  if (size > wanted.max_size)
    return "at most " + bytes(wanted.max_size.value()) + gives + std::to_string(size.value());
  const std::uint64_t count = segments(size, wanted, source);
  if (count > wanted.max_segments)
    return "at most " + std::to_string(wanted.max_segments) + " segments" + gives + "up to " +
           std::to_string(count);
  return std::nullopt;
}

// Sizes that are multiples of what the participants and the source want.
std::optional<ByteCount> size_from(const Agreement& agreement, const SourceDescription& source) {
  Constraints both;
  both.size_divisor = source.granule.value();
  const std::uint64_t divisor = combine(agreement.all, both).size_divisor;
  const std::uint64_t size = agreement.size.value();
  if (divisor == 0) return std::nullopt;
  const std::uint64_t rest = size % divisor;
  const std::uint64_t more = rest == 0 ? 0 : divisor - rest;
  if (more > std::numeric_limits<std::uint64_t>::max() - size) return std::nullopt;
  return ByteCount(size + more);
}

// The participant whose size it is: the one that, alone, would need the most.
std::size_t largest_asker(std::span<const Participant> participants) {
  const auto size = [](const Participant& participant) {
    const auto alone = negotiate(std::span(&participant, 1));
    if (!alone && alone.error().rule == Rule::memory) throw std::bad_alloc();
    return alone ? alone->size : participant.constraints.min_size;
  };
  return static_cast<std::size_t>(std::ranges::max_element(participants, {}, size) -
                                  participants.begin());
}

std::optional<SourceRefusal> refusal(const Agreement& agreement,
                                     std::span<const Participant> participants,
                                     const SourceDescription& source) {
  const auto size = size_from(agreement, source);
  const std::size_t asker = largest_asker(participants);
  if (!size || *size > source.largest)
    return SourceRefusal{.participant = asker,
                         .reason = participants[asker].name + " wants " +
                                   bytes((size ? *size : agreement.size).value()) + "; " +
                                   source.heap + " gives at most " +
                                   std::to_string(source.largest.value())};
  for (std::size_t i = 0; i < participants.size(); ++i) {
    auto reason = mismatch(participants[i].constraints, source, *size);
    if (reason)
      return SourceRefusal{.participant = i,
                           .reason = participants[i].name + " wants " + std::move(*reason)};
  }
  // Each domain for itself may serve, and all together not.
  if (!source.domains.contains(agreement.domain) &&
      (source.domains & agreement.all.domains).empty())
    return SourceRefusal{
        .participant = 0,
        .reason = "all want one coherence domain; " + source.heap + " gives another"};
  return std::nullopt;
}

}  // namespace

Result<Resolution> resolve(const Agreement& agreement, std::span<const Participant> participants,
                           std::span<const SourceDescription> sources) noexcept {
  if (participants.empty()) return fail(Errc::invalid_argument, "nobody takes part");
  try {
    Resolution resolution;
    for (std::size_t i = 0; i < sources.size(); ++i) {
      auto refused = refusal(agreement, participants, sources[i]);
      if (!refused) {
        resolution.ranked.push_back(i);
        continue;
      }
      refused->source = i;
      resolution.refused.push_back(std::move(*refused));
    }
    std::ranges::sort(resolution.ranked, {}, [&](std::size_t i) {
      return std::tuple(!sources[i].can.contains(Use::charged), pieces(agreement.size, sources[i]),
                        i);
    });
    return resolution;
  } catch (const std::bad_alloc&) {
    return fail(Errc::no_memory, "no memory to compare sources");
  }
}

}  // namespace accelmm
