// SPDX-License-Identifier: Apache-2.0
#include "base/mapping.hpp"
#include "mm/backing/prefault.hpp"
#include "support/failing_calls.hpp"
#include "unit/mm/backing_place.hpp"

#include <cerrno>
#include <cstring>
#include <future>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

namespace accelmm {
namespace {

using test::FailingSite;
using test::Place;

constexpr Alignment page{4096};
constexpr ByteCount size = 4_MiB;  // four pieces

/// What the end of a place was told as.
struct Told {
  std::promise<Result<void>> promise;
  std::future<Result<void>> future = promise.get_future();
  [[nodiscard]] Prefaulter::Done done() {
    return [this](Result<void> result) { promise.set_value(result); };
  }
};

/// Holds every thread that is about to make pages, until it is told to go on.
class Gate {
 public:
  Gate() { fault_injection::install(&hook, this); }
  Gate(const Gate&) = delete;
  Gate& operator=(const Gate&) = delete;
  ~Gate() { fault_injection::install(nullptr, nullptr); }

  void await(int threads) const {
    while (arrived_.load() < threads) std::this_thread::yield();
  }
  void open() {
    open_.store(true);
    open_.notify_all();
  }

 private:
  static int hook(void* context, const char* site) noexcept {
    auto* const self = static_cast<Gate*>(context);
    if (std::strcmp(site, "populate") != 0) return 0;
    ++self->arrived_;
    self->open_.wait(false);
    return 0;
  }
  std::atomic<int> arrived_{0};
  std::atomic<bool> open_{false};
};

TEST(Prefault, MakesEveryPageAndSaysSo) {
  const Place place(size);
  Prefaulter prefaulter(2);
  Told told;
  const auto made =
      prefaulter.start(place.bytes(), page, PrefaultMeans::populate_or_touch, told.done());
  ASSERT_TRUE(made.has_value());
  EXPECT_TRUE(made->wait().has_value());
  EXPECT_TRUE(told.future.get().has_value());
  EXPECT_TRUE(made->has_ended());
  EXPECT_EQ(size, made->progress());
  EXPECT_EQ(size, place.taken());
}

TEST(Prefault, KeepsWhatIsThereAndMakesTheRestZero) {
  const Place place(size);
  place.bytes()[5] = std::byte{9};
  for (const bool by_touching : {false, true}) {
    std::optional<FailingSite> failing;
    if (by_touching) failing.emplace("populate", EINVAL);
    Prefaulter prefaulter(3);
    const auto made = prefaulter.start(place.bytes(), page, PrefaultMeans::populate_or_touch, {});
    ASSERT_TRUE(made.has_value());
    EXPECT_TRUE(made->wait().has_value());
    EXPECT_EQ(std::byte{9}, place.bytes()[5]);
    EXPECT_EQ(std::byte{0}, place.bytes()[size.value() - 1]);
    for (std::size_t at = 0; at < size.value(); at += page.value())
      ASSERT_EQ(std::byte{0}, place.bytes()[at]) << "the byte that is touched";
    EXPECT_EQ(size, place.taken());
  }
}

TEST(Prefault, TouchesWhereTheKernelIsTooOldToPopulate) {
  const Place place(size);
  const FailingSite failing("populate", EINVAL);
  Prefaulter prefaulter(2);
  const auto made = prefaulter.start(place.bytes(), page, PrefaultMeans::populate_or_touch, {});
  ASSERT_TRUE(made.has_value());
  EXPECT_TRUE(made->wait().has_value());
  EXPECT_EQ(4, failing.failures());
  EXPECT_EQ(size, made->progress());
  EXPECT_EQ(size, place.taken());
}

TEST(Prefault, DoesNotTouchWhatMayBeASignal) {
  const Place place(size);
  const FailingSite failing("populate", EINVAL);
  Prefaulter prefaulter(2);
  const auto made = prefaulter.start(place.bytes(), page, PrefaultMeans::populate, {});
  ASSERT_TRUE(made.has_value());
  EXPECT_EQ(Errc::invalid_argument, made->wait().error().code);
  EXPECT_EQ(0_B, place.taken());
}

TEST(Prefault, TheFirstRefusalEndsIt) {
  const Place place(64_MiB);
  const FailingSite failing("populate", EFAULT);
  Prefaulter prefaulter(2);
  Told told;
  const auto made =
      prefaulter.start(place.bytes(), page, PrefaultMeans::populate_or_touch, told.done());
  ASSERT_TRUE(made.has_value());
  EXPECT_EQ(Errc::fault, made->wait().error().code);
  EXPECT_EQ(Errc::fault, told.future.get().error().code);
  EXPECT_LE(failing.failures(), 4) << "a piece for each thread, and those on their way";
  EXPECT_EQ(0_B, made->progress());
}

TEST(Prefault, CancelingTakesNoFurtherPiece) {
  const Place place(64_MiB);
  Gate gate;
  Prefaulter prefaulter(2);
  Told told;
  auto made = prefaulter.start(place.bytes(), page, PrefaultMeans::populate_or_touch, told.done());
  ASSERT_TRUE(made.has_value());
  gate.await(2);
  EXPECT_EQ(0_B, made->progress());
  made->cancel();
  EXPECT_FALSE(made->has_ended()) << "two pieces are being made";
  gate.open();
  EXPECT_EQ(Errc::canceled, made->wait().error().code);
  EXPECT_EQ(Errc::canceled, told.future.get().error().code);
  EXPECT_EQ(2_MiB, made->progress());
  EXPECT_EQ(2_MiB, place.taken());
}

TEST(Prefault, CancelingWhatHasNotBegunEndsItAtOnce) {
  const Place large(64_MiB);
  const Place place(size);
  Gate gate;
  Prefaulter prefaulter(1);
  const auto first = prefaulter.start(large.bytes(), page, PrefaultMeans::populate_or_touch, {});
  gate.await(1);
  Told told;
  {
    auto second =
        prefaulter.start(place.bytes(), page, PrefaultMeans::populate_or_touch, told.done());
    ASSERT_TRUE(second.has_value());
  }
  EXPECT_EQ(Errc::canceled, told.future.get().error().code);
  EXPECT_EQ(0_B, place.taken());
  gate.open();
  EXPECT_TRUE(first->wait().has_value()) << "others go on";
}

TEST(Prefault, CancelingWhatHasEndedChangesNothing) {
  const Place place(size);
  Prefaulter prefaulter(1);
  auto made = prefaulter.start(place.bytes(), page, PrefaultMeans::populate_or_touch, {});
  ASSERT_TRUE(made->wait().has_value());
  made->cancel();
  EXPECT_TRUE(made->wait().has_value());
}

TEST(Prefault, ASmallPlaceDoesNotWaitForALargeOne) {
  const Place large(64_MiB);
  const Place small(1_MiB);
  Gate gate;
  Prefaulter prefaulter(1);
  auto first = prefaulter.start(large.bytes(), page, PrefaultMeans::populate_or_touch, {});
  gate.await(1);
  std::optional<ByteCount> progress_of_first;  // when the second one ended, in that thread
  auto second =
      prefaulter.start(small.bytes(), page, PrefaultMeans::populate_or_touch,
                       [&](const Result<void>&) { progress_of_first.emplace(first->progress()); });
  gate.open();
  EXPECT_TRUE(second->wait().has_value());
  EXPECT_EQ(2_MiB, *progress_of_first) << "one piece was in hand, one was next: they take turns";
  EXPECT_TRUE(first->wait().has_value());
}

TEST(Prefault, APieceIsNeverLessThanALargestPage) {
  const Place place(64_MiB);
  const FailingSite failing("populate", EINVAL);
  Prefaulter prefaulter(1);
  const auto made = prefaulter.start(place.bytes(), Alignment(std::uint64_t{32} << 20),
                                     PrefaultMeans::populate_or_touch, {});
  EXPECT_TRUE(made->wait().has_value());
  EXPECT_EQ(2, failing.failures());
}

}  // namespace
}  // namespace accelmm
