// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/constraints.hpp>
#include <accelmm/error.hpp>
#include <accelmm/units.hpp>

#include <cstddef>
#include <cstdint>
#include <expected>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace accelmm {

/// Somebody who will use the buffers: a camera, an accelerator, a display, a process.
struct Participant {
  std::string name;  // as explanations call it
  Constraints constraints;
};

/// A pixel format and how its pixels are ordered in memory, by the numbers of drm_fourcc.h.
struct PixelFormat {
  std::uint32_t fourcc = 0;
  std::uint64_t modifier = 0;  // DRM_FORMAT_MOD_LINEAR
  auto operator<=>(const PixelFormat&) const = default;
};

struct AgreedImage {
  PixelFormat format;
  ByteCount stride;
  std::uint32_t rows = 0;
  bool operator==(const AgreedImage&) const = default;
};

/// One allocation that satisfies all participants.
struct Agreement {
  Constraints all = {};  // what they demand together, for who changes sizes later
  ByteCount size{};      // of each buffer: the least that serves
  std::uint32_t count = 0;
  CoherenceDomain domain = CoherenceDomain::cpu;
  std::optional<AgreedImage> image = {};  // nothing: nobody spoke of images
};

/// What participants may disagree about.
enum class Rule : std::uint8_t {
  well_formed,  // one of them demands what means nothing
  divisor,      // no 64-bit number is a multiple of all divisors
  address,      // alignment and address bits leave no address
  size,         // the smallest buffer that serves is larger than one may be
  heap,
  domain,  // where the CPU sees it, or not
  count,
  format,  // no pixel format and modifier is in all lists
  layout,  // no format that is leaves a stride and a size
  named,   // they speak of images, and nobody names a format
  memory,  // none was left to find out
};

/// What one participant contributes to a disagreement.
struct Demand {
  std::string participant;
  std::string wants;  // with its values, e.g. "at least 614400 bytes"
};

/// Why there is no agreement: the demands that contradict each other, mostly of two participants. If
/// any one of them gave way the others would agree on this rule.
struct Disagreement {
  Rule rule = Rule::memory;
  std::vector<Demand> demands = {};

  /// "size: camera wants at least 614400 bytes; display wants at most 524288 bytes".
  /// Throws  std::bad_alloc.
  [[nodiscard]] std::string text() const;
};

/// Finds what satisfies all: the cheapest format that fits, its least stride, the least size and
/// number of buffers. A pure function: participants may come in any order.
///
/// Cost  O(participants * formats^2); a disagreement O(participants^2 * formats^2).
[[nodiscard]] std::expected<Agreement, Disagreement> negotiate(
    std::span<const Participant> participants) noexcept;

/// Somewhere buffers can be had, and what its memory is like.
struct SourceDescription {
  std::string heap;  // its name, as Constraints::heaps has it
  Contiguity contiguity = Contiguity::scattered;
  unsigned address_bits = 64;  // it promises bus addresses below 2^this
  Alignment granule{4096};     // sizes are multiples of it, and bus addresses aligned to it
  ByteCount largest = Constraints::unlimited;
  ByteCount segment{4096};  // at least so much lies in one piece
  Uses can = {};
  CoherenceDomains domains = {CoherenceDomain::cpu, CoherenceDomain::ram};
};

/// Why a source does not serve.
struct SourceRefusal {
  std::size_t source = 0;       // an index
  std::size_t participant = 0;  // the first one whom it does not serve
  std::string reason;           // "camera wants contiguous memory; udmabuf gives scattered pages"
};

/// Sources that serve all participants, the best first, and why each other one does not.
struct Resolution {
  std::vector<std::size_t> ranked = {};  // indices
  std::vector<SourceRefusal> refused = {};
};

/// Judges sources by what they publish. First come those whose memory is charged to a cgroup, then
/// those whose buffers lie in fewer pieces, then the first in the list.
///
/// Pre     `agreement` is one of these participants.
/// Errors  no_memory.
[[nodiscard]] Result<Resolution> resolve(const Agreement& agreement,
                                         std::span<const Participant> participants,
                                         std::span<const SourceDescription> sources) noexcept;

}  // namespace accelmm
