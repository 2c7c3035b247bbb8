// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/trace.hpp>

#include <cstddef>
#include <cstdint>
#include <expected>
#include <string_view>
#include <vector>

namespace accelmm::replay {

/// What is wrong with a log, and in which line.
struct LogFlaw {
  const char* what;
  std::size_t line;
};

struct Imported {
  TraceHeader header{};
  std::vector<TraceEvent> events{};
  std::uint64_t unknown_frees = 0;  ///< of what was allocated before the log began
  [[nodiscard]] std::vector<std::byte> file() const;
};

/// Makes a trace of the log that RMM's logging_resource_adaptor writes: CSV with the columns
/// Thread,Time,Action,Pointer,Size,Stream, where an action is allocate, free or allocate failure.
/// All of it becomes pool 0. Streams are not kept: the order of the log is. Threads are numbered in
/// the order in which they appear. Times that go back by more than an hour begin the next day.
[[nodiscard]] std::expected<Imported, LogFlaw> import_rmm(std::string_view csv);

}  // namespace accelmm::replay
