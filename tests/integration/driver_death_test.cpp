// SPDX-License-Identifier: Apache-2.0
//
// A driver process is killed with SIGKILL while calls and waits of an application are pending.
#include "support/driver_process.hpp"
#include "support/npu_host.hpp"
#include "support/session_calls.hpp"
#include "support/temporary_folder.hpp"

#include <accelmm/client.hpp>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <future>
#include <thread>
#include <vector>

#include <gtest/gtest.h>
#include <poll.h>

namespace accelmm {
namespace {

using test::BusySession;
using test::code;
using test::DriverProcess;
using test::value;

// A call that is not over by then hangs.
constexpr std::chrono::seconds prompt{10};

class DriverDeath : public testing::Test {
 protected:
  // A burst that takes so long that no job ends during a test.
  static sim::NpuOptions stuck_npu() {
    sim::NpuOptions npu = test::DriverProcessOptions{}.npu;
    npu.model.delay_per_burst = std::chrono::hours(1);
    return npu;
  }
  [[nodiscard]] BusySession::Connect connecting_to(std::uint32_t number) const {
    return [this, number] { return Client::connect(number, NodeKind::compute, folder_.path()); };
  }

  test::TemporaryFolder folder_;
};

// The outcome of a thread's call, or a failure of the test if it hangs.
template <class T>
T outcome_of(std::future<T>& call) {
  if (call.wait_for(prompt) != std::future_status::ready) {
    ADD_FAILURE() << "a call hangs";
    std::abort();  // its thread cannot be ended
  }
  return call.get();
}

// Calls until a call fails, and counts.
Errc call_until_failure(const std::function<Result<void>()>& call, std::atomic<int>& calls) {
  while (true) {
    const auto made = call();
    if (!made) return made.error().code;
    ++calls;
  }
}

void expect_no_device_from_every_call(BusySession& session) {
  for (const auto& call : test::session_calls()) {
    if (call.name == "events") continue;  // the client's own descriptor, which has hung up
    EXPECT_EQ(Errc::no_device, code(call.make(session))) << call.name;
  }
  const Client& client = *session.client;
  EXPECT_EQ(Errc::no_device, code(client.usage()));
  EXPECT_EQ(Errc::no_device, code(client.session_info()));
  EXPECT_EQ(Errc::no_device, code(client.last_fault()));
  EXPECT_EQ(Errc::no_device, code(client.driver_info(0)));
  EXPECT_EQ(Errc::no_device, code(session.host->free()));
  EXPECT_EQ(Errc::no_device, code(session.host_at->unmap()));
}

TEST_F(DriverDeath, EndsEveryPendingCallAndWait) {
  DriverProcess driver(folder_.path(), {.npu = stuck_npu()});
  BusySession session(connecting_to(driver.number()));
  session.begin();
  session.job = value(session.submit());
  const Client& client = *session.client;
  const FdView events = value(client.event_fd());
  ASSERT_TRUE(client.watch(*session.job));
  std::ranges::fill(session.cpu->bytes(), std::byte{0x5a});

  std::vector<std::future<Errc>> calls;
  const auto start = [&calls](auto call) {
    calls.push_back(std::async(std::launch::async, std::move(call)));
  };
  constexpr int waits = 4;
  for (int i = 0; i < waits; ++i) start([&] { return code(client.wait(*session.job)); });
  std::atomic<int> made{0};
  start([&] {
    return call_until_failure(
        [&]() -> Result<void> {
          if (const auto usage = client.usage(); !usage) return fail(usage.error());
          return {};
        },
        made);
  });
  start([&] {
    return call_until_failure(
        [&]() -> Result<void> {
          auto buffer = client.allocate(BusySession::size);
          if (!buffer) return fail(buffer.error());
          const auto mapped = buffer->map_cpu();
          if (!mapped) return fail(mapped.error());
          return {};
        },
        made);
  });
  auto poller = std::async(std::launch::async, [&] {
    pollfd entry{.fd = events.get(), .events = POLLIN, .revents = 0};
    return ::poll(&entry, 1, -1) == 1 ? static_cast<int>(entry.revents) : 0;
  });
  // The calls go on beside the waits: they are all under way when the driver dies.
  constexpr int enough = 50;
  while (made.load() < enough) std::this_thread::yield();
  EXPECT_TRUE(driver.kill().killed());

  for (auto& call : calls) EXPECT_EQ(Errc::no_device, outcome_of(call));
  EXPECT_NE(0, outcome_of(poller) & POLLHUP);
  const auto event = client.read_event();
  EXPECT_TRUE(!event && event.error().code == Errc::no_device);
  expect_no_device_from_every_call(session);
  EXPECT_TRUE(std::ranges::all_of(session.cpu->bytes(),
                                  [](std::byte byte) { return byte == std::byte{0x5a}; }));
}

TEST_F(DriverDeath, LeavesItsNumberToTheNextDriver) {
  DriverProcess first(folder_.path());
  EXPECT_EQ(0U, first.number());
  BusySession session(connecting_to(0));
  session.begin();
  EXPECT_TRUE(first.kill().killed());
  EXPECT_TRUE(std::filesystem::exists(node_path(folder_.path(), 0, NodeKind::compute)));
  EXPECT_EQ(Errc::no_device, code(connecting_to(0)()));

  DriverProcess second(folder_.path());
  EXPECT_EQ(0U, second.number());
  // The old session stays lost; the application begins a new one.
  EXPECT_EQ(Errc::no_device, code(session.client->usage()));
  EXPECT_EQ(Errc::no_device, code(session.client->event_fd()));
  BusySession anew(connecting_to(0));
  anew.begin();
  EXPECT_TRUE(anew.client->wait(value(anew.submit()), test::soon()));
}

TEST_F(DriverDeath, LeavesOtherDriversAlone) {
  DriverProcess first(folder_.path());
  DriverProcess second(folder_.path());
  EXPECT_EQ(0U, first.number());
  EXPECT_EQ(1U, second.number());
  const Client client = value(connecting_to(1)());
  EXPECT_TRUE(first.kill().killed());
  EXPECT_TRUE(client.usage());
  DriverProcess third(folder_.path());
  EXPECT_EQ(0U, third.number());
  EXPECT_TRUE(client.usage());
  EXPECT_TRUE(connecting_to(0)());
}

}  // namespace
}  // namespace accelmm
