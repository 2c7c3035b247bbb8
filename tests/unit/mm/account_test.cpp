// SPDX-License-Identifier: Apache-2.0
#include <accelmm/account.hpp>

#include <thread>
#include <vector>

#include <gtest/gtest.h>

namespace accelmm {
namespace {

std::shared_ptr<Account> below(std::shared_ptr<Account> parent, std::uint64_t bytes,
                               std::uint64_t allocations = 1000) {
  return std::make_shared<Account>(
      Account::Options{.limits = {.bytes = ByteCount(bytes), .allocations = allocations},
                       .parent = std::move(parent)});
}

TEST(AccountTest, AChargeIsSeenInEveryAccountAbove) {
  const auto device = below(nullptr, 1000);
  const auto user = below(device, 500);
  const auto session = below(user, 200);
  {
    const auto charge = Charge::make(session, ByteCount(150)).value();
    EXPECT_EQ(ByteCount(150), session->used());
    EXPECT_EQ(ByteCount(150), user->used());
    EXPECT_EQ(ByteCount(150), device->used());
    EXPECT_EQ(1U, device->usage().allocations);
  }
  EXPECT_EQ(ByteCount(0), session->used());
  EXPECT_EQ(ByteCount(0), device->used());
  EXPECT_EQ(0U, device->usage().allocations);
}

TEST(AccountTest, ALimitAnywhereAboveRefusesAndChargesNothing) {
  const auto device = below(nullptr, 1000);
  const auto user = below(device, 300);
  const auto one = below(user, 200);
  const auto other = below(user, 200);
  const auto charge = Charge::make(one, ByteCount(200)).value();
  const auto refused = Charge::make(other, ByteCount(101));
  ASSERT_FALSE(refused);
  EXPECT_EQ(Errc::over_quota, refused.error().code);
  EXPECT_EQ(ByteCount(0), other->used());
  EXPECT_EQ(ByteCount(200), user->used());
  EXPECT_EQ(ByteCount(100), other->left());
  EXPECT_TRUE(Charge::make(other, ByteCount(100)));
}

TEST(AccountTest, AnAmountBeyond64BitsIsRefusedNotWrapped) {
  const auto account = below(nullptr, 100);
  const auto charge = Charge::make(account, ByteCount(50)).value();
  EXPECT_FALSE(Charge::make(account, ByteCount(~std::uint64_t{0})));
  EXPECT_EQ(ByteCount(50), account->used());
}

TEST(AccountTest, TheNumberOfAllocationsHasALimitOfItsOwn) {
  const auto account = below(nullptr, 100, 2);
  const auto one = Charge::make(account, ByteCount(1)).value();
  {
    const auto two = Charge::make(account, ByteCount(1)).value();
    EXPECT_EQ(Errc::over_quota, Charge::make(account, ByteCount(0)).error().code);
    EXPECT_TRUE(Charge::make(account, ByteCount(1), 0));  // bytes alone
  }
  EXPECT_TRUE(Charge::make(account, ByteCount(1)));
}

TEST(AccountTest, PeaksStayUntilTheyAreReset) {
  const auto user = below(nullptr, 100);
  const auto session = below(user, 100);
  const auto kept = Charge::make(session, ByteCount(10)).value();
  {
    const auto passing = Charge::make(session, ByteCount(60)).value();
  }
  EXPECT_EQ(ByteCount(70), session->usage().peak);
  EXPECT_EQ(2U, session->usage().peak_allocations);
  session->reset_peaks();
  EXPECT_EQ(ByteCount(10), session->usage().peak);
  EXPECT_EQ(1U, session->usage().peak_allocations);
  EXPECT_EQ(ByteCount(70), user->usage().peak);
}

TEST(AccountTest, APartOfAChargeCanBeGivenBack) {
  const auto account = below(nullptr, 100);
  auto charge = Charge::make(account, ByteCount(100)).value();
  charge.shrink(ByteCount(40));
  EXPECT_EQ(ByteCount(60), account->used());
  EXPECT_EQ(ByteCount(60), charge.bytes());
  Charge moved = std::move(charge);
  EXPECT_EQ(ByteCount(60), account->used());
  moved = {};
  EXPECT_EQ(ByteCount(0), account->used());
}

TEST(AccountTest, ThreadsNeverExceedASharedLimit) {
  const auto user = below(nullptr, 100);
  std::vector<std::jthread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&] {
      const auto session = below(user, 80);
      for (int i = 0; i < 5000; ++i) {
        const auto charge = Charge::make(session, ByteCount(30));
        EXPECT_LE(user->used(), ByteCount(100));
      }
    });
  threads.clear();
  EXPECT_EQ(ByteCount(0), user->used());
  EXPECT_LE(user->usage().peak, ByteCount(100));
}

}  // namespace
}  // namespace accelmm
