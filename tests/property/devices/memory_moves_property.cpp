// SPDX-License-Identifier: Apache-2.0
//
// Sessions that allocate, map, free and end at random while an operator makes room: every buffer
// keeps its own words and is reached at its address by the tables' bytes, whatever moved.
#include "property/mm/steps.hpp"
#include "support/moved_buffers.hpp"

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>

#include <gtest/gtest.h>

namespace accelmm::test {
namespace {

class RandomSessions {
 public:
  RandomSessions()
      : dice_("memory_moves"), host_(description()), control_(host_, NodeKind::control) {
    control_.say_hello();
    host_.driver->on_copy = [this](std::span<const MemoryCopy> copies, Completion done) {
      moved_ += copies.size();
      copies_ = copies;
      done_.emplace(std::move(done));
    };
  }
  ~RandomSessions() {
    end_copy();
    std::fprintf(stderr, "memory_moves: %llu extents moved, %llu copies failed\n",
                 static_cast<unsigned long long>(moved_), static_cast<unsigned long long>(failed_));
  }
  RandomSessions(const RandomSessions&) = delete;
  RandomSessions& operator=(const RandomSessions&) = delete;

  /// Returns whether a move ended in it.
  bool step() {
    const std::size_t which = dice_.roll(sessions_.size());
    auto& session = sessions_[which];
    switch (dice_.roll(16)) {
      case 0:
        // Its end waits for a move of its memory.
        if (dice_.roll(8) == 0) session.reset();
        return false;
      case 1:
      case 2:
        make_room();
        return false;
      case 3:
      case 4:
        return end_copy();
      default:
        break;
    }
    if (done_) return false;  // its calls would wait
    if (!session) session = std::make_unique<MappedBuffers>(host_);
    if (session->buffers.size() < 24 && dice_.roll(5) < 3) {
      static_cast<void>(session->add(size(), dice_.roll(2) == 0 ? ACCELMM_ALLOC_CONTIGUOUS : 0));
    } else if (!session->buffers.empty()) {
      EXPECT_EQ(0, session->remove(dice_.roll(session->buffers.size())));
    }
    return false;
  }
  void check() {
    host_.device().memory()->heap().validate();
    for (const auto& session : sessions_)
      if (session != nullptr) {
        ASSERT_TRUE(session->are_whole());
      }
  }
  [[nodiscard]] std::uint64_t moved() const { return moved_; }

 private:
  static DeviceDescription description() {
    DeviceDescription description = movable_description();
    description.memory =
        DeviceMemoryDescription{.size = 16_MiB, .private_size = 1_MiB, .native_page = 256_KiB};
    return description;
  }
  std::uint64_t size() {
    const std::uint64_t pages[] = {1 + dice_.roll(8), 16, 64, 64 + dice_.roll(200)};
    return pages[dice_.roll(4)] * 4096;
  }
  void make_room() {
    if (done_) return;
    const std::uint64_t run = dice_.roll(3) == 0 ? 0 : (1 + dice_.roll(24)) * (256 << 10);
    const std::int32_t status = defragment(control_, (1 + dice_.roll(16)) << 20, run);
    EXPECT_TRUE(status == 0 || (status == 1 && done_)) << status;
  }
  bool end_copy() {
    if (!done_) return false;
    host_.driver->copy_all(copies_);
    Completion done = std::move(*done_);
    done_.reset();
    if (dice_.roll(8) == 0) {
      ++failed_;
      done(fail(Errc::io_error, "the engine stopped"));
    } else {
      done({});
    }
    host_.transport.drain();
    return true;
  }

  Dice dice_;
  PlainHost host_;
  RawClient control_;
  std::array<std::unique_ptr<MappedBuffers>, 4> sessions_;
  std::span<const MemoryCopy> copies_;
  std::optional<Completion> done_;
  std::uint64_t moved_ = 0;
  std::uint64_t failed_ = 0;
};

TEST(MemoryMovesProperty, BuffersKeepTheirWordsWhateverMoves) {
  RandomSessions sessions;
  const std::uint64_t steps = number_from_environment("ACCELMM_STEPS", 100'000) / 20;
  for (std::uint64_t i = 0; i < steps; ++i) {
    if (sessions.step() || i % 16 == 0) sessions.check();
    if (testing::Test::HasFailure()) return;
  }
  EXPECT_LT(steps / 200, sessions.moved());
}

}  // namespace
}  // namespace accelmm::test
