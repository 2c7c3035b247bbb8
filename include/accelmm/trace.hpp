// SPDX-License-Identifier: Apache-2.0
//
// A trace: what an allocator was asked for, in order, in a file. docs/trace.md describes it whole.
#pragma once

#include <accelmm/error.hpp>
#include <accelmm/page_allocator.hpp>
#include <accelmm/units.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <unordered_map>

namespace accelmm {

/// What one event of a trace says. An allocation's id is the number of the event that made it.
enum class TraceOp : std::uint8_t {
  allocate = 1,  ///< `size` units at a multiple of 2^align_log2 bytes: the id is the event's number
  free = 2,      ///< allocation `subject` of `size` units ends
  split = 3,     ///< of allocation `subject`, what lies behind `size` units gets the event's number
  refused = 4,   ///< a request of `size` units failed
  bad_free = 5,  ///< a free was refused: nothing of that place was allocated
};

/// One event, decoded.
struct TraceEvent {
  std::uint64_t time = 0;  ///< in ticks of the header
  TraceOp op = TraceOp::allocate;
  std::uint8_t pool = 0;
  std::uint16_t thread = 0;
  std::uint32_t size = 0;     ///< in units of the header
  std::uint32_t subject = 0;  ///< of free and split; 0 otherwise
  std::uint8_t align_log2 = 0;
  Lifetime lifetime = Lifetime::short_lived;
  Placement placement = Placement::packed;
  Contents contents = Contents::unknown;  ///< allocate: zeros are wanted; free: it holds zeros
  /// allocate: several pieces would do.
  enum class Shape : std::uint8_t { contiguous, scattered } shape = Shape::contiguous;
  bool operator==(const TraceEvent&) const = default;
};

/// What stands before the events.
struct TraceHeader {
  static constexpr std::size_t most_pools = 16;

  Alignment unit{4096};       ///< of sizes
  std::uint32_t tick_ns = 1;  ///< of times
  std::uint64_t events = 0;
  std::uint64_t lost = 0;                          ///< events that the recorder could not keep
  std::array<ByteCount, most_pools> pool_sizes{};  ///< 0: not known
  bool operator==(const TraceHeader&) const = default;
};

/// The format of the file: little-endian, the same on every machine.
///
/// The header, of 192 bytes:
///
///   0   8  "ACCELTRC"        32  8  events lost
///   8   4  version, 1        40 24  zeros
///   12  4  bytes an event    64 128 sizes of 16 pools in bytes, 8 each
///   16  4  bytes a unit, as a power of two
///   20  4  nanoseconds a tick
///   24  8  events
///
/// An event, of 24 bytes, as three words:
///
///   word 0   63      48 47  44 43  40 39                 0
///            | thread  | pool | op   | time               |
///   word 1   63                32 31                     0
///            | size in units     | subject                |
///   word 2   63        11     10      9      8 7  6 5    0
///            | zeros     | shape | contents | p | l | al |   p: placement (2 bits: 9, 8)
///
/// with bits 5-0 align_log2, 7-6 lifetime, 9-8 placement, 10 contents, 11 shape; 63-12 are zeros.
namespace trace_format {

inline constexpr std::array<char, 8> magic = {'A', 'C', 'C', 'E', 'L', 'T', 'R', 'C'};
inline constexpr std::uint32_t version = 1;
inline constexpr std::size_t header_bytes = 192;
inline constexpr std::size_t event_bytes = 24;
inline constexpr unsigned time_bits = 40;
/// An id is 32 bits, so that a trace has no more events.
inline constexpr std::uint64_t most_events = std::uint64_t{1} << 32;

using HeaderBytes = std::array<std::byte, header_bytes>;
using EventBytes = std::array<std::byte, event_bytes>;
static_assert(sizeof(HeaderBytes) == 64 + TraceHeader::most_pools * 8);
static_assert(sizeof(EventBytes) == 3 * sizeof(std::uint64_t));

/// A time beyond 40 bits becomes the largest.
[[nodiscard]] EventBytes encode(const TraceEvent& event);
[[nodiscard]] HeaderBytes encode(const TraceHeader& header);
/// Errors  protocol_error: an op, a lifetime or a placement that is none, or a bit that must be zero.
[[nodiscard]] Result<TraceEvent> decode_event(std::span<const std::byte, event_bytes> bytes);
/// Errors  protocol_error: no trace, another version, or a field that makes no sense.
[[nodiscard]] Result<TraceHeader> decode_header(std::span<const std::byte, header_bytes> bytes);

}  // namespace trace_format

/// Reads a trace, which may come from anywhere: every event that next() gives makes sense.
///
/// Owns      an entry for each allocation that is live at the event it has reached.
/// Lifetime  the bytes must outlive it.
/// Cost      O(1) an event.
class TraceReader {
 public:
  /// Errors  protocol_error: no whole header, or its flaw; not as many events as it says.
  [[nodiscard]] static Result<TraceReader> open(std::span<const std::byte> bytes);

  [[nodiscard]] const TraceHeader& header() const { return header_; }
  /// The number of the event that next() gives, or failed at.
  [[nodiscard]] std::uint64_t position() const { return position_; }

  /// The next event; nothing at the end.
  /// Errors  protocol_error: an event that cannot be, e.g. one that frees what is not live, has a
  ///         size that a pool or 64 bits do not hold, or a bit that must be zero. Comes again if
  ///         called again.
  ///         no_memory: no room to note an allocation.
  [[nodiscard]] Result<std::optional<TraceEvent>> next();

  /// Allocations that are live at the event it has reached.
  [[nodiscard]] std::size_t live() const { return live_.size(); }

 private:
  struct Live {
    std::uint32_t size;
    std::uint8_t pool;
  };
  TraceReader(const TraceHeader& header, std::span<const std::byte> events)
      : header_(header), events_(events) {}
  /// Whether the event may follow; notes what it does.
  [[nodiscard]] Result<void> apply(const TraceEvent& event);
  [[nodiscard]] Result<void> apply_allocate(const TraceEvent& event);
  [[nodiscard]] Result<void> apply_to_live(const TraceEvent& event);

  TraceHeader header_;
  std::span<const std::byte> events_;
  std::uint64_t position_ = 0;
  std::unordered_map<std::uint32_t, Live> live_{};
  std::array<std::uint64_t, TraceHeader::most_pools> live_units_{};
};

/// Where a trace is written to, and where its times are from: mm itself touches no file and no clock.
///
/// Threads  write() may be called from several threads at once, for different places.
class TraceSink {
 public:
  virtual ~TraceSink() = default;
  /// Puts bytes at an offset. Parts may come in any order; the first, of 192 bytes, comes last.
  [[nodiscard]] virtual Result<void> write(std::uint64_t offset,
                                           std::span<const std::byte> bytes) = 0;
  /// Nanoseconds since some moment.
  [[nodiscard]] virtual std::uint64_t now_ns() = 0;
};

}  // namespace accelmm
