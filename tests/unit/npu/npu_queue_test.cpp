// SPDX-License-Identifier: Apache-2.0
#include "unit/npu/fake_memory.hpp"

#include <accelmm/sim/npu_model.hpp>

#include <atomic>
#include <cstdint>
#include <future>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

namespace accelmm::sim {
namespace {

using test::cancel;
using test::FakeMemory;
using test::HandTables;
using test::run;

constexpr std::uint64_t page = 0x40000000;
constexpr std::uint64_t big = 2 << 20;

/// Two address spaces, 1 and 2, over the same 4 MiB; an engine that takes its time.
struct Queue : testing::Test {
  FakeMemory memory{16 << 20};
  HandTables tables{memory, 0x100000};
  std::unique_ptr<NpuModel> model;
  std::mutex mutex;
  std::vector<std::pair<int, Errc>> ended;  // name and outcome, in order; Errc{} for success

  void make_model(std::chrono::nanoseconds delay) {
    model = *NpuModel::create(memory, {.tlb_entries = 64, .delay_per_burst = delay});
    tables.map_big(page, 0x400000);
    tables.map_big(page + big, 0x600000);
    ASSERT_TRUE(model->set_root(1, tables.root()).has_value());
    ASSERT_TRUE(model->set_root(2, tables.root()).has_value());
  }
  void submit(int name, std::uint32_t asid, std::uint64_t length) {
    model->submit({asid, NpuCopy{DeviceAddr(page), DeviceAddr(page + big), ByteCount(length)},
                   [this, name](const NpuJobResult& result) {
                     const std::scoped_lock lock(mutex);
                     ended.emplace_back(name, result.status ? Errc{} : result.status.error().code);
                   }});
  }
  void wait_until_running() {
    while (model->statistics().bytes_written == 0) std::this_thread::yield();
  }
};

using Ends = std::vector<std::pair<int, Errc>>;

TEST_F(Queue, CommandsRunInTheOrderOfTheirSubmission) {
  make_model({});
  for (int i = 0; i < 100; ++i) submit(i, 1 + static_cast<std::uint32_t>(i) % 2, 5000);
  ASSERT_TRUE(run(*model, 1, NpuCopy{DeviceAddr(page), DeviceAddr(page), 1_B}).status.has_value());
  ASSERT_EQ(100U, ended.size());
  for (int i = 0; i < 100; ++i) EXPECT_EQ(std::pair(i, Errc{}), ended[static_cast<std::size_t>(i)]);
}

TEST_F(Queue, CancelStopsTheRunningCommandAndDropsTheWaitingOnesInOrder) {
  make_model(std::chrono::milliseconds(1));  // 512 pages: a copy takes a second
  submit(1, 1, big);
  submit(2, 2, big);
  submit(3, 1, big);
  submit(4, 1, big);
  wait_until_running();
  ASSERT_TRUE(cancel(*model, 1).has_value());
  ASSERT_TRUE(cancel(*model, 2).has_value());
  EXPECT_EQ(
      (Ends{{1, Errc::canceled}, {3, Errc::canceled}, {4, Errc::canceled}, {2, Errc::canceled}}),
      ended);
  EXPECT_EQ(4U, model->statistics().canceled);
}

TEST_F(Queue, NothingOfACanceledAddressSpaceTouchesMemory) {
  make_model(std::chrono::milliseconds(1));
  submit(1, 1, big);
  submit(2, 1, big);
  wait_until_running();
  ASSERT_TRUE(cancel(*model, 1).has_value());
  const std::uint64_t written = model->statistics().bytes_written;
  EXPECT_LT(written, big);
  ASSERT_TRUE(run(*model, 2, NpuCopy{DeviceAddr(page), DeviceAddr(page), 1_B}).status.has_value());
  EXPECT_EQ(written + 1, model->statistics().bytes_written);
}

TEST_F(Queue, CancelLeavesTheRunningCommandOfAnotherAddressSpaceAlone) {
  make_model(std::chrono::milliseconds(1));
  submit(1, 1, big);
  submit(2, 2, big);
  wait_until_running();
  ASSERT_TRUE(cancel(*model, 2).has_value());
  {
    const std::scoped_lock lock(mutex);
    EXPECT_EQ((Ends{{2, Errc::canceled}}), ended);
  }
  ASSERT_TRUE(run(*model, 2, NpuCopy{DeviceAddr(page), DeviceAddr(page), 1_B}).status.has_value());
  EXPECT_EQ((Ends{{2, Errc::canceled}, {1, Errc{}}}), ended);
}

TEST_F(Queue, CancelSparesWhatIsSubmittedAfterIt) {
  make_model(std::chrono::milliseconds(1));
  submit(1, 1, big);
  wait_until_running();
  std::promise<void> canceled;
  model->cancel(1, Completion([&canceled](Result<void>) { canceled.set_value(); }));
  submit(2, 1, 1);
  canceled.get_future().get();
  ASSERT_TRUE(run(*model, 2, NpuCopy{DeviceAddr(page), DeviceAddr(page), 1_B}).status.has_value());
  EXPECT_EQ((Ends{{1, Errc::canceled}, {2, Errc{}}}), ended);
}

TEST_F(Queue, CancelOfAnIdleAddressSpaceCompletes) {
  make_model({});
  EXPECT_TRUE(cancel(*model, 1).has_value());
  EXPECT_TRUE(cancel(*model, 77).has_value());
  EXPECT_EQ(0U, model->statistics().canceled);
}

TEST_F(Queue, OneAddressSpaceCannotFillTheQueueForOthers) {
  make_model(std::chrono::milliseconds(20));  // the first copy takes 20 seconds, if it is let
  submit(0, 1, big);
  for (std::uint32_t i = 1; i < NpuModel::max_queued; ++i) submit(0, 1, 1);
  const NpuCopy copy{DeviceAddr(page), DeviceAddr(page), 1_B};
  EXPECT_EQ(Errc::over_quota, model->check({1, copy, nullptr}).error().code);
  EXPECT_EQ(Errc::over_quota, run(*model, 1, copy).status.error().code);
  EXPECT_TRUE(model->check({2, copy, nullptr}).has_value());
  ASSERT_TRUE(cancel(*model, 1).has_value());
  EXPECT_TRUE(run(*model, 1, copy).status.has_value());
}

TEST_F(Queue, DestructionEndsEverythingThatIsLeft) {
  make_model(std::chrono::milliseconds(1));
  submit(1, 1, big);
  submit(2, 2, big);
  wait_until_running();
  model.reset();
  EXPECT_EQ((Ends{{1, Errc::canceled}, {2, Errc::canceled}}), ended);
}

TEST_F(Queue, ACallbackMaySubmitTheNextCommand) {
  make_model({});
  std::promise<void> last;
  std::function<void(int)> next = [&](int left) {
    model->submit({1, NpuCopy{DeviceAddr(page), DeviceAddr(page + big), 10_B},
                   [&, left](const NpuJobResult& result) {
                     EXPECT_TRUE(result.status.has_value());
                     left == 0 ? last.set_value() : next(left - 1);
                   }});
  };
  next(50);
  last.get_future().get();
  EXPECT_EQ(51U, model->statistics().jobs);
}

TEST_F(Queue, ManyThreadsSubmitInvalidateAndCancelAtOnce) {
  make_model({});
  std::atomic<int> jobs{0};
  std::atomic<int> invalidations{0};
  constexpr int rounds = 200;
  std::vector<std::thread> threads;
  for (std::uint32_t t = 0; t < 4; ++t)
    threads.emplace_back([&, asid = 1 + t % 2] {
      for (int i = 0; i < rounds; ++i) {
        model->submit({asid, NpuCopy{DeviceAddr(page), DeviceAddr(page + big), 9000_B},
                       [&](const NpuJobResult&) { ++jobs; }});
        model->invalidate(asid, {DeviceAddr(page), DeviceAddr(page + big)},
                          Completion([&](Result<void> r) { invalidations += r.has_value(); }));
        (void)model->find_entry(asid, DeviceAddr(page));
        if (i % 50 == 49) {
          EXPECT_TRUE(cancel(*model, asid).has_value());
        }
      }
    });
  for (std::thread& thread : threads) thread.join();
  ASSERT_TRUE(cancel(*model, 1).has_value());
  ASSERT_TRUE(cancel(*model, 2).has_value());
  EXPECT_EQ(4 * rounds, jobs.load());
  EXPECT_EQ(4 * rounds, invalidations.load());
  EXPECT_EQ(0U, model->statistics().faults);
}

}  // namespace
}  // namespace accelmm::sim
