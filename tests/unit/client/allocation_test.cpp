// SPDX-License-Identifier: Apache-2.0
//
// What the client takes from the heap, and what happens when there is none. The fake driver and its
// channel run outside the count.
#include "support/census.hpp"
#include "unit/client/fake_driver.hpp"
#include "unit/mm/failing_new.hpp"

#include <accelmm/client.hpp>

#include <array>
#include <optional>

#include <gtest/gtest.h>

namespace accelmm {
namespace {

using test::FakeDriver;
using test::heap;
using test::page;

// Calls the fake driver with the count and the failures of the heap stopped.
class UncountedChannel final : public Channel {
 public:
  explicit UncountedChannel(std::shared_ptr<FakeDriver> driver) : driver_(std::move(driver)) {}
  Result<std::size_t> call(std::span<std::byte> request, std::span<const FdView> fds,
                           std::span<std::byte> reply, std::vector<UniqueFd>& reply_fds) override {
    const test::HeapState before = heap;
    heap.fail_after = -1;
    auto result = driver_->call(request, fds, reply, reply_fds);
    heap.calls = before.calls;
    heap.fail_after = before.fail_after;
    return result;
  }

 private:
  std::shared_ptr<FakeDriver> driver_;
};

struct LargeArgs {
  std::array<std::uint64_t, 200> words;
};
constexpr std::uint32_t large_ioctl = ACCELMM_IOWR(0x41, LargeArgs);

class Heap : public testing::Test {
 protected:
  Heap() {
    driver_->keep_log = false;
    driver_->driver = [](test::Reply&, std::span<const FdView>) {};
  }
  [[nodiscard]] std::unique_ptr<Channel> channel() const {
    return std::make_unique<UncountedChannel>(driver_);
  }

  std::shared_ptr<FakeDriver> driver_ = std::make_shared<FakeDriver>();
};

TEST_F(Heap, SmallCallsTakeNothing) {
  const auto client = Client::connect(channel());
  ASSERT_TRUE(client);
  const std::int64_t before = heap.calls;
  for (int i = 0; i < 10; ++i) {
    auto buffer = client->allocate(ByteCount(page));
    ASSERT_TRUE(buffer);
    auto mapping = buffer->map_device();
    ASSERT_TRUE(mapping);
    ASSERT_TRUE(client->wait(mapping->point()));
    ASSERT_TRUE(mapping->unmap());
    ASSERT_TRUE(client->device_info());
    ASSERT_TRUE(buffer->free());
  }
  EXPECT_EQ(before, heap.calls);
}

// Everything that takes from the heap, once.
Result<void> use_everything(std::unique_ptr<Channel> channel) {
  const auto client = Client::connect(std::move(channel));
  if (!client) return fail(client.error());
  const auto buffer = client->allocate(ByteCount(page));
  if (!buffer) return fail(buffer.error());
  const auto mapping = buffer->map_cpu();
  if (!mapping) return fail(mapping.error());
  const auto view = buffer->export_view();
  if (!view) return fail(view.error());
  const auto imported = client->import_view(*view);
  if (!imported) return fail(imported.error());
  const auto events = client->event_fd();
  if (!events) return fail(events.error());
  const auto facts = client->driver_info(0);
  if (!facts) return fail(facts.error());
  LargeArgs args = {};
  std::vector<UniqueFd> fds;
  return client->ioctl(large_ioctl, args, {}, &fds);
}

TEST_F(Heap, EveryAllocationMayFailAndNothingIsLost) {
  driver_->topics[ACCELMM_INFO_DRIVER].assign(8, std::byte{1});
  ASSERT_TRUE(use_everything(channel())) << "also makes what lives as long as the process";
  driver_->buffers.clear();
  driver_->close_events();
  const test::Census before = test::take_census();
  int failures = 0;
  for (std::int64_t k = 0;; ++k) {
    auto link = channel();
    Result<void> done;
    bool happened = false;
    {
      const test::FailingNew failing(k);
      done = use_everything(std::move(link));
      happened = failing.happened();
    }
    if (!happened) {
      EXPECT_TRUE(done);
      break;
    }
    ++failures;
    ASSERT_FALSE(done) << k;
    EXPECT_EQ(Errc::no_memory, done.error().code) << k << ": " << done.error().what;
    driver_->buffers.clear();
    driver_->close_events();
    const test::Census after = test::take_census();
    EXPECT_EQ(before.fds, after.fds) << k;
    EXPECT_EQ(before.memfd_maps, after.memfd_maps) << k;
  }
  std::cerr << failures << " allocations failed, each once\n";
  EXPECT_GE(failures, 6) << "session, mapping, export, events, facts, message";
}

}  // namespace
}  // namespace accelmm
