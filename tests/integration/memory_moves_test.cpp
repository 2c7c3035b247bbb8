// SPDX-License-Identifier: Apache-2.0
//
// Device memory that is short and scattered, in a driver process of its own and over its sockets:
// who is told what, and room that the NPU makes with its engine while sessions use it.
#include "support/driver_process.hpp"
#include "support/npu_host.hpp"
#include "support/temporary_folder.hpp"

#include <accelmm/client.hpp>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <unistd.h>

namespace accelmm {
namespace {

using test::code;
using test::value;

constexpr BufferOptions contiguous{.domain = Domain::device, .layout = Layout::contiguous};
constexpr ByteCount piece = 1_MiB;

class MemoryMoves : public testing::Test {
 protected:
  static test::DriverProcessOptions options() {
    test::DriverProcessOptions options;
    options.npu.compute_sessions = ComputeSessions::many;
    return options;
  }
  [[nodiscard]] Client connect(NodeKind kind = NodeKind::compute) const {
    return value(Client::connect(0, kind, folder_.path()));
  }

  test::TemporaryFolder folder_;
  test::DriverProcess driver_{folder_.path(), options()};  // forked before there are threads
};

/// Buffers of a session, filled and looked at by jobs of the device.
class Filled {
 public:
  explicit Filled(const Client& client)
      : client_(client),
        staging_(value(client.allocate(piece))),
        bytes_(value(staging_.map_cpu())),
        staging_at_(value(staging_.map_device())) {}

  [[nodiscard]] Result<void> add() {
    auto buffer = client_.allocate(piece, contiguous);
    if (!buffer) return fail(buffer.error());
    auto mapping = buffer->map_device();
    if (!mapping) return fail(mapping.error());
    const auto number = static_cast<std::byte>(++last_);
    std::ranges::fill(bytes_.bytes(), number);
    value(test::copy_and_wait(client_, staging_at_.address(), mapping->address(), piece));
    held_.push_back({std::move(*buffer), std::move(*mapping), number});
    return {};
  }
  void free_every_second() {
    for (std::size_t i = 0; i < held_.size(); ++i)
      held_.erase(held_.begin() + static_cast<std::ptrdiff_t>(i));
  }
  void expect_whole() {
    for (const Held& held : held_) {
      std::ranges::fill(bytes_.bytes(), std::byte{0});
      value(test::copy_and_wait(client_, held.mapping.address(), staging_at_.address(), piece));
      EXPECT_TRUE(
          std::ranges::all_of(bytes_.bytes(), [&](std::byte byte) { return byte == held.number; }))
          << "buffer " << std::to_integer<int>(held.number);
    }
  }
  [[nodiscard]] std::size_t size() const { return held_.size(); }

 private:
  struct Held {
    Buffer buffer;
    DeviceMapping mapping;
    std::byte number;
  };
  const Client& client_;
  Buffer staging_;
  CpuMapping bytes_;
  DeviceMapping staging_at_;
  std::vector<Held> held_;
  unsigned last_ = 0;
};

TEST_F(MemoryMoves, AShortageIsExplainedToTheSessionAndToTheOperator) {
  const Client one = connect();
  const Client two = connect();
  const Client control = connect(NodeKind::control);
  const auto facts = value(one.device_info());
  const Buffer most = value(one.allocate(ByteCount(facts.memory_size) - 4_MiB, contiguous));
  const Buffer some = value(two.allocate(2_MiB, contiguous));
  EXPECT_EQ(Errc::no_memory, code(two.allocate(8_MiB, contiguous)));

  const auto own = value(two.shortage());
  EXPECT_EQ((8_MiB).value(), own.size);
  EXPECT_EQ(-ENOMEM, own.failed_status);
  ASSERT_EQ(1U, own.owner_count);
  EXPECT_EQ(two.session(), own.owners[0].session);
  EXPECT_EQ(1U, own.other_owners);
  EXPECT_EQ(0U, value(one.shortage()).failed_session);
  EXPECT_EQ((3_MiB).value(), value(one.shortage(3_MiB)).size);

  const auto all = value(control.shortage());
  EXPECT_EQ(two.session(), all.failed_session);
  ASSERT_EQ(2U, all.owner_count);
  EXPECT_EQ(one.session(), all.owners[0].session);
  EXPECT_EQ(getuid(), all.owners[0].uid);
  const std::string text = value(shortage_text(all));
  EXPECT_EQ(0U, text.find("session " + std::to_string(two.session()) + " of uid " +
                          std::to_string(getuid()) + " got ENOMEM last"))
      << text;
  EXPECT_NE(std::string::npos, text.find("session " + std::to_string(one.session()) + " of uid " +
                                         std::to_string(getuid()) + " holds "))
      << text;
  EXPECT_NE(std::string::npos, text.find("longest free run")) << text;
}

TEST_F(MemoryMoves, AnOperatorHearsThatMemoryGetsShort) {
  const Client control = connect(NodeKind::control);
  const Client client = connect();
  const auto before = value(control.usage());
  EXPECT_EQ(static_cast<__u32>(ACCELMM_PRESSURE_NONE), before.pressure);
  ASSERT_LT(0U, before.pressure_low);
  const Point change = Point::pressure_change(before.pressure_changes + 1);
  EXPECT_EQ(Errc::timed_out, code(control.wait(change, 0)));
  std::optional<Buffer> most;
  std::thread taker([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    most = value(client.allocate(ByteCount(before.memory_free - before.pressure_low + 4096),
                                 {.domain = Domain::device}));
  });
  value(control.wait(change, test::soon()));
  taker.join();
  EXPECT_EQ(static_cast<__u32>(ACCELMM_PRESSURE_LOW), value(control.usage()).pressure);
  static_cast<void>(value(control.event_fd()));
  const Point back = Point::pressure_change(before.pressure_changes + 2);
  value(control.watch(back));
  most.reset();
  value(control.wait(back, test::soon()));
  std::optional<accelmm_event> event;
  while (!event) event = value(control.read_event());
  EXPECT_EQ(back.value, event->point.value);
  EXPECT_EQ(Errc::invalid_argument, code(client.wait(change, 0)));
}

TEST_F(MemoryMoves, RoomIsMadeAndEveryBufferKeepsItsBytes) {
  const Client control = connect(NodeKind::control);
  const Client one = connect();
  const Client two = connect();
  Filled ones(one);
  Filled twos(two);
  while (ones.add() && twos.add()) continue;
  ones.free_every_second();
  twos.free_every_second();
  const std::size_t held = ones.size() + twos.size();
  // Until what was unmapped has been invalidated, and is free.
  const auto deadline = test::soon();
  while (value(control.usage()).memory_used > held * piece.value())
    ASSERT_LT(std::chrono::steady_clock::now(), deadline);
  EXPECT_EQ(Errc::no_memory, code(one.allocate(16_MiB, contiguous)));
  const auto told = value(one.shortage());
  ASSERT_LT(0U, told.moves_to_make);
  EXPECT_GT((16_MiB).value(), told.largest_free);
  EXPECT_LT((16_MiB).value(), told.free);

  const auto made = value(control.defragment(ByteCount(told.moves_to_make), 16_MiB));
  EXPECT_EQ(told.moves_to_make, made.moved);
  EXPECT_LE((16_MiB).value(), made.largest_free);
  // The device had every translation cached.
  ones.expect_whole();
  twos.expect_whole();
  const Buffer run = value(one.allocate(16_MiB, contiguous));
  ones.expect_whole();
  EXPECT_EQ(made.moved, value(control.usage()).moved_bytes_total);
  EXPECT_EQ(Errc::unknown_ioctl, code(one.defragment(1_MiB, 1_MiB)));
}

TEST_F(MemoryMoves, JobsAndMovesAtOnceDisturbNoByte) {
  const Client control = connect(NodeKind::control);
  std::atomic<bool> over = false;
  std::thread operating([&] {
    std::uint64_t size = 1;
    while (!over) {
      size = size % 24 + 1;
      static_cast<void>(
          value(control.defragment(64_MiB, size % 5 == 0 ? ByteCount(0) : ByteCount(size << 20))));
    }
  });
  std::vector<std::thread> applications;
  for (int n = 0; n < 3; ++n)
    applications.emplace_back([&] {
      const Client client = connect();
      Filled buffers(client);
      for (int round = 0; round < 6; ++round) {
        for (int i = 0; i < 6; ++i) static_cast<void>(buffers.add());
        buffers.free_every_second();
        buffers.expect_whole();
      }
    });
  for (std::thread& application : applications) application.join();
  over = true;
  operating.join();
  const auto deadline = test::soon();
  while (value(control.usage()).memory_used > 0)
    ASSERT_LT(std::chrono::steady_clock::now(), deadline);
  RecordProperty("moves", std::to_string(value(control.usage()).moves_total));
}

}  // namespace
}  // namespace accelmm
