// SPDX-License-Identifier: Apache-2.0
#include "base/mutex.hpp"

#include "base/system.hpp"

#include <array>
#include <atomic>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

namespace accelmm {
namespace {

class Counter {
 public:
  void add() {
    const MutexLock lock(mutex_);
    ++value_;
  }
  [[nodiscard]] int value() {
    const MutexLock lock(mutex_);
    return value_;
  }

 private:
  Mutex mutex_;
  int value_ ACCELMM_GUARDED_BY(mutex_) = 0;
};

template <class Work>
void run_in_threads(int count, Work work) {
  std::vector<std::thread> threads;
  for (int i = 0; i < count; ++i) threads.emplace_back(work);
  for (std::thread& thread : threads) thread.join();
}

TEST(Mutex, LosesNoUpdate) {
  Counter counter;
  run_in_threads(4, [&] {
    for (int i = 0; i < 10'000; ++i) counter.add();
  });
  EXPECT_EQ(40'000, counter.value());
}

TEST(Mutex, TryingFailsWhileAnotherThreadHoldsIt) {
  Mutex mutex;
  const auto try_in_another_thread = [&mutex] {
    bool taken = false;
    std::thread([&mutex, &taken] {
      if (!mutex.try_lock()) return;
      taken = true;
      mutex.unlock();
    }).join();
    return taken;
  };
  {
    const MutexLock lock(mutex);
    EXPECT_FALSE(try_in_another_thread());
  }
  EXPECT_TRUE(try_in_another_thread());
}

class Mailbox {
 public:
  void put(int value) {
    const MutexLock lock(mutex_);
    value_ = value;
    arrived_.notify_all();
  }
  [[nodiscard]] int wait() {
    const MutexLock lock(mutex_);
    while (value_ == 0) arrived_.wait(mutex_);
    return value_;
  }
  [[nodiscard]] int wait_until(std::uint64_t deadline_ns) {
    const MutexLock lock(mutex_);
    while (value_ == 0)
      if (arrived_.wait_until(mutex_, deadline_ns) == Condition::Wake::deadline) break;
    return value_;
  }

 private:
  Mutex mutex_;
  Condition arrived_;
  int value_ ACCELMM_GUARDED_BY(mutex_) = 0;
};

TEST(Condition, AWaiterSeesWhatIsNotified) {
  Mailbox mailbox;
  int seen = 0;
  std::thread waiter([&] { seen = mailbox.wait(); });
  mailbox.put(7);
  waiter.join();
  EXPECT_EQ(7, seen);
}

TEST(Condition, AWaitEndsAtItsDeadlineAndNotBefore) {
  Mailbox mailbox;
  const std::uint64_t deadline_ns = sys::monotonic_ns() + 1'000'000;
  EXPECT_EQ(0, mailbox.wait_until(deadline_ns));
  EXPECT_GE(sys::monotonic_ns(), deadline_ns);
  mailbox.put(3);
  EXPECT_EQ(3, mailbox.wait_until(UINT64_MAX / 4));
}

TEST(SharedMutex, ReadersNeverSeeAHalfDoneWrite) {
  struct Pair {
    SharedMutex mutex;
    int first ACCELMM_GUARDED_BY(mutex) = 0;
    int second ACCELMM_GUARDED_BY(mutex) = 0;
  } pair;
  std::atomic<int> torn{0};
  std::thread reader([&] {
    for (int i = 0; i < 20'000; ++i) {
      const ReaderLock lock(pair.mutex);
      torn += pair.first != pair.second;
    }
  });
  run_in_threads(2, [&] {
    for (int i = 0; i < 5'000; ++i) {
      const WriterLock lock(pair.mutex);
      ++pair.first;
      ++pair.second;
    }
  });
  reader.join();
  EXPECT_EQ(0, torn);
  const ReaderLock lock(pair.mutex);
  EXPECT_EQ(10'000, pair.first);
}

TEST(SharedMutex, ReadersDoNotExcludeEachOther) {
  SharedMutex mutex;
  const ReaderLock lock(mutex);
  bool entered = false;
  std::thread([&] {
    const ReaderLock other(mutex);
    entered = true;
  }).join();
  EXPECT_TRUE(entered);
}

TEST(SharedMutex, AWaitingWriterGoesBeforeNewReaders) {
  SharedMutex mutex;
  std::atomic<bool> written{false};
  std::thread writer;
  {
    const ReaderLock lock(mutex);
    writer = std::thread([&] {
      const WriterLock exclusive(mutex);
      written = true;
    });
    // With readers first, as pthread read-write locks have it by default, new readers would come in for ever.
    std::thread([&] {
      while (mutex.try_lock_shared()) {
        mutex.unlock_shared();
        std::this_thread::yield();
      }
    }).join();
    EXPECT_FALSE(written);
  }
  writer.join();
  EXPECT_TRUE(written);
}

}  // namespace
}  // namespace accelmm
