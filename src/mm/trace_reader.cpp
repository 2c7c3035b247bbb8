// SPDX-License-Identifier: Apache-2.0
//
// What is checked: everything that a replay relies on. Ids are numbers of earlier events, so that an
// allocation cannot be made twice; what is freed is live, of that pool and of that size; and what is
// live fits into its pool and into 63 bits.
#include <accelmm/trace.hpp>

#include <limits>
#include <new>

namespace accelmm {

namespace {

constexpr std::uint64_t most_bytes = std::uint64_t{1} << 62;

}  // namespace

Result<TraceReader> TraceReader::open(std::span<const std::byte> bytes) {
  using namespace trace_format;
  if (bytes.size() < header_bytes)
    return fail(Errc::protocol_error, "the trace is shorter than its header");
  const auto header = decode_header(bytes.first<header_bytes>());
  if (!header) return fail(header.error());
  const std::span<const std::byte> events = bytes.subspan(header_bytes);
  if (events.size() % event_bytes != 0 || events.size() / event_bytes != header->events)
    return fail(Errc::protocol_error, "the trace does not hold as many events as it says");
  return TraceReader(*header, events);
}

Result<std::optional<TraceEvent>> TraceReader::next() {
  if (position_ == header_.events) return std::nullopt;
  const auto event = trace_format::decode_event(
      events_.subspan(position_ * trace_format::event_bytes).first<trace_format::event_bytes>());
  if (!event) return fail(event.error());
  try {
    if (const auto applied = apply(*event); !applied) return fail(applied.error());
  } catch (const std::bad_alloc&) {
    return fail(Errc::no_memory, "no room to note an allocation of the trace");
  }
  ++position_;
  return *event;
}

Result<void> TraceReader::apply(const TraceEvent& event) {
  if (event.size == 0 && event.op != TraceOp::bad_free)
    return fail(Errc::protocol_error, "an event of the trace has size 0");
  const bool has_subject = event.op == TraceOp::free || event.op == TraceOp::split;
  if (!has_subject && event.subject != 0)
    return fail(Errc::protocol_error,
                "an event of the trace names an allocation that it is not about");
  switch (event.op) {
    case TraceOp::allocate:
      return apply_allocate(event);
    case TraceOp::free:
    case TraceOp::split:
      return apply_to_live(event);
    case TraceOp::refused:
    case TraceOp::bad_free:
      return {};
  }
  return fail(Errc::protocol_error, "an event of a trace does what is not known");
}

Result<void> TraceReader::apply_allocate(const TraceEvent& event) {
  const ByteCount pool = header_.pool_sizes[event.pool];
  const std::uint64_t most = (pool.value() == 0 ? most_bytes : pool.value()) >> header_.unit.log2();
  std::uint64_t& live_units = live_units_[event.pool];
  if (event.size > most || live_units > most - event.size)
    return fail(Errc::protocol_error, "more is live in the trace than its pool holds");
  live_.emplace(static_cast<std::uint32_t>(position_), Live{event.size, event.pool});
  live_units += event.size;
  return {};
}

Result<void> TraceReader::apply_to_live(const TraceEvent& event) {
  const auto found = live_.find(event.subject);
  if (found == live_.end())
    return fail(Errc::protocol_error, "the trace frees or splits what is not live");
  if (found->second.pool != event.pool)
    return fail(Errc::protocol_error, "the trace frees or splits what is of another pool");
  if (event.op == TraceOp::split) {
    if (event.size >= found->second.size)
      return fail(Errc::protocol_error, "the trace splits an allocation behind its end");
    live_.emplace(static_cast<std::uint32_t>(position_),
                  Live{found->second.size - event.size, event.pool});
    live_.at(event.subject).size = event.size;  // emplace() may have ended `found`
    return {};
  }
  if (event.size != found->second.size)
    return fail(Errc::protocol_error, "the trace frees another size than it allocated");
  live_units_[event.pool] -= event.size;
  live_.erase(found);
  return {};
}

}  // namespace accelmm
