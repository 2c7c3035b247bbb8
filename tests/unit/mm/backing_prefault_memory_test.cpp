// SPDX-License-Identifier: Apache-2.0
//
// A prefault when allocations fail.
#include "mm/backing/prefault.hpp"
#include "unit/mm/backing_place.hpp"
#include "unit/mm/failing_new.hpp"

#include <optional>

#include <gtest/gtest.h>

namespace accelmm {
namespace {

using test::Place;

constexpr Alignment page{4096};

TEST(Prefault, WithoutMemoryNothingBegins) {
#ifdef __SANITIZE_THREAD__
  GTEST_SKIP() << "the allocations of a thread that ends are counted without a lock";
#endif
  const Place place(4_MiB);
  for (std::int64_t k = 0;; ++k) {
    Prefaulter prefaulter(1);
    std::optional<Result<Prefault>> made;
    bool happened = false;
    {
      const test::FailingNew failing(k);
      made.emplace(prefaulter.start(place.bytes(), page, PrefaultMeans::populate_or_touch, {}));
      happened = failing.happened();
    }
    if (!happened) {
      EXPECT_TRUE((*made)->wait().has_value());
      EXPECT_GE(k, 3) << "the job, the threads, the queue";
      break;
    }
    ASSERT_FALSE(made->has_value());
    EXPECT_EQ(Errc::no_memory, made->error().code);
  }
}

}  // namespace
}  // namespace accelmm
