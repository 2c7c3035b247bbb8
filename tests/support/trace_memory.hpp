// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/trace.hpp>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <span>
#include <utility>
#include <vector>

namespace accelmm::test {

/// A sink that keeps a trace in memory, with a clock that a test sets. The write with a chosen
/// number fails.
class TraceMemory final : public TraceSink {
 public:
  std::uint64_t clock_ns = 0;
  std::int64_t fail_after = -1;  // so many writes succeed, the next fails; below 0: none fails

  [[nodiscard]] Result<void> write(std::uint64_t offset, std::span<const std::byte> part) override {
    const std::scoped_lock held(lock_);
    if (fail_after >= 0 && fail_after-- == 0) return fail(Errc::io_error, "no more room");
    if (bytes_.size() < offset + part.size()) bytes_.resize(offset + part.size());
    std::ranges::copy(part, bytes_.begin() + static_cast<std::ptrdiff_t>(offset));
    return {};
  }
  [[nodiscard]] std::uint64_t now_ns() override { return clock_ns; }

  [[nodiscard]] std::vector<std::byte>& bytes() { return bytes_; }

 private:
  std::mutex lock_;
  std::vector<std::byte> bytes_;
};

/// The file that holds these events, whatever they say.
[[nodiscard]] inline std::vector<std::byte> file_of(TraceHeader header,
                                                    const std::vector<TraceEvent>& events) {
  header.events = events.size();
  std::vector<std::byte> bytes;
  const auto append = [&](const auto& part) {
    bytes.insert(bytes.end(), part.begin(), part.end());
  };
  append(trace_format::encode(header));
  for (const TraceEvent& event : events) append(trace_format::encode(event));
  return bytes;
}

/// All events of a file; what is wrong with it, where something is.
[[nodiscard]] inline Result<std::vector<TraceEvent>> events_of(std::span<const std::byte> bytes) {
  auto reader = TraceReader::open(bytes);
  if (!reader) return fail(reader.error());
  std::vector<TraceEvent> events;
  while (true) {
    auto event = reader->next();
    if (!event) return fail(event.error());
    if (!*event) return events;
    events.push_back(**event);
  }
}

}  // namespace accelmm::test
