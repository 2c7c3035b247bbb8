// SPDX-License-Identifier: Apache-2.0
#include <accelmm/trace.hpp>

#include <algorithm>
#include <bit>

namespace accelmm::trace_format {

namespace {

// Where what lies in the words of an event.
constexpr unsigned op_bit = 40, pool_bit = 44, thread_bit = 48;
constexpr unsigned size_bit = 32;
constexpr unsigned lifetime_bit = 6, placement_bit = 8, contents_bit = 10, shape_bit = 11,
                   spare_bit = 12;
static_assert(op_bit == time_bits && thread_bit + 16 == 64);

// Where what lies in the header.
constexpr std::size_t version_at = 8, event_bytes_at = 12, unit_at = 16, tick_at = 20,
                      events_at = 24, lost_at = 32, spare_at = 40, pools_at = 64;
static_assert(pools_at + TraceHeader::most_pools * 8 == header_bytes);

template <class T>
void put(std::span<std::byte> bytes, std::size_t at, T value) {
  for (std::size_t i = 0; i < sizeof(T); ++i)
    bytes[at + i] = static_cast<std::byte>(value >> (8 * i) & 0xff);
}

template <class T>
[[nodiscard]] T get(std::span<const std::byte> bytes, std::size_t at) {
  T value = 0;
  for (std::size_t i = 0; i < sizeof(T); ++i)
    value |= static_cast<T>(std::to_integer<T>(bytes[at + i]) << (8 * i));
  return value;
}

[[nodiscard]] std::uint64_t bits(std::uint64_t word, unsigned first, unsigned count) {
  return word >> first & ((std::uint64_t{1} << count) - 1);
}

}  // namespace

EventBytes encode(const TraceEvent& event) {
  constexpr std::uint64_t latest = (std::uint64_t{1} << time_bits) - 1;
  const auto number = [](auto value) { return static_cast<std::uint64_t>(value); };
  EventBytes bytes{};
  put(std::span<std::byte>(bytes), 0,
      std::min(event.time, latest) | number(event.op) << op_bit |
          std::uint64_t{event.pool & 0xfU} << pool_bit | std::uint64_t{event.thread} << thread_bit);
  put(std::span<std::byte>(bytes), 8,
      std::uint64_t{event.size} << size_bit | std::uint64_t{event.subject});
  put(std::span<std::byte>(bytes), 16,
      (event.align_log2 & std::uint64_t{0x3f}) | number(event.lifetime) << lifetime_bit |
          number(event.placement) << placement_bit | number(event.contents) << contents_bit |
          number(event.shape) << shape_bit);
  return bytes;
}

HeaderBytes encode(const TraceHeader& header) {
  HeaderBytes bytes{};
  const std::span<std::byte> all(bytes);
  std::ranges::transform(magic, bytes.begin(), [](char c) { return static_cast<std::byte>(c); });
  put(all, version_at, version);
  put(all, event_bytes_at, static_cast<std::uint32_t>(event_bytes));
  put(all, unit_at, static_cast<std::uint32_t>(header.unit.log2()));
  put(all, tick_at, header.tick_ns);
  put(all, events_at, header.events);
  put(all, lost_at, header.lost);
  for (std::size_t pool = 0; pool < TraceHeader::most_pools; ++pool)
    put(all, pools_at + 8 * pool, header.pool_sizes[pool].value());
  return bytes;
}

Result<TraceEvent> decode_event(std::span<const std::byte, event_bytes> bytes) {
  const auto word0 = get<std::uint64_t>(bytes, 0);
  const auto word1 = get<std::uint64_t>(bytes, 8);
  const auto word2 = get<std::uint64_t>(bytes, 16);
  const std::uint64_t op = bits(word0, op_bit, 4);
  if (op < static_cast<std::uint64_t>(TraceOp::allocate) ||
      op > static_cast<std::uint64_t>(TraceOp::bad_free))
    return fail(Errc::protocol_error, "an event of a trace does what is not known");
  const std::uint64_t placement = bits(word2, placement_bit, 2);
  if (placement > static_cast<std::uint64_t>(Placement::top_down))
    return fail(Errc::protocol_error, "an event of a trace has a placement that is not known");
  if (word2 >> spare_bit != 0)
    return fail(Errc::protocol_error, "an event of a trace has a bit set that must be zero");
  return TraceEvent{
      .time = bits(word0, 0, time_bits),
      .op = static_cast<TraceOp>(op),
      .pool = static_cast<std::uint8_t>(bits(word0, pool_bit, 4)),
      .thread = static_cast<std::uint16_t>(word0 >> thread_bit),
      .size = static_cast<std::uint32_t>(word1 >> size_bit),
      .subject = static_cast<std::uint32_t>(word1),
      .align_log2 = static_cast<std::uint8_t>(bits(word2, 0, lifetime_bit)),
      .lifetime = static_cast<Lifetime>(bits(word2, lifetime_bit, 2)),
      .placement = static_cast<Placement>(placement),
      .contents = static_cast<Contents>(bits(word2, contents_bit, 1)),
      .shape = static_cast<TraceEvent::Shape>(bits(word2, shape_bit, 1)),
  };
}

Result<TraceHeader> decode_header(std::span<const std::byte, header_bytes> bytes) {
  for (std::size_t i = 0; i < magic.size(); ++i)
    if (std::to_integer<char>(bytes[i]) != magic[i])
      return fail(Errc::protocol_error, "this is no trace, or one that was not finished");
  if (get<std::uint32_t>(bytes, version_at) != version)
    return fail(Errc::protocol_error, "the trace has a version that is not known");
  if (get<std::uint32_t>(bytes, event_bytes_at) != event_bytes)
    return fail(Errc::protocol_error, "the trace has events of another size");
  const auto unit = get<std::uint32_t>(bytes, unit_at);
  if (unit > 31) return fail(Errc::protocol_error, "the trace has a unit above 2 GiB");
  TraceHeader header;
  header.unit = Alignment(std::uint64_t{1} << unit);
  header.tick_ns = get<std::uint32_t>(bytes, tick_at);
  if (header.tick_ns == 0) return fail(Errc::protocol_error, "the trace has ticks of 0 ns");
  header.events = get<std::uint64_t>(bytes, events_at);
  if (header.events > most_events)
    return fail(Errc::protocol_error, "the trace has more events than ids");
  header.lost = get<std::uint64_t>(bytes, lost_at);
  for (std::size_t at = spare_at; at < pools_at; ++at)
    if (bytes[at] != std::byte{0})
      return fail(Errc::protocol_error, "the header of the trace has a byte that must be zero");
  for (std::size_t pool = 0; pool < TraceHeader::most_pools; ++pool)
    header.pool_sizes[pool] = ByteCount(get<std::uint64_t>(bytes, pools_at + 8 * pool));
  return header;
}

}  // namespace accelmm::trace_format
