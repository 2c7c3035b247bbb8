// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/enum_set.hpp>
#include <accelmm/units.hpp>

#include <compare>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <string>

namespace accelmm {

/// How the bytes of a buffer must lie for a device: anywhere, or in one piece of bus addresses.
enum class Contiguity : std::uint8_t { scattered, contiguous };

/// Where a producer leaves its data, and a consumer looks for it.
/// Source  the coherency domains of Fuchsia's sysmem2.
enum class CoherenceDomain : std::uint8_t {
  cpu,  // in what the CPU sees, its caches included
  ram,  // in memory: a CPU that reads forgets its caches first, one that writes cleans them
  inaccessible,  // where no CPU looks
};
using CoherenceDomains = EnumSet<CoherenceDomain>;

/// What memory can be used for beside a device's DMA. Some of it is a need, some a source's gift.
enum class Use : std::uint8_t {
  cpu_map,  // mapped by a process
  pin,      // pinned by address: O_DIRECT, fixed buffers of io_uring, RDMA, VFIO
  vmap,     // mapped by a driver in the kernel
  attach,   // attached as a dma-buf by a driver in the kernel
  charged,  // charged to the memory cgroup of its maker
};
using Uses = EnumSet<Use>;

/// Formats and modifiers that a participant can handle, by the numbers of drm_fourcc.h. What is not
/// named is any.
struct FormatPattern {
  std::optional<std::uint32_t> fourcc = {};
  std::optional<std::uint64_t> modifier = {};
  auto operator<=>(const FormatPattern&) const = default;
};

/// How the lines of an image lie, in the formats that one pattern names.
struct ImageConstraints {
  ByteCount min_stride{};  // from one line to the next
  ByteCount max_stride{std::numeric_limits<std::uint64_t>::max()};
  std::uint64_t stride_divisor = 1;  // strides are multiples of it; 0: no number serves
  std::uint32_t rows = 0;  // lines of a stride each: for NV12 half as many again as the image has
  ByteCount min_size{};    // what the image takes, whatever its stride
  std::uint32_t cost = 0;  // 0: the format the participant likes best
  bool operator==(const ImageConstraints&) const = default;
};

/// How many buffers a participant needs.
struct BufferCounts {
  static constexpr std::uint32_t unlimited = std::numeric_limits<std::uint32_t>::max();

  std::uint32_t camping = 0;    // it holds so many for long, e.g. what a display shows
  std::uint32_t dedicated = 0;  // so many more of its own against stalls
  std::uint32_t shared = 0;     // so many more against stalls, which others may use too
  std::uint32_t min = 0;        // at least, in all
  std::uint32_t max = unlimited;
  bool operator==(const BufferCounts&) const = default;
};

/// What a participant demands of buffers that it shares, or several together. As it is made it
/// demands nothing.
///
/// Units     bytes of one buffer. Divisors are of bytes; 0 is what no number but 0 is a multiple of.
/// Invariant patterns of `images` name no format and modifier twice -> is_well_formed().
struct Constraints {
  static constexpr ByteCount unlimited{std::numeric_limits<std::uint64_t>::max()};

  ByteCount min_size{1};  // of what is put into it
  ByteCount max_size = unlimited;
  ByteCount padding{};               // behind that: what a device reads ahead
  std::uint64_t size_divisor = 1;    // sizes are multiples of it
  std::uint64_t offset_divisor = 1;  // a buffer begins at a multiple of it in the dma-buf
  Alignment base_alignment{1};       // of its first bus address
  Contiguity contiguity = Contiguity::scattered;
  unsigned address_bits = 64;             // bus addresses are below 2^this
  ByteCount largest_segment = unlimited;  // of what lies in one piece, as the device is told of it
  std::uint32_t max_segments = std::numeric_limits<std::uint32_t>::max();
  Uses needs = {};
  CoherenceDomains domains = {CoherenceDomain::cpu, CoherenceDomain::ram,
                              CoherenceDomain::inaccessible};
  std::optional<std::set<std::string>> heaps = {};  // that it may come from; nothing: any
  BufferCounts counts = {};
  std::optional<std::map<FormatPattern, ImageConstraints>> images = {};  // nothing: any, or none
  bool operator==(const Constraints&) const = default;
};

/// Whether the struct means something: sets of at most 64 members, 1 to 64 address bits, no divisor
/// of 0, patterns that do not overlap.
[[nodiscard]] bool is_well_formed(const Constraints& constraints);

/// What both demand: commutative and associative, with Constraints{} as identity, and idempotent but
/// for counts and costs that are added. It permits nothing that either forbids.
///
/// Needs that nothing meets make no error here; negotiate() finds them.
/// Throws  std::bad_alloc.
[[nodiscard]] Constraints combine(const Constraints& a, const Constraints& b);

}  // namespace accelmm
