// SPDX-License-Identifier: Apache-2.0
//
// What is asked of the system for placed memory, and what becomes of refusals. They are injected
// here; backing_huge_pages_test.cpp has the machines that do not refuse.
#include "mm/backing/host_backing.hpp"
#include "mm/backing/huge_pages.hpp"
#include "mm/backing/written_bytes.hpp"
#include "support/census.hpp"
#include "support/failing_calls.hpp"
#include "unit/mm/backing_place.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>
#include <vector>

#include <fcntl.h>
#include <gtest/gtest.h>

namespace accelmm {
namespace {

using test::FailingSite;
using test::Place;

constexpr ByteCount size = 8_MiB;
constexpr NodePolicy first_node{NodeRule::bind, {1}};

BackingRequest base_request() {
  BackingRequest request;
  request.pages = PageSize::base;
  return request;
}

/// The flags of /proc/self/smaps for the area that begins at an address.
std::string area_flags(const std::byte* address) {
  std::ifstream smaps("/proc/self/smaps");
  std::ostringstream begin;
  begin << std::hex << reinterpret_cast<std::uintptr_t>(address) << '-';
  bool found = false;
  for (std::string line; std::getline(smaps, line);) {
    if (line.starts_with(begin.str())) found = true;
    if (found && line.starts_with("VmFlags:")) return line + " ";
  }
  return {};
}

class Backed : public testing::Test {
 protected:
  [[nodiscard]] Result<HostBacking> settle(const BackingRequest& request) {
    return HostBacking::settle(place_.bytes(), request, request.pages, {}, prefaulter_);
  }
  [[nodiscard]] BackingReport report(const HostBacking& backing) const {
    return backing.report(place_.fd());
  }

  Place place_{size};
  Prefaulter prefaulter_{2};
};

TEST_F(Backed, APlainRequestAsksForNothingAndTakesNothing) {
  const FailingSite no_madvise("madvise", EPERM);
  const auto backing = settle(base_request());
  ASSERT_TRUE(backing.has_value());
  EXPECT_EQ(0, no_madvise.failures());
  const BackingReport told = report(*backing);
  EXPECT_EQ(PageSize::base, told.pages);
  EXPECT_EQ(ByteCount(4096), told.page_size);
  EXPECT_EQ(0_B, told.populated);
  EXPECT_EQ(0_B, told.locked);
  EXPECT_EQ(PrefaultState::none, told.prefault);
  EXPECT_EQ(64U, told.sample.taken);
  EXPECT_EQ(0U, told.sample.present);
}

TEST_F(Backed, WhatIsThereIsReported) {
  const auto backing = settle(base_request());
  ASSERT_TRUE(backing.has_value());
  const std::uint64_t piece = size.value() / 64;  // has one sample
  place_.bytes()[0] = std::byte{1};               // the first
  for (std::uint64_t at = 0; at < piece; at += 4096)
    place_.bytes()[size.value() / 2 + at] = std::byte{1};  // one in the middle
  place_.bytes()[size.value() - 1] = std::byte{1};         // none
  const BackingReport told = report(*backing);
  EXPECT_EQ(8_KiB + ByteCount(piece), told.populated);
  EXPECT_EQ(2U, told.sample.present);
  if (!told.refused.sample) {
    EXPECT_NE(0U, told.sample.nodes.bits);
    EXPECT_EQ(0U, told.sample.huge);
  }
}

TEST_F(Backed, MemoryIsKeptOutOfCoreDumps) {
  BackingRequest request = base_request();
  ASSERT_TRUE(settle(request).has_value());
  EXPECT_EQ(std::string::npos, area_flags(place_.bytes().data()).find(" dd "));
  request.dumps = CoreDumps::excluded;
  const auto backing = settle(request);
  ASSERT_TRUE(backing.has_value());
  EXPECT_NE(std::string::npos, area_flags(place_.bytes().data()).find(" dd "));
  EXPECT_FALSE(report(*backing).refused.dumps.has_value());
}

TEST_F(Backed, MemoryIsLockedAsItComes) {
  BackingRequest request = base_request();
  request.lock = MemoryLock::locked;
  const auto backing = settle(request);
  ASSERT_TRUE(backing.has_value());
  if (!backing->is_locked()) GTEST_SKIP() << "RLIMIT_MEMLOCK is below 8 MiB here";
  EXPECT_NE(std::string::npos, area_flags(place_.bytes().data()).find(" lo "));
  EXPECT_EQ(size, report(*backing).locked);
  EXPECT_EQ(0_B, report(*backing).populated);
}

TEST_F(Backed, ImportableMemoryIsKeptFromHugePages) {
  BackingRequest request = base_request();
  request.importable = Importable::needed;
  ASSERT_TRUE(settle(request).has_value());
  EXPECT_NE(std::string::npos, area_flags(place_.bytes().data()).find(" nh "));
}

TEST_F(Backed, PagesOfTheOnlyNodeAreThere) {
  BackingRequest request = base_request();
  request.nodes = first_node;
  request.prefault = PrefaultPages::yes;
  auto backing = settle(request);
  ASSERT_TRUE(backing.has_value());
  if (report(*backing).refused.nodes) GTEST_SKIP() << "kernel without nodes";
  ASSERT_TRUE(backing->prefault(prefaulter_, {}).has_value());
  while (report(*backing).prefault == PrefaultState::running) std::this_thread::yield();
  const BackingReport told = report(*backing);
  EXPECT_EQ(PrefaultState::done, told.prefault);
  EXPECT_EQ(size, told.prefaulted);
  EXPECT_EQ(size, told.populated);
  EXPECT_EQ(64U, told.sample.present);
  EXPECT_EQ(NodeSet{1}, told.sample.nodes);
}

/// One part of a request, the call that grants it, and where its refusal is told.
struct Part {
  const char* name;
  const char* site;
  int error;
  Errc told;
  void (*ask)(BackingRequest&);
  std::optional<Errc> BackingRefusals::* refusal;
};

class Refused : public Backed, public testing::WithParamInterface<Part> {};
INSTANTIATE_TEST_SUITE_P(
    Each, Refused,
    testing::Values(
        Part{"transparent", "madvise", EINVAL, Errc::invalid_argument,
             [](BackingRequest& r) { r.pages = PageSize::transparent; }, &BackingRefusals::pages},
        Part{"a node that is not there", "mbind", EINVAL, Errc::not_supported,
             [](BackingRequest& r) { r.nodes = first_node; }, &BackingRefusals::nodes},
        Part{"a kernel without nodes", "mbind", ENOSYS, Errc::not_supported,
             [](BackingRequest& r) { r.nodes = first_node; }, &BackingRefusals::nodes},
        Part{"a sandbox without mbind", "mbind", EPERM, Errc::not_permitted,
             [](BackingRequest& r) { r.nodes = first_node; }, &BackingRefusals::nodes},
        Part{"no lock at all", "lock_on_fault", EPERM, Errc::over_quota,
             [](BackingRequest& r) { r.lock = MemoryLock::locked; }, &BackingRefusals::lock},
        Part{"beyond RLIMIT_MEMLOCK", "lock_on_fault", ENOMEM, Errc::over_quota,
             [](BackingRequest& r) { r.lock = MemoryLock::locked; }, &BackingRefusals::lock},
        Part{"lock, later", "lock_on_fault", EAGAIN, Errc::try_again,
             [](BackingRequest& r) { r.lock = MemoryLock::locked; }, &BackingRefusals::lock},
        Part{"dumps", "madvise", EINVAL, Errc::invalid_argument,
             [](BackingRequest& r) { r.dumps = CoreDumps::excluded; }, &BackingRefusals::dumps}));

TEST_P(Refused, IsToldByTheReportAndTheRestIsHad) {
  BackingRequest request = base_request();
  GetParam().ask(request);
  const FailingSite failing(GetParam().site, GetParam().error);
  const auto backing = settle(request);
  ASSERT_TRUE(backing.has_value()) << GetParam().name;
  EXPECT_EQ(1, failing.failures());
  const BackingReport told = report(*backing);
  EXPECT_EQ(GetParam().told, told.refused.*GetParam().refusal) << GetParam().name;
  BackingRefusals others = told.refused;
  others.*GetParam().refusal = std::nullopt;
  EXPECT_FALSE(others.pages || others.nodes || others.lock || others.dumps || others.prefault);
  EXPECT_EQ(0_B, told.locked);
}

TEST_P(Refused, IsAnErrorOfAnExactRequest) {
  BackingRequest request = base_request();
  GetParam().ask(request);
  request.rule = BackingRule::exact;
  const FailingSite failing(GetParam().site, GetParam().error);
  const auto backing = settle(request);
  ASSERT_FALSE(backing.has_value()) << GetParam().name;
  EXPECT_EQ(GetParam().told, backing.error().code) << GetParam().name;
}

TEST_F(Backed, ARefusedPrefaultIsToldByTheReport) {
  auto backing = settle(base_request());
  ASSERT_TRUE(backing.has_value());
  const FailingSite failing("populate", EFAULT);
  ASSERT_TRUE(backing->prefault(prefaulter_, {}).has_value());
  while (report(*backing).prefault == PrefaultState::running) std::this_thread::yield();
  EXPECT_EQ(PrefaultState::failed, report(*backing).prefault);
  EXPECT_EQ(Errc::fault, report(*backing).refused.prefault);
  EXPECT_EQ(0_B, report(*backing).prefaulted);
}

TEST_F(Backed, WithoutSamplesTheReportSaysWhy) {
  const auto backing = settle(base_request());
  ASSERT_TRUE(backing.has_value());
  place_.bytes()[0] = std::byte{1};
  {
    const FailingSite failing("nodes_of_pages", EPERM);
    EXPECT_EQ(Errc::not_permitted, report(*backing).refused.sample);
    EXPECT_EQ(0U, report(*backing).sample.taken);
  }
  for (const char* site : {"open", "is_huge_page"}) {
    const FailingSite failing(site, ENOTTY);
    EXPECT_EQ(Errc::unknown_ioctl, report(*backing).refused.sample) << site;
    EXPECT_EQ(1U, report(*backing).sample.present) << site;
    EXPECT_EQ(0U, report(*backing).sample.huge) << site;
  }
  const FailingSite failing("fstat", EIO);
  EXPECT_EQ(0_B, report(*backing).populated);
}

TEST_F(Backed, PagesOfAPoolThatCannotBeMadeAreAnErrorEvenOfABestEffort) {
  BackingRequest request = base_request();
  request.pages = PageSize::huge_2m;
  const std::pair<int, Errc> errors[] = {
      {EFAULT, Errc::no_memory}, {ENOMEM, Errc::no_memory}, {EINVAL, Errc::not_supported}};
  for (const auto& [error, told] : errors) {
    const FailingSite failing("populate", error);
    const auto backing = settle(request);
    ASSERT_FALSE(backing.has_value());
    EXPECT_EQ(told, backing.error().code);
  }
  EXPECT_EQ(0_B, place_.taken());
}

TEST_F(Backed, ClearingWritesZeroesWhereSomethingWasWritten) {
  BackingRequest request = base_request();
  for (const ZeroOnFree zero : {ZeroOnFree::no, ZeroOnFree::yes}) {
    request.zero_on_free = zero;
    auto backing = settle(request);
    ASSERT_TRUE(backing.has_value());
    place_.bytes()[0] = std::byte{1};
    place_.bytes()[5 << 20] = std::byte{2};
    backing->clear(place_.fd());
    const std::byte left = zero == ZeroOnFree::no ? std::byte{2} : std::byte{0};
    EXPECT_EQ(left, place_.bytes()[5 << 20]);
    EXPECT_EQ(8_KiB, place_.taken()) << "nothing is taken for what was never written";
  }
  EXPECT_EQ(std::byte{0}, place_.bytes()[0]);
}

TEST_F(Backed, ClearingWithoutTheSystemsHelpWritesAll) {
  std::ranges::fill(place_.bytes(), std::byte{4});
  const FailingSite failing("seek", EINVAL);
  clear_written(place_.bytes(), place_.fd());
  EXPECT_TRUE(std::ranges::all_of(place_.bytes(), [](std::byte b) { return b == std::byte{0}; }));
}

TEST_F(Backed, ClearingReachesTheLastPageAndStopsAtTheEnd) {
  place_.bytes().back() = std::byte{4};
  clear_written(place_.bytes(), place_.fd());
  EXPECT_EQ(std::byte{0}, place_.bytes().back());
  std::ranges::fill(place_.bytes(), std::byte{4});
  clear_written(place_.bytes(), place_.fd());
  EXPECT_TRUE(std::ranges::all_of(place_.bytes(), [](std::byte b) { return b == std::byte{0}; }));
}

TEST_F(Backed, ClearingStopsMakingPagesFirst) {
  auto backing = settle(base_request());
  ASSERT_TRUE(backing.has_value());
  std::atomic<int> ends{0};
  ASSERT_TRUE(backing->prefault(prefaulter_, [&](const Result<void>&) { ++ends; }).has_value());
  backing->clear(place_.fd());
  EXPECT_EQ(1, ends.load());
  EXPECT_EQ(PrefaultState::none, report(*backing).prefault);
}

TEST(BackingRequests, WhatIsLeftOpenComesFromTheDefaults) {
  BackingRequest defaults;
  defaults.pages = PageSize::huge_2m;
  defaults.nodes = first_node;
  defaults.dumps = CoreDumps::excluded;
  defaults.zero_on_free = ZeroOnFree::yes;
  const auto whole = complete_request({}, defaults);
  ASSERT_TRUE(whole.has_value());
  EXPECT_EQ(PageSize::huge_2m, whole->pages);
  EXPECT_EQ(NodeRule::bind, whole->nodes.rule);
  EXPECT_EQ(CoreDumps::excluded, whole->dumps);
  EXPECT_EQ(ZeroOnFree::yes, whole->zero_on_free);
  EXPECT_EQ(MemoryLock::none, whole->lock);

  BackingRequest own;
  own.pages = PageSize::base;
  own.nodes = {NodeRule::interleave, {2}};
  own.lock = MemoryLock::locked;
  own.rule = BackingRule::exact;
  const auto mixed = complete_request(own, defaults);
  ASSERT_TRUE(mixed.has_value());
  EXPECT_EQ(PageSize::base, mixed->pages);
  EXPECT_EQ(NodeRule::interleave, mixed->nodes.rule);
  EXPECT_EQ(NodeSet{2}, mixed->nodes.nodes);
  EXPECT_EQ(MemoryLock::locked, mixed->lock);
  EXPECT_EQ(BackingRule::exact, mixed->rule);
  EXPECT_EQ(ZeroOnFree::yes, mixed->zero_on_free);
  EXPECT_EQ(PageSize::base, complete_request({}, {})->pages);
}

TEST(BackingRequests, ThatContradictThemselvesAreRefused) {
  const NodePolicy wrong[] = {
      {NodeRule::any, {1}}, {NodeRule::bind, {}}, {static_cast<NodeRule>(4), {1}}};
  for (const NodePolicy& nodes : wrong) {
    BackingRequest request;
    request.nodes = nodes;
    EXPECT_EQ(Errc::invalid_argument, complete_request(request, {}).error().code);
  }
  BackingRequest request;
  request.pages = static_cast<PageSize>(5);
  EXPECT_EQ(Errc::invalid_argument, complete_request(request, {}).error().code);
}

}  // namespace
}  // namespace accelmm
