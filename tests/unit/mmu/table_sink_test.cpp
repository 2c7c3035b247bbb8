// SPDX-License-Identifier: Apache-2.0
//
// Tables whose device copy is written through a sink: it says what the copy in host memory says, and
// at no moment more than what is complete.
#include "property/mm/steps.hpp"
#include "unit/mmu/naive_npu1_walker.hpp"
#include "unit/mmu/tables_fixture.hpp"

#include <accelmm/mmu/npu1.hpp>
#include <accelmm/mmu/page_table.hpp>
#include <accelmm/mmu/table_sink.hpp>

#include <array>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <new>
#include <thread>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

namespace accelmm::mmu {
namespace {

using accelmm::test::Dice;
using test::range;
using test::release;
using test::run;
using test::Runs;
using test::table_bytes;

constexpr std::uint64_t page = 0x1000;
constexpr std::uint64_t large = 0x20'0000;
constexpr std::uint64_t bus_begin = 0x7'6540'0000;
/// Everything is mapped to itself and this much further.
constexpr std::uint64_t offset = 64 * large;

/// Zeroed memory that is aligned to a table.
class Copy {
 public:
  explicit Copy(std::size_t bytes)
      : bytes_(static_cast<std::byte*>(::operator new(bytes, std::align_val_t{table_bytes}))),
        size_(bytes) {
    std::memset(bytes_.get(), 0, bytes);
  }
  [[nodiscard]] std::byte* bytes() const { return bytes_.get(); }
  bool operator==(const Copy& other) const {
    return std::memcmp(bytes(), other.bytes(), size_) == 0;
  }
  [[nodiscard]] naive_npu1::Answer walk(std::uint64_t root, std::uint64_t va) const {
    return naive_npu1::walk({bytes(), bus_begin, size_}, root, va);
  }

 private:
  struct Free {
    void operator()(std::byte* bytes) const {
      ::operator delete(bytes, std::align_val_t{table_bytes});
    }
  };
  std::unique_ptr<std::byte, Free> bytes_;
  std::size_t size_;
};

void apply(const WordRun& run, std::byte* device) {
  for (std::uint32_t i = 0; i < run.count; ++i) {
    const std::uint64_t word = run.entry + i * run.step;
    void* const where = device + (run.at.value() - bus_begin) + i * run.word_bytes;
    ASSERT_EQ(run.word_bytes, 8u);
    __atomic_store_n(static_cast<std::uint64_t*>(where), word, __ATOMIC_RELEASE);
  }
}

/// The commands of a copy engine: nothing happens before sync(), and then one after the other.
class QueueSink final : public TableSink {
 public:
  explicit QueueSink(std::byte* device) : device_(device) {}
  void write(const WordRun& run) override {
    EXPECT_GT(run.count, 0u);
    queue_.push_back(run);
  }
  void sync() override {
    for (const WordRun& run : queue_) {
      apply(run, device_);
      if (after_each) after_each();
    }
    queue_.clear();
  }
  [[nodiscard]] bool empty() const { return queue_.empty(); }

  std::function<void()> after_each;

 private:
  std::byte* device_;
  std::vector<WordRun> queue_;
};

/// Writes late: other threads have come far since the copy in host memory was looked at.
class SlowSink final : public TableSink {
 public:
  explicit SlowSink(std::byte* device) : device_(device) {}
  void write(const WordRun& run) override {
    if (run.count == 1)
      for (int i = 0; i < 3; ++i) std::this_thread::yield();
    apply(run, device_);
  }
  void sync() override { std::atomic_thread_fence(std::memory_order_seq_cst); }

 private:
  std::byte* device_;
};

constexpr std::uint32_t pool_tables = 64;

TablePool make_pool(const Copy& host, TableSink& sink) {
  return std::move(*TablePool::create({BusAddr(bus_begin), ByteCount(pool_tables * table_bytes),
                                       host.bytes(), table_bytes, &sink}));
}

/// Random maps and unmaps around a place where tables of each hop change; `check` after each.
template <class Check>
void do_at_random(const char* name, TablePool& pool, Check check) {
  Dice dice(name);
  auto tree = std::move(*PageTable<Npu1, TablePool>::create(pool));
  constexpr std::uint64_t begin = (std::uint64_t{1} << 48) - 3 * large;
  std::vector<Range<DeviceAddr>> mapped;
  std::vector<Detached<TablePool>> gone;
  for (int step = 0; step < 2000; ++step) {
    const std::uint64_t va = begin + dice.roll(6 * 512) * page;
    const std::uint64_t length = (1 + dice.roll(1 + dice.roll(1200))) * page;
    const Runs runs{run(va + offset, length)};
    switch (dice.roll(6)) {
      case 0:
      case 1:
        if (tree.map(DeviceAddr(va), runs, {})) mapped.push_back(range(va, va + length));
        break;
      case 2:
        if (mapped.empty()) break;
        if (auto done = tree.unmap(mapped.back(), {Edges::split, Gaps::skip}))
          gone.push_back(std::move(*done));
        mapped.pop_back();
        break;
      case 3:
        (void)tree.protect(range(va, va + length), Access::read, {Edges::split, Gaps::skip});
        break;
      case 4:
        gone.push_back(std::move(*tree.merge(range(va, va + length))));
        break;
      default:
        for (auto& one : gone) release(std::move(one));
        gone.clear();
    }
    ASSERT_NO_FATAL_FAILURE(check());
  }
  for (auto& one : gone) release(std::move(one));
  release(tree.detach_all());
  check();
}

TEST(TableSink, TheDevicesCopyEqualsTheOneInHostMemoryAfterEachOperation) {
  const Copy host(pool_tables * table_bytes);
  const Copy device(pool_tables * table_bytes);
  WriteThroughSink sink(BusAddr(bus_begin), device.bytes());
  TablePool pool = make_pool(host, sink);
  do_at_random("table_sink", pool, [&] { ASSERT_TRUE(host == device); });
}

// The device's memory is never read: the engine's answers stay right when that says something else.
TEST(TableSink, TheEngineReadsNothingFromTheDevice) {
  struct Nowhere final : TableSink {
    void write(const WordRun&) override {}
    void sync() override {}
  } sink;
  const Copy host(pool_tables * table_bytes);
  TablePool pool = make_pool(host, sink);
  auto tree = std::move(*PageTable<Npu1, TablePool>::create(pool));
  ASSERT_TRUE(tree.map(DeviceAddr(page), Runs{run(0x5000, 2 * page)}, {}).has_value());
  EXPECT_EQ(tree.translate(DeviceAddr(page + 7))->address, BusAddr(0x5007));
  tree.validate();
  release(tree.detach_all());
}

TEST(TableSink, CommandsThatAreCarriedOutLateShowNothingHalfWay) {
  const Copy host(pool_tables * table_bytes);
  const Copy device(pool_tables * table_bytes);
  QueueSink sink(device.bytes());
  TablePool pool = make_pool(host, sink);
  auto tree = std::move(*PageTable<Npu1, TablePool>::create(pool));
  constexpr std::uint64_t va = (std::uint64_t{1} << 48) - 300 * page;
  constexpr std::uint64_t length = large + 600 * page;
  std::uint64_t looks = 0;
  sink.after_each = [&] {
    for (std::uint64_t at = va - page; at <= va + length; at += 23 * page) {
      const auto answer = device.walk(tree.root().value(), at);
      ASSERT_NE(answer.verdict, naive_npu1::Verdict::corrupt);
      if (answer.verdict == naive_npu1::Verdict::page) {
        ASSERT_TRUE(at >= va && at < va + length);
        ASSERT_EQ(answer.bus, at + offset);
      }
      ++looks;
    }
  };
  for (int round = 0; round < 3; ++round) {
    ASSERT_TRUE(tree.map(DeviceAddr(va), Runs{run(va + offset, length)}, {}).has_value());
    EXPECT_TRUE(sink.empty()) << "a map ends with a sync";
    EXPECT_EQ(device.walk(tree.root().value(), va + length - 1).bus, va + offset + length - 1);
    auto gone = tree.unmap(range(va, va + length));
    ASSERT_TRUE(gone.has_value());
    EXPECT_TRUE(sink.empty());
    EXPECT_EQ(device.walk(tree.root().value(), va).verdict, naive_npu1::Verdict::nothing);
    release(std::move(*gone));
    EXPECT_TRUE(host == device);
  }
  EXPECT_GT(looks, 100u);
  release(tree.detach_all());
}

TEST(TableSink, CommandsAreAllCarriedOutWhenAnOperationEnds) {
  const Copy host(pool_tables * table_bytes);
  const Copy device(pool_tables * table_bytes);
  QueueSink sink(device.bytes());
  TablePool pool = make_pool(host, sink);
  do_at_random("table_sink_queue", pool, [&] {
    sink.sync();  // refused operations may leave what is hidden
    ASSERT_TRUE(host == device);
  });
}

// Pages side by side, so that their tables come and go all the time under both threads.
TEST(TableSink, WhatOneThreadMappedTheDeviceSeesWhoeverLinkedTheTables) {
  const Copy host(pool_tables * table_bytes);
  const Copy device(pool_tables * table_bytes);
  SlowSink sink(device.bytes());
  TablePool pool = make_pool(host, sink);
  auto tree = std::move(*PageTable<Npu1, TablePool>::create(pool));
  std::atomic<unsigned> wrong{0};
  std::array<std::vector<Detached<TablePool>>, 3> gone;
  const auto work = [&](std::uint64_t number) {
    const std::uint64_t va = number * page;
    for (int i = 0; i < 4; ++i) {
      if (!tree.map(DeviceAddr(va), Runs{run(va + offset, page)}, {}).has_value()) ++wrong;
      if (device.walk(tree.root().value(), va).bus != va + offset) ++wrong;
      gone[number].push_back(std::move(*tree.unmap(range(va, va + page))));
    }
  };
  for (int round = 0; round < 300; ++round) {
    std::vector<std::thread> threads;
    for (std::uint64_t number = 0; number < gone.size(); ++number)
      threads.emplace_back(work, number);
    for (auto& thread : threads) thread.join();
    for (auto& list : gone) {
      for (auto& one : list) release(std::move(one));
      list.clear();
    }
    ASSERT_EQ(wrong, 0u) << round;
    ASSERT_TRUE(host == device) << round;
  }
  release(tree.detach_all());
}

}  // namespace
}  // namespace accelmm::mmu
