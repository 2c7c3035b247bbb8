// SPDX-License-Identifier: Apache-2.0
//
// Looking handles up: 1024 live ones, in random order, each handle and value read from memory as a
// request would bring it. The limit is an array of the same records in the same order, indexed by the
// handle's lower bits: one load and one compare, with nothing that could grow.
#include <accelmm/handle_table.hpp>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <random>
#include <utility>
#include <vector>

#include <benchmark/benchmark.h>

namespace accelmm::bench {
namespace {

constexpr std::uint32_t live = 1024;
constexpr std::uint8_t buffer = 1;
constexpr std::uint32_t slot_mask = (std::uint32_t{1} << 20) - 1;

/// As large as a shared_ptr: what sessions keep.
struct Value {
  std::uint64_t number;
  std::uint64_t other;
};
using Table = HandleTable<Value>;

/// A full table, its handles in random order, and how often which was found.
class Subject {
 public:
  Subject() : table_(make()) {
    for (std::uint64_t i = 0; i < live; ++i) {
      const auto handle = table_.insert(buffer, Value{i, ~i});
      if (!handle) std::abort();
      handles_.push_back(*handle);
    }
    std::ranges::shuffle(handles_, std::mt19937_64(1));
  }
  [[nodiscard]] Table& table() { return table_; }
  [[nodiscard]] const std::vector<Handle>& handles() const { return handles_; }

 private:
  static Table make() {
    auto table = Table::create(live);
    if (!table) std::abort();
    return std::move(*table);
  }
  Table table_;
  std::vector<Handle> handles_;
};

/// Each pass must have found every value once.
constexpr std::uint64_t sum_of_a_pass = std::uint64_t{live} * (live - 1) / 2;

template <class LookUp>
void passes(benchmark::State& state, const std::vector<Handle>& handles, LookUp look_up) {
  for (auto _ : state) {
    std::uint64_t sum = 0;
    for (const Handle handle : handles) sum += look_up(handle);
    if (sum != sum_of_a_pass) return state.SkipWithError("a lookup went wrong");
  }
  state.counters["items"] = benchmark::Counter(live, benchmark::Counter::kAvgThreads);
}

void lookup(benchmark::State& state) {
  Subject subject;
  passes(state, subject.handles(), [&](Handle handle) -> std::uint64_t {
    const auto found = subject.table().find(handle, buffer);
    return found ? (*found)->number : live;
  });
}
BENCHMARK(lookup)->Name("mm/handle-lookup/ours");

void load_compare(benchmark::State& state) {
  struct Record {
    std::uint64_t raw;
    std::uint64_t unused;
    Value value;
  };
  Subject subject;
  std::vector<Record> records(live + 1);
  subject.table().for_each([&](Handle handle, Value& value) {
    records[handle.raw() & slot_mask] = {handle.raw(), 0, value};
  });
  passes(state, subject.handles(), [&](Handle handle) -> std::uint64_t {
    const Record& record = records[handle.raw() & slot_mask];
    return record.raw == handle.raw() ? record.value.number : live;
  });
}
BENCHMARK(load_compare)->Name("mm/handle-lookup/limit:load-compare");

// Counted: two atomic additions that no one else makes.
void pin(benchmark::State& state) {
  Subject subject;
  passes(state, subject.handles(), [&](Handle handle) -> std::uint64_t {
    const auto pin = subject.table().pin(handle, buffer);
    return pin ? (*pin)->number : live;
  });
}
BENCHMARK(pin)->Name("mm/handle-pin/ours");

// The same loads, and two atomic additions to the record.
void load_compare_count(benchmark::State& state) {
  struct Record {
    std::uint64_t raw;
    std::atomic<std::uint64_t> references;
    Value value;
  };
  Subject subject;
  std::vector<Record> records(live + 1);
  subject.table().for_each([&](Handle handle, Value& value) {
    records[handle.raw() & slot_mask].raw = handle.raw();
    records[handle.raw() & slot_mask].value = value;
  });
  passes(state, subject.handles(), [&](Handle handle) -> std::uint64_t {
    Record& record = records[handle.raw() & slot_mask];
    if (record.raw != handle.raw()) return live;
    record.references.fetch_add(1, std::memory_order_acquire);
    const std::uint64_t number = record.value.number;
    record.references.fetch_sub(1, std::memory_order_release);
    return number;
  });
}
BENCHMARK(load_compare_count)->Name("mm/handle-pin/limit:two-atomic-additions");

// Two threads look up in one table; `ours-one-thread` is the same work by one.
Subject& shared_subject() {
  static Subject subject;
  return subject;
}

void lookup_shared(benchmark::State& state) {
  Subject& subject = shared_subject();
  passes(state, subject.handles(), [&](Handle handle) -> std::uint64_t {
    const auto found = subject.table().find(handle, buffer);
    return found ? (*found)->number : live;
  });
}
BENCHMARK(lookup_shared)->Name("mm/handle-lookup-two-threads/ours")->Threads(2)->UseRealTime();
BENCHMARK(lookup_shared)->Name("mm/handle-lookup-two-threads/ours-one-thread")->UseRealTime();

void insert_remove(benchmark::State& state) {
  Subject subject;
  Table& table = subject.table();
  std::vector<Handle> handles = subject.handles();
  for (auto _ : state) {
    for (Handle& handle : handles) {
      const auto value = table.remove(handle, buffer);
      const auto next = value ? table.insert(buffer, *value) : Result<Handle>(Handle());
      if (!next || next->raw() == 0) return state.SkipWithError("a replacement went wrong");
      handle = *next;
    }
  }
  state.counters["items"] = live;
  if (table.size() != live) state.SkipWithError("values were lost");
}
BENCHMARK(insert_remove)->Name("mm/handle-replace/ours");

}  // namespace
}  // namespace accelmm::bench
