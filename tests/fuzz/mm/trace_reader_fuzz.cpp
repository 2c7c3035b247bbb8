// SPDX-License-Identifier: Apache-2.0
//
// Input: a file, as anybody may hand it to a program that reads traces. What does not begin as a trace
// is taken for the events of one, so that most inputs reach what is checked of them. What the reader
// gives is judged by sets that do without its numbers.
#include <accelmm/check.hpp>
#include <accelmm/trace.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <vector>

namespace {

using accelmm::ByteCount;
using accelmm::TraceEvent;
using accelmm::TraceHeader;
using accelmm::TraceOp;
using accelmm::TraceReader;

struct Piece {
  std::uint64_t bytes;
  unsigned pool;
};

class Judge {
 public:
  explicit Judge(const TraceHeader& header) : header_(header) {}

  void see(std::uint64_t number, const TraceEvent& event) {
    const std::uint64_t bytes = event.size * header_.unit.value();
    switch (event.op) {
      case TraceOp::allocate:
        ACCELMM_CHECK(bytes > 0);
        live_[number] = {bytes, event.pool};
        break;
      case TraceOp::split:
        ACCELMM_CHECK(live_.contains(event.subject));
        ACCELMM_CHECK(bytes > 0 && bytes < live_[event.subject].bytes);
        live_[number] = {live_[event.subject].bytes - bytes, event.pool};
        live_[event.subject].bytes = bytes;
        break;
      case TraceOp::free:
        ACCELMM_CHECK(live_.contains(event.subject));
        ACCELMM_CHECK(live_[event.subject].bytes == bytes);
        ACCELMM_CHECK(live_[event.subject].pool == event.pool);
        live_.erase(event.subject);
        break;
      case TraceOp::refused:
      case TraceOp::bad_free:
        break;
    }
    std::array<std::uint64_t, TraceHeader::most_pools> sums{};
    for (const auto& [id, piece] : live_) sums[piece.pool] += piece.bytes;
    for (std::size_t pool = 0; pool < sums.size(); ++pool)
      if (header_.pool_sizes[pool].value() != 0)
        ACCELMM_CHECK(sums[pool] <= header_.pool_sizes[pool].value());
  }
  [[nodiscard]] std::size_t live() const { return live_.size(); }

 private:
  TraceHeader header_;
  std::map<std::uint64_t, Piece> live_;
};

void read(std::span<const std::byte> file) {
  auto reader = TraceReader::open(file);
  if (!reader) return;
  Judge judge(reader->header());
  while (true) {
    const std::uint64_t number = reader->position();
    const auto event = reader->next();
    if (!event) {
      ACCELMM_CHECK(reader->position() == number);
      ACCELMM_CHECK(!reader->next());
      return;
    }
    if (!*event) break;
    ACCELMM_CHECK(reader->position() == number + 1);
    judge.see(number, **event);
    ACCELMM_CHECK(reader->live() == judge.live());
  }
  ACCELMM_CHECK(reader->position() == reader->header().events);
}

}  // namespace

// The name and the types are libFuzzer's.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  if (size >= 8 && std::ranges::equal(bytes.first(8), accelmm::trace_format::magic, {}, {},
                                      [](char c) { return static_cast<std::byte>(c); })) {
    read(bytes);
    return 0;
  }
  TraceHeader header;
  header.events = size / accelmm::trace_format::event_bytes;
  header.pool_sizes[1] = ByteCount(std::uint64_t{1} << 24);
  const auto head = accelmm::trace_format::encode(header);
  std::vector<std::byte> file(head.begin(), head.end());
  const auto events = bytes.first(header.events * accelmm::trace_format::event_bytes);
  file.insert(file.end(), events.begin(), events.end());
  read(file);
  return 0;
}
