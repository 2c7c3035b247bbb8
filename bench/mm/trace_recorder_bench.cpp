// SPDX-License-Identifier: Apache-2.0
//
// What recording costs him who records: one page over and over, into a sink that forgets.
#include "rows.hpp"
#include "subjects.hpp"
#include "workloads.hpp"

#include <accelmm/page_allocator.hpp>
#include <accelmm/trace_recorder.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <utility>

#include <benchmark/benchmark.h>

namespace accelmm::bench {
namespace {

constexpr std::uint64_t region = std::uint64_t{64} << 30;
constexpr std::uint64_t page = 4096;

class Forgetful final : public TraceSink {
 public:
  Result<void> write(std::uint64_t /*offset*/, std::span<const std::byte> bytes) override {
    benchmark::DoNotOptimize(bytes);
    return {};
  }
  std::uint64_t now_ns() override {
    return static_cast<std::uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count());
  }
};

class RecordedPages {
 public:
  using Piece = Extent;
  [[nodiscard]] bool take(std::uint64_t size, Piece& piece) {
    const auto extent = recorder_.allocate(ByteCount(size));
    if (!extent) return false;
    piece = *extent;
    return true;
  }
  [[nodiscard]] bool take(std::uint64_t size, std::uint64_t alignment, Piece& piece) {
    const auto extent = recorder_.allocate(ByteCount(size), Alignment(alignment));
    if (!extent) return false;
    piece = *extent;
    return true;
  }
  [[nodiscard]] bool give(const Piece& piece) { return recorder_.free(piece).has_value(); }
  [[nodiscard]] static std::uint64_t address(const Piece& piece) { return piece.offset.value(); }
  [[nodiscard]] bool finish() { return log_.lost() == 0 && log_.finish().has_value(); }

 private:
  template <class T>
  static T must(Result<T> made) {
    if (!made) std::abort();
    return std::move(*made);
  }
  Forgetful sink_;
  TraceLog log_ = must(TraceLog::create(sink_, {}));
  PageAllocator pages_ = must(PageAllocator::create({.size = ByteCount(region)}));
  TraceRecorder<PageAllocator> recorder_{log_, 0, pages_};
};

const bool registered = [] {
  add_row("trace-recorder-4k", "ours", [](benchmark::State& state) {
    RecordedPages subject;
    hot_pair(state, subject, {.size = page});
    if (!subject.finish()) state.SkipWithError("events were lost");
  });
  add_row("trace-recorder-4k", "ours-unrecorded", [](benchmark::State& state) {
    PageSubject subject(region);
    hot_pair(state, subject, {.size = page});
    if (!subject.whole()) state.SkipWithError("not whole at the end");
  });
  return true;
}();

}  // namespace
}  // namespace accelmm::bench
