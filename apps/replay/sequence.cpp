// SPDX-License-Identifier: Apache-2.0
#include "sequence.hpp"

#include <algorithm>
#include <array>
#include <unordered_map>
#include <utility>

namespace accelmm::replay {

namespace {

// Adds to the sequence of a pool what the reader found to make sense.
class Builder {
 public:
  void add(std::uint64_t number, const TraceEvent& event, std::uint64_t unit) {
    Step step{.event = event, .bytes = event.size * unit, .number = number};
    const auto id = static_cast<std::uint32_t>(number);
    switch (event.op) {
      case TraceOp::allocate:
        step.slot = slots_[id] = sequence_.slots++;
        ++sequence_.allocations;
        live_ += step.bytes;
        sequence_.peak = ByteCount(std::max(sequence_.peak.value(), live_));
        break;
      case TraceOp::free:
        step.slot = slots_.extract(event.subject).mapped();
        ++sequence_.frees;
        live_ -= step.bytes;
        break;
      case TraceOp::split:
        step.parent = slots_.at(event.subject);
        step.slot = slots_[id] = sequence_.slots++;
        sequence_.split_bits |= step.bytes;
        break;
      case TraceOp::refused:
      case TraceOp::bad_free:
        return;  // what its allocator did not do is nothing to do again
    }
    sequence_.steps.push_back(step);
  }
  [[nodiscard]] Sequence& sequence() { return sequence_; }

 private:
  Sequence sequence_{};
  std::unordered_map<std::uint32_t, std::uint32_t> slots_{};
  std::uint64_t live_ = 0;
};

}  // namespace

std::expected<std::vector<Sequence>, TraceFlaw> sequences_of(std::span<const std::byte> file) {
  auto reader = TraceReader::open(file);
  if (!reader) return std::unexpected(TraceFlaw{reader.error(), 0});
  std::array<Builder, TraceHeader::most_pools> builders;
  while (true) {
    const std::uint64_t number = reader->position();
    const auto event = reader->next();
    if (!event) return std::unexpected(TraceFlaw{event.error(), number});
    if (!*event) break;
    builders[(*event)->pool].add(number, **event, reader->header().unit.value());
  }
  std::vector<Sequence> used;
  for (unsigned pool = 0; pool < builders.size(); ++pool) {
    Sequence& sequence = builders[pool].sequence();
    if (sequence.steps.empty()) continue;
    sequence.pool = pool;
    sequence.size = reader->header().pool_sizes[pool];
    sequence.tick_ns = reader->header().tick_ns;
    used.push_back(std::move(sequence));
  }
  return used;
}

}  // namespace accelmm::replay
