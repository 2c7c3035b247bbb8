// SPDX-License-Identifier: Apache-2.0
#include "unit/mm/device_heap_fixture.hpp"
#include "unit/mm/failing_new.hpp"

#include <string>
#include <vector>

namespace accelmm::test {
namespace {

class Heard final : public PressureListener {
 public:
  void on_pressure(Pressure pressure, ByteCount available) noexcept override {
    notes.push_back(pressure);
    last = available;
    if (heap != nullptr) static_cast<void>(heap->statistics());  // no lock is held
  }
  std::vector<Pressure> notes;
  ByteCount last;
  DeviceHeap* heap = nullptr;
};

class FreesOne final : public Evictor {
 public:
  ByteCount evict(ByteCount wanted) noexcept override {
    needed = wanted;
    ++calls;
    if (victims.empty()) return ByteCount(0);
    const auto victim = victims.back();
    victims.pop_back();
    if (!heap->free(owner, victim.id)) return ByteCount(0);
    return victim.extent.length;
  }
  DeviceHeap* heap = nullptr;
  OwnerId owner{};
  std::vector<DeviceHeap::Allocated> victims;
  ByteCount needed;
  int calls = 0;
};

TEST_F(DeviceHeapTest, PressureIsToldOnceAtEachEdge) {
  Heard heard;
  make({.size = 64_MiB,
        .native_page = native,
        .thresholds = {.low = 16_MiB, .critical = 4_MiB, .relief = 4_MiB},
        .listener = &heard});
  heard.heap = &*heap;
  const OwnerId me = owner();
  std::vector<DeviceHeap::Allocated> pages;
  for (int i = 0; i < 32; ++i) pages.push_back(take(me, native));
  EXPECT_EQ((std::vector{Pressure::low, Pressure::critical}), heard.notes);
  EXPECT_EQ(2_MiB, heard.last);
  EXPECT_EQ(Pressure::critical, heap->pressure());
  const auto give = [&](int count) {
    for (int i = 0; i < count; ++i) {
      ASSERT_TRUE(heap->free(me, pages.back().id));
      pages.pop_back();
    }
  };
  give(3);  // 6 MiB: above critical, not by the relief
  EXPECT_EQ(2U, heard.notes.size());
  give(1);  // 8 MiB
  EXPECT_EQ((std::vector{Pressure::low, Pressure::critical, Pressure::low}), heard.notes);
  pages.push_back(take(me, native));
  give(1);
  EXPECT_EQ(3U, heard.notes.size());
  give(6);  // 20 MiB
  EXPECT_EQ(4U, heard.notes.size());
  EXPECT_EQ(Pressure::none, heard.notes.back());
}

TEST_F(DeviceHeapTest, EvictionMakesRoomBeforeARequestFails) {
  FreesOne evictor;
  make({.size = 64_MiB, .native_page = native, .evictor = &evictor, .evictions = 3});
  evictor.heap = &*heap;
  evictor.owner = owner();
  const OwnerId me = owner();
  for (int i = 0; i < 8; ++i) evictor.victims.push_back(take(evictor.owner, 8_MiB));
  EXPECT_EQ(8_MiB, take(me, 8_MiB).extent.length);
  EXPECT_EQ(1, evictor.calls);
  EXPECT_EQ(8_MiB, evictor.needed);
  // Three times at most.
  EXPECT_EQ(Errc::no_memory, code(heap->allocate(me, {.size = 40_MiB})));
  EXPECT_EQ(4, evictor.calls);
  EXPECT_EQ(4U, heap->counters().evictions);
  EXPECT_EQ(1U, heap->counters().out_of_memory);
}

TEST_F(DeviceHeapTest, AnEvictorThatHasNothingIsAskedOnce) {
  FreesOne evictor;
  make({.size = 64_MiB, .native_page = native, .evictor = &evictor});
  const OwnerId me = owner();
  EXPECT_EQ(Errc::no_memory, code(heap->allocate(me, {.size = 65_MiB})));
  EXPECT_EQ(1, evictor.calls);
  const OwnerId poor = heap->add_owner(account(1_MiB)).value();
  EXPECT_EQ(Errc::over_quota, code(heap->allocate(poor, {.size = 2_MiB})));
  EXPECT_EQ(1, evictor.calls);  // a quota is nobody else's loss
}

class Clock final : public DeviceProgress {
 public:
  std::uint64_t reached() noexcept override {
    ++asked;
    return now;
  }
  std::uint64_t now = 0;
  int asked = 0;
};

TEST_F(DeviceHeapTest, WhatTheDeviceHasReachedIsRetiredBeforeTheEvictorIsAsked) {
  FreesOne evictor;
  Clock clock;
  make({.size = 64_MiB, .native_page = native, .evictor = &evictor, .progress = &clock});
  const OwnerId me = heap->add_owner(account(64_MiB)).value();
  std::vector<DeviceHeap::Allocated> many;
  for (int i = 0; i < 32; ++i) many.push_back(take(me, native));
  for (std::size_t i = 0; i < 32; ++i) ASSERT_TRUE(heap->free_after(me, many[i].id, i + 1));
  clock.now = 16;
  // The quota is full as well, until what was reached is retired.
  static_cast<void>(take(me, native));
  EXPECT_EQ(1, clock.asked);
  EXPECT_EQ(30_MiB, heap->statistics().free);
  const OwnerId other = owner();
  EXPECT_EQ(Errc::no_memory, code(heap->allocate(other, {.size = 32_MiB})));
  EXPECT_EQ(1, evictor.calls);
  clock.now = 32;
  static_cast<void>(take(other, 32_MiB));
  EXPECT_EQ(1, evictor.calls);
  heap->validate();
}

TEST_F(DeviceHeapTest, AShortageSaysWhoHoldsWhatAndHowItLies) {
  make();
  const OwnerId one = heap->add_owner(account(64_MiB, 1)).value();
  const OwnerId two = heap->add_owner(account(64_MiB, 2)).value();
  const OwnerId three = heap->add_owner(account(10_MiB, 3)).value();
  std::vector<DeviceHeap::Allocated> pages;
  for (int i = 0; i < 30; ++i) pages.push_back(take(i % 3 == 0 ? one : two, native));
  for (std::size_t i = 0; i < 30; i += 3) ASSERT_TRUE(heap->free(one, pages[i].id));
  static_cast<void>(take(three, ByteCount(5000)));
  ASSERT_TRUE(heap->free_after(two, pages[1].id, 99));
  const DeviceHeap::Request request{.size = 12_MiB};
  ASSERT_EQ(Errc::over_quota, code(heap->allocate(three, request)));
  ASSERT_EQ(Errc::no_memory, code(heap->allocate(two, request)));
  const auto calls = test::heap.calls;
  const Shortage shortage = heap->explain(two, request);
  EXPECT_EQ(calls, test::heap.calls);  // no memory of its own
  EXPECT_EQ(12_MiB, shortage.wanted);
  EXPECT_EQ(22_MiB, shortage.free);
  EXPECT_EQ(2_MiB, shortage.largest_free);
  EXPECT_EQ(2_MiB, shortage.pending);
  EXPECT_EQ(native - ByteCount(5000), shortage.small_slack);
  EXPECT_EQ(22_MiB, shortage.free_in_runs[0]);
  EXPECT_EQ(ByteCount(0), shortage.free_in_runs[1]);
  EXPECT_EQ(0.0, shortage.fragmentation(0));
  EXPECT_EQ(1.0, shortage.fragmentation(1));
  // A window of 6 pages with two free ones, and none that waits.
  EXPECT_EQ(8_MiB, shortage.moves_to_make);
  ASSERT_EQ(3U, shortage.owner_count);
  EXPECT_EQ(two, shortage.owners[0].id);
  EXPECT_EQ(40_MiB, shortage.owners[0].held);
  EXPECT_EQ(2_MiB, shortage.owners[0].pending);
  EXPECT_EQ(three, shortage.owners[1].id);
  EXPECT_EQ(one, shortage.owners[2].id);
  EXPECT_EQ(20_MiB, shortage.owners[2].peak);
  const std::string text = shortage.text();
  EXPECT_NE(std::string::npos, text.find("session 2 holds 41943040"));
  EXPECT_NE(std::string::npos, text.find("longest free run"));
}

TEST_F(DeviceHeapTest, AShortageShowsThoseThatHoldMost) {
  make();
  std::vector<OwnerId> owners;
  for (std::uint64_t i = 0; i < 20; ++i)
    owners.push_back(heap->add_owner(account(64_MiB, i)).value());
  for (const std::size_t n : {3U, 19U, 11U}) static_cast<void>(take(owners[n], 2_MiB));
  static_cast<void>(take(owners[19], 2_MiB));
  const Shortage shortage = heap->explain(owners[0], {.size = 1_MiB});
  EXPECT_EQ(Shortage::shown_owners, shortage.owner_count);
  EXPECT_EQ(4U, shortage.other_owners);
  EXPECT_EQ(owners[19], shortage.owners[0].id);
  EXPECT_EQ(2_MiB, shortage.owners[2].held);
  EXPECT_EQ(ByteCount(0), shortage.owners[3].held);
}

TEST_F(DeviceHeapTest, AShortageNamesWhoAsksAndTheUserAbove) {
  make({.size = 128_MiB, .native_page = native});
  const auto user = std::make_shared<Account>(
      Account::Options{.name = {AccountName::Level::user, 1000}, .limits = {.bytes = 64_MiB}});
  const OwnerId one =
      heap->add_owner(std::make_shared<Account>(Account::Options{
                          .name = {AccountName::Level::session, 7}, .parent = user}))
          .value();
  static_cast<void>(take(one, 2_MiB));
  // So many hold more that it is not in the list.
  std::vector<OwnerId> others;
  for (std::uint64_t i = 0; i < Shortage::shown_owners; ++i) {
    others.push_back(heap->add_owner(account(64_MiB, 100 + i)).value());
    static_cast<void>(take(others.back(), 4_MiB));
  }
  const Shortage shortage = heap->explain(one, {.size = 2_MiB});
  EXPECT_EQ(1U, shortage.other_owners);
  EXPECT_EQ(one, shortage.asking.id);
  EXPECT_EQ((AccountName{AccountName::Level::session, 7}), shortage.asking.name);
  EXPECT_EQ((AccountName{AccountName::Level::user, 1000}), shortage.asking.above);
  EXPECT_EQ(2_MiB, shortage.asking.held);
  EXPECT_EQ(heap->statistics().free, shortage.free);
  EXPECT_EQ(OwnerId{0}, heap->explain(OwnerId{0}, {.size = 2_MiB}).asking.id);
  const std::string text = heap->explain(others[0], {.size = 2_MiB}).text();
  EXPECT_NE(std::string::npos, text.find("session 100 holds 4194304")) << text;
  EXPECT_EQ(std::string::npos, text.find("session 7")) << text;
}

}  // namespace
}  // namespace accelmm::test
