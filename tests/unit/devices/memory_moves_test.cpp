// SPDX-License-Identifier: Apache-2.0
//
// Moves of device memory: what moves, what stays, and what anyone notices of it.
#include "support/moved_buffers.hpp"

#include <cerrno>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

namespace accelmm::test {
namespace {

class MemoryMoves : public testing::Test {
 protected:
  explicit MemoryMoves(DeviceDescription description = movable_description())
      : host(std::move(description)), control(host, NodeKind::control) {
    control.say_hello();
  }
  // All of it in pieces of a native page, every second one free.
  void fragment(MappedBuffers& session) {
    for (int i = 0; i < 15; ++i) ASSERT_EQ(0, session.add(unit, ACCELMM_ALLOC_CONTIGUOUS));
    session.remove_every_second();
    ASSERT_EQ(7U, session.buffers.size());
  }
  [[nodiscard]] const DeviceHeap& heap() { return host.device().memory()->heap(); }
  [[nodiscard]] std::uint64_t longest_run() {
    accelmm_shortage told{};
    EXPECT_EQ(0, control.ioctl(ACCELMM_IOCTL_SHORTAGE, told));
    return told.largest_free;
  }
  // Lets copies wait until the test ends them.
  void hold_copies() {
    host.driver->on_copy = [this](std::span<const MemoryCopy> copies, Completion done) {
      host.driver->copy_all(copies);
      copy.emplace(std::move(done));
    };
  }
  void end_copy(Result<void> result = {}) {
    (*std::exchange(copy, std::nullopt))(result);
    host.transport.drain();
  }
  void expect_all_free() {
    heap().validate();
    EXPECT_EQ(ByteCount(0), host.device().memory()->used());
    EXPECT_EQ(ByteCount(0), heap().statistics().moving);
  }

  PlainHost host;
  RawClient control;
  std::optional<Completion> copy;
};

TEST_F(MemoryMoves, ALongRunComesToBeAndBuffersKeepTheirBytesAndAddresses) {
  MappedBuffers session(host);
  fragment(session);
  ASSERT_EQ(-ENOMEM, session.add(4 * unit, ACCELMM_ALLOC_CONTIGUOUS));
  EXPECT_EQ(unit, longest_run());
  accelmm_defragment made{};
  ASSERT_EQ(0, defragment(control, 2 * unit, 4 * unit, &made));
  EXPECT_EQ(2U, made.moves);
  EXPECT_EQ(2 * unit, made.moved);
  EXPECT_EQ(8 * unit, made.free);
  EXPECT_LE(4 * unit, made.largest_free);
  EXPECT_EQ(made.largest_free, longest_run());
  EXPECT_EQ(2U, host.driver->copied.size());
  EXPECT_TRUE(session.are_whole());
  heap().validate();
  // Which is given out as any other, and reads zero (as add() looks).
  ASSERT_EQ(0, session.add(4 * unit, ACCELMM_ALLOC_CONTIGUOUS));
  EXPECT_TRUE(session.are_whole());
  while (!session.buffers.empty()) ASSERT_EQ(0, session.remove(0));
  expect_all_free();
  accelmm_info info{};
  info.topic = ACCELMM_INFO_USAGE;
  ASSERT_EQ(0, control.ioctl(ACCELMM_IOCTL_INFO, info));
  accelmm_info_usage usage{};
  std::memcpy(&usage, info.data, sizeof usage);
  EXPECT_EQ(2U, usage.moves_total);
  EXPECT_EQ(2 * unit, usage.moved_bytes_total);
  EXPECT_EQ(0U, usage.page_table_bytes % 4096);
}

TEST_F(MemoryMoves, NothingMovesBeyondTheBudgetOrWithoutNeed) {
  MappedBuffers session(host);
  fragment(session);
  accelmm_defragment made{};
  ASSERT_EQ(0, defragment(control, 2 * unit - 1, 4 * unit, &made));
  EXPECT_EQ(0U, made.moves);
  EXPECT_EQ(unit, made.largest_free);
  ASSERT_EQ(0, defragment(control, 15 * unit, unit, &made));
  EXPECT_EQ(0U, made.moves);
  ASSERT_EQ(0, defragment(control, 15 * unit, 9 * unit, &made));  // more than is free
  EXPECT_EQ(0U, made.moves);
  EXPECT_TRUE(host.driver->copied.empty());
  EXPECT_TRUE(session.are_whole());
}

TEST_F(MemoryMoves, PagesThatSmallBuffersShareBecomeEmpty) {
  MappedBuffers session(host);
  constexpr std::uint64_t small = 64 << 10;
  for (int i = 0; i < 48; ++i) ASSERT_EQ(0, session.add(small));
  // A quarter of each of three native pages stays.
  for (std::size_t i = 0; i < session.buffers.size(); ++i)
    for (int n = 0; n < 3; ++n) ASSERT_EQ(0, session.remove(i));
  ASSERT_EQ(12U, session.buffers.size());
  ASSERT_EQ(ByteCount(3 * unit), host.device().memory()->used());
  accelmm_defragment made{};
  ASSERT_EQ(0, defragment(control, 15 * unit, 0, &made));
  EXPECT_LT(0U, made.moves);
  EXPECT_GT(ByteCount(3 * unit), host.device().memory()->used());
  EXPECT_EQ(15 * unit - host.device().memory()->used().value(), made.free);
  EXPECT_TRUE(session.are_whole());
  while (!session.buffers.empty()) ASSERT_EQ(0, session.remove(0));
  heap().validate();
}

TEST_F(MemoryMoves, EverySecondMappingOfABufferFollowsIt) {
  MappedBuffers session(host);
  fragment(session);
  // The second half of each buffer once more, read-only.
  std::vector<MappedBuffers::Buffer> again;
  for (const auto& buffer : session.buffers) {
    accelmm_map_device map{};
    map.handle = buffer.handle;
    map.offset = unit / 2;
    map.length = unit / 2;
    map.access = ACCELMM_ACCESS_READ;
    ASSERT_EQ(0, session.client.ioctl(ACCELMM_IOCTL_MAP_DEVICE, map));
    again.push_back({buffer.handle, map.address, unit / 2, buffer.word + unit / 2});
  }
  ASSERT_EQ(0, defragment(control, 15 * unit, 8 * unit));
  EXPECT_LE(2U, host.driver->copied.size());
  EXPECT_TRUE(session.are_whole());
  session.buffers = again;
  EXPECT_TRUE(session.are_whole());
}

TEST_F(MemoryMoves, MemoryOfASessionWithAJobUnderWayStays) {
  MappedBuffers session(host);
  fragment(session);
  plain_job job{};
  job.value = 1;  // which does not end by itself
  ASSERT_EQ(0, session.client.ioctl(PLAIN_IOCTL_JOB, job));
  accelmm_defragment made{};
  ASSERT_EQ(0, defragment(control, 15 * unit, 4 * unit, &made));
  EXPECT_EQ(0U, made.moves);
  job.value = 2;
  ASSERT_EQ(0, session.client.ioctl(PLAIN_IOCTL_JOB, job));
  ASSERT_EQ(0, defragment(control, 15 * unit, 4 * unit, &made));
  EXPECT_EQ(2U, made.moves);
}

TEST_F(MemoryMoves, MemoryOfASessionWithACallUnderWayStays) {
  MappedBuffers session(host);
  fragment(session);
  plain_job later{};
  ASSERT_EQ(1, session.client.ioctl(PLAIN_IOCTL_LATER, later));  // no answer yet
  accelmm_defragment made{};
  ASSERT_EQ(0, defragment(control, 15 * unit, 4 * unit, &made));
  EXPECT_EQ(0U, made.moves);
  host.driver->end_later();
  host.transport.drain();
  ASSERT_EQ(0, defragment(control, 15 * unit, 4 * unit, &made));
  EXPECT_EQ(2U, made.moves);
}

TEST_F(MemoryMoves, MemoryThatACpuMaySeeStays) {
  MappedBuffers session(host);
  for (int i = 0; i < 15; ++i)
    ASSERT_EQ(0, session.add(unit, ACCELMM_ALLOC_CONTIGUOUS | ACCELMM_ALLOC_CPU_VISIBLE));
  session.remove_every_second();
  accelmm_defragment made{};
  ASSERT_EQ(0, defragment(control, 15 * unit, 4 * unit, &made));
  EXPECT_EQ(0U, made.moves);
  EXPECT_TRUE(session.are_whole());
}

TEST_F(MemoryMoves, OneSessionIsMovedWhileAnotherStays) {
  MappedBuffers one(host);
  MappedBuffers two(host);
  for (int i = 0; i < 7; ++i) {
    ASSERT_EQ(0, one.add(unit, ACCELMM_ALLOC_CONTIGUOUS));
    ASSERT_EQ(0, two.add(unit, ACCELMM_ALLOC_CONTIGUOUS));
  }
  for (int i = 0; i < 3; ++i) ASSERT_EQ(0, two.remove(static_cast<std::size_t>(i)));
  plain_job job{};
  job.value = 1;
  ASSERT_EQ(0, two.client.ioctl(PLAIN_IOCTL_JOB, job));
  std::vector<std::uint64_t> before;
  for (const auto& buffer : two.buffers) before.push_back(two.translate(buffer.address).value());
  accelmm_defragment made{};
  ASSERT_EQ(0, defragment(control, 15 * unit, 3 * unit, &made));
  EXPECT_LT(0U, made.moves);
  EXPECT_TRUE(one.are_whole());
  EXPECT_TRUE(two.are_whole());
  for (std::size_t i = 0; i < before.size(); ++i)
    EXPECT_EQ(before[i], two.translate(two.buffers[i].address).value());
}

TEST_F(MemoryMoves, CallsOfTheSessionWaitUntilItsMemoryHasMoved) {
  MappedBuffers session(host);
  MappedBuffers other(host);
  fragment(session);
  hold_copies();
  ASSERT_EQ(1, defragment(control, 15 * unit, 4 * unit));  // under way
  ASSERT_TRUE(copy);
  EXPECT_EQ(ByteCount(2 * unit), heap().statistics().moving);
  // Neither freed, nor mapped, nor used by a job; others, and the control node, go on.
  accelmm_free args{session.buffers[0].handle};
  EXPECT_EQ(1, session.client.ioctl(ACCELMM_IOCTL_FREE, args));
  EXPECT_EQ(0, other.add(unit));
  EXPECT_EQ(2 * unit, [&] {
    accelmm_shortage told{};
    EXPECT_EQ(0, control.ioctl(ACCELMM_IOCTL_SHORTAGE, told));
    return told.moving;
  }());
  EXPECT_EQ(-EBUSY, defragment(control, 15 * unit, 4 * unit));
  control.log().sent.clear();
  session.client.log().sent.clear();
  end_copy();
  ASSERT_EQ(1U, session.client.log().sent.size());
  EXPECT_EQ(0, session.client.log().sent.back().header.status);
  ASSERT_EQ(1U, control.log().sent.size());
  EXPECT_EQ(0, control.log().sent.back().header.status);
  EXPECT_TRUE(session.are_whole());
  EXPECT_TRUE(other.are_whole());
  heap().validate();
}

TEST_F(MemoryMoves, TheOldPlacesAreTakenUntilTheDeviceWasInvalidated) {
  MappedBuffers session(host);
  fragment(session);
  std::optional<Completion> invalidated;
  host.driver->on_invalidate = [&](Completion done) { invalidated.emplace(std::move(done)); };
  ASSERT_EQ(1, defragment(control, 15 * unit, 4 * unit));
  ASSERT_TRUE(invalidated);
  EXPECT_EQ(ByteCount(2 * unit), heap().statistics().moving);
  EXPECT_GT(4 * unit, longest_run());
  // The tables lead to the new places already, and the bytes of the old are still there.
  EXPECT_TRUE(session.are_whole());
  for (const MemoryCopy& made : host.driver->copied) {
    std::uint64_t word = 0;
    ASSERT_TRUE(
        host.driver->device->bus().read(made.from, std::as_writable_bytes(std::span(&word, 1))));
    EXPECT_NE(0U, word);
  }
  (*std::exchange(invalidated, std::nullopt))({});
  host.transport.drain();
  EXPECT_LE(4 * unit, longest_run());
  EXPECT_EQ(ByteCount(0), heap().statistics().moving);
  for (const MemoryCopy& made : host.driver->copied) {
    std::uint64_t word = 0;
    ASSERT_TRUE(
        host.driver->device->bus().read(made.from, std::as_writable_bytes(std::span(&word, 1))));
    EXPECT_EQ(0U, word) << "free memory keeps what it held";
  }
}

TEST_F(MemoryMoves, ACopyThatFailedLeavesEverythingWhereItWas) {
  MappedBuffers session(host);
  fragment(session);
  std::vector<std::optional<std::uint64_t>> before;
  for (const auto& buffer : session.buffers) before.push_back(session.translate(buffer.address));
  for (const bool dropped : {false, true}) {
    hold_copies();
    ASSERT_EQ(1, defragment(control, 15 * unit, 4 * unit));
    control.log().sent.clear();
    if (dropped) {
      copy.reset();
      host.transport.drain();
    } else {
      end_copy(fail(Errc::io_error, "the engine stopped"));
    }
    ASSERT_EQ(1U, control.log().sent.size());
    EXPECT_EQ(dropped ? -ECANCELED : -EIO, control.log().sent.back().header.status);
    heap().validate();
    EXPECT_EQ(ByteCount(0), heap().statistics().moving);
    for (std::size_t i = 0; i < before.size(); ++i)
      EXPECT_EQ(before[i], session.translate(session.buffers[i].address));
    EXPECT_TRUE(session.are_whole());
    EXPECT_EQ(unit, longest_run());
  }
  // And it can be tried again; what was half made is not left in the new places.
  host.driver->on_copy = nullptr;
  EXPECT_EQ(0, session.add(unit));
  ASSERT_EQ(0, defragment(control, 15 * unit, 4 * unit));
  EXPECT_TRUE(session.are_whole());
}

TEST_F(MemoryMoves, WhatCouldNotBeInvalidatedIsGivenToNobodyUntilTheDeviceIsDown) {
  std::optional<MappedBuffers> session(std::in_place, host);
  fragment(*session);
  host.driver->on_invalidate = [](Completion done) {
    done(fail(Errc::io_error, "the device does not answer"));
  };
  ASSERT_EQ(-EIO, defragment(control, 15 * unit, 4 * unit));
  EXPECT_EQ(ByteCount(2 * unit), heap().statistics().moving);
  EXPECT_TRUE(session->are_whole());
  heap().validate();
  // Nor is it moved again, by whatever is asked.
  host.driver->on_invalidate = nullptr;
  accelmm_defragment made{};
  ASSERT_EQ(0, defragment(control, 15 * unit, 8 * unit, &made));
  EXPECT_EQ(0U, made.moves);
  session.reset();
  EXPECT_EQ(ByteCount(2 * unit), heap().statistics().moving);
  EXPECT_EQ(ByteCount(2 * unit), host.device().memory()->used());
  heap().validate();
  MappedBuffers next(host);
  int had = 0;
  while (next.add(unit) == 0) ++had;
  EXPECT_EQ(15 - 4, had);
  EXPECT_TRUE(next.are_whole());
}

TEST_F(MemoryMoves, ASessionThatEndsMeanwhileEndsAfterIt) {
  std::optional<MappedBuffers> session(std::in_place, host);
  fragment(*session);
  hold_copies();
  ASSERT_EQ(1, defragment(control, 15 * unit, 4 * unit));
  session.reset();
  EXPECT_EQ(ByteCount(7 * unit), host.device().memory()->used());
  end_copy();
  expect_all_free();
}

TEST_F(MemoryMoves, AnOperatorWhoLeavesMeanwhileChangesNothing) {
  MappedBuffers session(host);
  fragment(session);
  hold_copies();
  {
    RawClient other(host, NodeKind::control);
    other.say_hello();
    ASSERT_EQ(1, defragment(other, 15 * unit, 4 * unit));
  }
  end_copy();
  EXPECT_TRUE(session.are_whole());
  EXPECT_LE(4 * unit, longest_run());
}

TEST_F(MemoryMoves, ADeviceThatIsRemovedMeanwhileGoesAfterIt) {
  std::optional<MappedBuffers> session(std::in_place, host);
  fragment(*session);
  hold_copies();
  ASSERT_EQ(1, defragment(control, 15 * unit, 4 * unit));
  host.host->remove_device(0, Completion([](Result<void>) {}));
  host.transport.drain();
  session.reset();
  end_copy();
  EXPECT_EQ(nullptr, host.host->find(0));
}

TEST_F(MemoryMoves, ADriverMakesRoomByItself) {
  MappedBuffers session(host);
  fragment(session);
  std::optional<Result<Defragmented>> outcome;
  host.driver->device->defragment({.budget = ByteCount(15 * unit), .run = ByteCount(4 * unit)},
                                  [&](Result<Defragmented> made) { outcome = made; });
  EXPECT_FALSE(outcome);  // it may be in the middle of something
  host.transport.drain();
  ASSERT_TRUE(outcome && *outcome);
  EXPECT_EQ(2U, (*outcome)->moves);
  EXPECT_EQ(ByteCount(2 * unit), (*outcome)->bytes);
  EXPECT_TRUE(session.are_whole());
}

TEST_F(MemoryMoves, OnlyOperatorsMayMove) {
  MappedBuffers session(host);
  fragment(session);
  Peer stranger = own_peer();
  stranger.uid += 1;
  RawClient other(host, NodeKind::control, stranger);
  other.say_hello();
  EXPECT_EQ(-EPERM, defragment(other, 15 * unit, 4 * unit));
  EXPECT_EQ(-ENOTTY, defragment(session.client, 15 * unit, 4 * unit));
  EXPECT_EQ(-EINVAL, defragment(control, 0, 4 * unit));
  host.driver->has_engine = false;
  EXPECT_EQ(-EOPNOTSUPP, defragment(control, 15 * unit, 4 * unit));
  EXPECT_TRUE(host.driver->copied.empty());
}

TEST_F(MemoryMoves, TheOwnerOfTheNodesMayMove) {
  DeviceDescription description = movable_description();
  description.permissions.uid = own_peer().uid + 1;
  PlainHost owned(description);
  Peer owner = own_peer();
  owner.uid += 1;
  RawClient operating(owned, NodeKind::control, owner);
  operating.say_hello();
  EXPECT_EQ(0, defragment(operating, unit, unit));
}

TEST_F(MemoryMoves, WithoutPageTablesForTheNewPlacesNothingMoves) {
  MappedBuffers session(host);
  fragment(session);
  // Far apart, so that each mapping takes tables of its own, until there are none.
  accelmm_map_device map{};
  map.handle = session.buffers[0].handle;
  map.length = 4096;
  map.access = ACCELMM_ACCESS_READ;
  map.placement = ACCELMM_PLACE_FIXED;
  std::int32_t status = 0;
  for (std::uint64_t i = 1; status == 0 && i < 1000; ++i) {
    map.address = i << 30;
    status = session.client.ioctl(ACCELMM_IOCTL_MAP_DEVICE, map);
  }
  ASSERT_EQ(-ENOMEM, status);
  EXPECT_EQ(-ENOMEM, defragment(control, 15 * unit, 4 * unit));
  EXPECT_TRUE(host.driver->copied.empty());
  EXPECT_TRUE(session.are_whole());
  EXPECT_EQ(ByteCount(0), heap().statistics().moving);
  EXPECT_EQ(unit, longest_run());
  heap().validate();
  EXPECT_EQ(0, session.remove(0));  // and the session goes on
}

}  // namespace
}  // namespace accelmm::test
