// SPDX-License-Identifier: Apache-2.0
//
// Lookups in several threads at the same time as inserts and removals in others. Every value knows
// whether it is alive, so that one that is used after its end shows; the thread sanitizer sees the
// rest. Numbers of rounds, not of seconds: what is tested does not depend on the machine's speed.
#include <accelmm/handle_table.hpp>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

namespace accelmm {
namespace {

constexpr std::uint8_t buffer = 1;

/// A value that is what it was made as until its end, and not after.
class Witness {
 public:
  explicit Witness(std::uint64_t number) : number_(number), complement_(~number) { ++alive; }
  Witness(Witness&& other) noexcept : number_(other.number_), complement_(other.complement_) {
    other.complement_ = other.number_;
    ++alive;
  }
  Witness(const Witness&) = delete;
  Witness& operator=(const Witness&) = delete;
  ~Witness() {
    complement_ = number_;
    --alive;
  }
  [[nodiscard]] bool is_whole() const { return complement_ == ~number_; }
  [[nodiscard]] std::uint64_t number() const { return number_; }

  static inline std::atomic<std::int64_t> alive{0};

 private:
  std::uint64_t number_;
  std::uint64_t complement_;  // is it no longer once the value was moved from or destroyed
};

using Table = HandleTable<Witness>;

/// Where threads leave handles for each other: passing one on orders nothing else.
template <std::size_t size>
struct Board {
  std::array<std::atomic<std::uint64_t>, size> handles{};

  [[nodiscard]] Handle at(std::size_t i) const {
    return Handle::from_raw(handles[i % size].load(std::memory_order_relaxed));
  }
  /// What was there.
  Handle put(std::size_t i, Handle handle) {
    return Handle::from_raw(handles[i % size].exchange(handle.raw(), std::memory_order_relaxed));
  }
};

template <class... Work>
void run(std::size_t each, Work... work) {
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < each; ++i) (threads.emplace_back(work, i), ...);
  for (std::thread& thread : threads) thread.join();
}

/// Two threads pin what two others replace, at as many places.
template <std::size_t places>
void pin_against_withdrawal(int rounds) {
  auto table = Table::create(64).value();
  Board<places> board;
  std::atomic<std::uint64_t> seen{0};
  std::atomic<std::uint64_t> broken{0};
  std::atomic<int> writers{2};
  auto look = [&](std::size_t seed) {
    // Also once around when the writers are done: what they left is live.
    for (std::size_t i = 0; i < places || writers.load(std::memory_order_relaxed) > 0; ++i) {
      const auto pin = table.pin(board.at(seed + i), buffer);
      if (!pin) continue;
      seen.fetch_add(1, std::memory_order_relaxed);
      if (!(*pin)->is_whole()) broken.fetch_add(1, std::memory_order_relaxed);
    }
  };
  auto replace = [&](std::size_t seed) {
    std::mt19937_64 dice(seed);
    for (int i = 0; i < rounds; ++i) {
      const auto made = table.insert(buffer, Witness(dice()));
      if (!made) {
        broken.fetch_add(1, std::memory_order_relaxed);
        continue;
      }
      const Handle old = board.put(dice(), *made);
      if (old.raw() == 0) continue;
      // The exchange made it this thread's alone to take out of the table.
      const auto gone = table.withdraw(old, buffer);
      if (!gone || (*gone && !(*gone)->is_whole())) broken.fetch_add(1, std::memory_order_relaxed);
    }
    writers.fetch_sub(1, std::memory_order_relaxed);
  };
  run(2, look, replace);
  EXPECT_EQ(0U, broken.load());
  EXPECT_GT(seen.load(), 0U);
  for (std::size_t i = 0; i < board.handles.size(); ++i) {
    const Handle last = board.at(i);
    EXPECT_EQ(last.raw() != 0, table.remove(last, buffer).has_value());
  }
  EXPECT_EQ(0U, table.size());
  EXPECT_EQ(0, Witness::alive.load());
}

TEST(HandleThreads, APinnedValueOutlivesItsWithdrawal) {
  pin_against_withdrawal<8>(20'000);
}

TEST(HandleThreads, APinnedValueOutlivesItsWithdrawalWhereAllWantOneHandle) {
  pin_against_withdrawal<1>(60'000);
}

TEST(HandleThreads, OfTwoThatTakeAValueOutOneDoes) {
  constexpr int rounds = 20'000;
  auto table = Table::create(16).value();
  std::vector<Handle> handles(rounds);
  std::array<std::atomic<int>, 2> ready{};
  std::atomic<int> taken{0};
  // Both wait for each other before each round, then take the same value, each in its own way.
  auto meet = [&](std::size_t self, int round) {
    ready[self].store(round, std::memory_order_release);
    while (ready[1 - self].load(std::memory_order_acquire) < round) std::this_thread::yield();
  };
  std::thread other([&] {
    for (int i = 0; i < rounds; ++i) {
      meet(1, 2 * i + 1);
      if (table.remove(handles[static_cast<std::size_t>(i)], buffer)) ++taken;
      meet(1, 2 * i + 2);
    }
  });
  for (int i = 0; i < rounds; ++i) {
    auto& handle = handles[static_cast<std::size_t>(i)];
    handle = table.insert(buffer, Witness(static_cast<std::uint64_t>(i))).value();
    meet(0, 2 * i + 1);
    if (const auto gone = table.withdraw(handle, buffer); gone && *gone) ++taken;
    meet(0, 2 * i + 2);
  }
  other.join();
  EXPECT_EQ(rounds, taken.load());
  EXPECT_EQ(0U, table.size());
  EXPECT_EQ(0, Witness::alive.load());
}

TEST(HandleThreads, InsertsOfManyThreadsGetDistinctHandlesWhileTheTableGrows) {
  constexpr std::size_t threads = 4;
  constexpr std::size_t each = 2'000;
  auto table = Table::create(threads * each).value();
  std::array<std::vector<Handle>, threads> handles;
  run(threads, [&](std::size_t self) {
    for (std::size_t i = 0; i < each; ++i)
      handles[self].push_back(table.insert(buffer, Witness(self * each + i)).value());
  });
  EXPECT_EQ(threads * each, table.size());
  EXPECT_EQ(Errc::over_quota, table.insert(buffer, Witness(0)).error().code);
  for (std::size_t self = 0; self < threads; ++self)
    for (std::size_t i = 0; i < each; ++i)
      ASSERT_EQ(self * each + i, table.find(handles[self][i], buffer).value()->number());
}

TEST(HandleThreads, ATableIsNeverOverfilledAndNeverFullWithRoomLeft) {
  constexpr std::size_t threads = 4;
  constexpr int rounds = 10'000;
  constexpr std::uint32_t capacity = 3;  // fewer than threads: some find it full
  auto table = Table::create(capacity).value();
  std::atomic<std::uint32_t> inside{0};
  std::atomic<std::uint64_t> broken{0};
  run(threads, [&](std::size_t self) {
    for (int i = 0; i < rounds; ++i) {
      const auto handle = table.insert(buffer, Witness(self));
      if (!handle) {
        if (handle.error().code != Errc::over_quota) broken.fetch_add(1);
        continue;
      }
      if (inside.fetch_add(1) >= capacity) broken.fetch_add(1);
      inside.fetch_sub(1);
      if (!table.remove(*handle, buffer)) broken.fetch_add(1);
    }
  });
  EXPECT_EQ(0U, broken.load());
  EXPECT_EQ(0U, table.size());
  std::vector<Handle> last;
  for (std::uint32_t i = 0; i < capacity; ++i)
    last.push_back(table.insert(buffer, Witness(i)).value());
  EXPECT_EQ(Errc::over_quota, table.insert(buffer, Witness(0)).error().code);
}

}  // namespace
}  // namespace accelmm
