// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/units.hpp>

#include <cstddef>
#include <cstdint>

namespace accelmm::mmu {

/// Neighbouring words of one table: entry, entry + step, ... A device's copy engine can write the
/// run with a step of zero as a fill.
struct WordRun {
  BusAddr at;  ///< of the first word
  std::uint32_t count;
  std::uint32_t word_bytes;  ///< 4 or 8
  std::uint64_t entry;
  std::uint64_t step;
  constexpr bool operator==(const WordRun&) const = default;
};

/// Where stores to tables go that the CPU should not read: device memory behind a bus, or the
/// commands of a copy engine. The pool keeps a copy in host memory, and reads only that.
///
/// Threads  any at the same time, each about words of its own. A link is written and synced before
///          another thread can rely on it.
class TableSink {
 public:
  virtual ~TableSink() = default;

  /// Stores the words, each whole, after those of earlier calls of the same thread. Cannot fail.
  virtual void write(const WordRun& run) = 0;
  /// What was written reaches the device before what the caller does next: a fence, or the
  /// submission of the commands.
  virtual void sync() = 0;

 protected:
  TableSink() = default;
  TableSink(const TableSink&) = default;
  TableSink& operator=(const TableSink&) = default;
};

/// Stores to device memory that the CPU has mapped, and never reads from there.
class WriteThroughSink final : public TableSink {
 public:
  /// `device_view` maps the device's table memory, which begins at `begin`. Must outlive the pool.
  WriteThroughSink(BusAddr begin, std::byte* device_view) : begin_(begin), view_(device_view) {}

  void write(const WordRun& run) override;
  void sync() override;

 private:
  BusAddr begin_;
  std::byte* view_;
};

}  // namespace accelmm::mmu
