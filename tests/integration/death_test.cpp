// SPDX-License-Identifier: Apache-2.0
//
// An application is killed with SIGKILL at every fault-injection point that it, or the driver
// process on its behalf, passes in each of its calls, and at random moments. Whatever it held is
// given back, and the next session of the exclusive device opens at once.
#include "support/driver_process.hpp"
#include "support/killing_point.hpp"
#include "support/npu_host.hpp"
#include "support/session_calls.hpp"
#include "support/temporary_folder.hpp"
#include "support/witness.hpp"

#include <accelmm/client.hpp>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <random>
#include <string>

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/socket.h>

namespace accelmm {
namespace {

using test::ApplicationProcess;
using test::BusySession;
using test::DriverProcess;
using test::KillingPoint;
using test::SessionCall;
using test::value;
using test::Witness;

using Side = KillingPoint::Side;

// No call passes as many points; one that did would never end.
constexpr long too_many_points = 1000;

class Death : public testing::Test {
 protected:
  // Jobs take milliseconds: the engine is at work when their application dies.
  static sim::NpuOptions slow_npu() {
    sim::NpuOptions npu = test::DriverProcessOptions{}.npu;
    npu.model.delay_per_burst = std::chrono::microseconds(100);
    return npu;
  }

  void TearDown() override { EXPECT_TRUE(driver_.end().succeeded()); }

  [[nodiscard]] Result<Client> connect() const {
    return Client::connect(driver_.number(), NodeKind::compute, folder_.path());
  }
  [[nodiscard]] BusySession::Connect connecting() const {
    return [this] { return connect(); };
  }

  // What must hold after each death. The device takes one session at a time.
  void expect_no_trace(const std::string& of) {
    {
      const auto next = connect();
      EXPECT_TRUE(next) << "the next session after " << of << ": " << next.error().what;
    }
    EXPECT_TRUE(witness_.everything_was_given_back()) << "after " << of;
  }

  // All memory of the device in one piece, and all of the host window.
  void expect_whole_regions() {
    const Client client = value(connect());
    const auto facts = value(client.device_info());
    const auto device = client.allocate(ByteCount(facts.memory_size),
                                        {.domain = Domain::device, .layout = Layout::contiguous});
    EXPECT_TRUE(device) << device.error().what;
    const auto host = client.allocate(ByteCount(facts.host_window_size));
    EXPECT_TRUE(host) << host.error().what;
  }

  // Kills an application at the k-th point of one call, for each k. Returns how many there are.
  long kill_at_each_point(Side side, const SessionCall& call, bool connected) {
    for (long number = 1; number < too_many_points; ++number) {
      points_.choose(side, number);
      ApplicationProcess application([&] {
        BusySession session(connecting());
        if (connected) session.begin();
        call.before(session);
        points_.watch(Side::application);
        points_.begin();
        const auto made = call.make(session);
        points_.end();
        test::require(made.has_value(), call.name.c_str());
      });
      const auto ending = application.wait();
      points_.stop();
      const std::string what = call.name + ", point " + std::to_string(number);
      EXPECT_EQ(ending.killed(), points_.killed()) << what;
      EXPECT_TRUE(ending.killed() || ending.succeeded()) << what << ": status " << ending.status;
      expect_no_trace(what);
      if (!points_.killed() || HasFailure()) return number - 1;
    }
    ADD_FAILURE() << call.name << " has no end";
    return too_many_points;
  }

  // Connecting, and an end in order: the two calls that need no session, or leave none.
  [[nodiscard]] SessionCall connect_call() const {
    return {"connect", [](BusySession&) {},
            [](BusySession& s) { return test::keep(s.connect(), s.client); }};
  }
  // Connects anew at once, so that the driver has ended the first session when this returns.
  [[nodiscard]] SessionCall close_and_connect_call() const {
    return {"close and connect", [](BusySession& s) { s.job.emplace(value(s.submit())); },
            [](BusySession& s) {
              s.let_go();
              s.client.reset();
              return test::keep(s.connect(), s.client);
            }};
  }

  void kill_in_each_call(Side side) {
    const char* const whose = side == Side::driver ? "driver process" : "application";
    long total = kill_at_each_point(side, connect_call(), false);
    std::cout << "points of the " << whose << "\n  connect: " << total << "\n";
    EXPECT_GT(total, 0);
    auto calls = test::session_calls();
    calls.push_back(close_and_connect_call());
    for (const SessionCall& call : calls) {
      const long points = kill_at_each_point(side, call, true);
      std::cout << "  " << call.name << ": " << points << "\n";
      EXPECT_GT(points, 0) << call.name;
      total += points;
      if (HasFailure()) return;
    }
    std::cout << "  together: " << total << std::endl;
    expect_whole_regions();
  }

  test::TemporaryFolder folder_;
  KillingPoint points_;
  DriverProcess driver_{folder_.path(), {.npu = slow_npu(), .points = &points_}};
  Witness witness_{driver_, folder_.path()};
};

TEST_F(Death, AtEachPointOfTheApplicationLeavesNothingBehind) {
  kill_in_each_call(Side::application);
}

TEST_F(Death, AtEachPointOfTheDriverLeavesNothingBehind) {
  kill_in_each_call(Side::driver);
}

// close(2) is no injection point: it cannot be refused.
TEST_F(Death, AnEndInOrderPassesNoPointOfTheApplication) {
  const SessionCall close{"close", [](BusySession& s) { s.let_go(); },
                          [](BusySession& s) -> Result<void> {
                            s.client.reset();
                            return {};
                          }};
  EXPECT_EQ(0, kill_at_each_point(Side::application, close, true));
}

// --- random moments ---

constexpr int random_deaths = 200;
// Around the time that an application needs to begin and to go round its loop a few times.
constexpr int longest_life_us = 20'000;
// What malloc's arenas add to a process's areas; a leak of each death would be more.
constexpr std::size_t areas_of_malloc = 64;
// As many as fit into the socket to the test without anyone reading.
constexpr int exports_of_a_life = 16;

std::uint64_t seed() {
  const char* const given = std::getenv("ACCELMM_SEED");
  return given != nullptr ? std::strtoull(given, nullptr, 0) : std::random_device{}();
}

void fill(std::span<std::byte> bytes, std::uint64_t word) {
  for (std::size_t i = 0; i + sizeof word <= bytes.size(); i += sizeof word)
    std::memcpy(bytes.data() + i, &word, sizeof word);
}

// The word that all bytes repeat; 0 if they do not.
std::uint64_t repeated_word(std::span<const std::byte> bytes) {
  std::uint64_t first = 0;
  std::memcpy(&first, bytes.data(), sizeof first);
  for (std::size_t i = 0; i + sizeof first <= bytes.size(); i += sizeof first)
    if (std::memcmp(bytes.data() + i, &first, sizeof first) != 0) return 0;
  return first;
}

// What an application does until it is killed: a bit of everything, with work on the device, and
// exports to whoever listens at `socket`.
[[noreturn]] void live(const BusySession::Connect& connect, FdView socket) {
  BusySession session(connect);
  session.begin();
  for (std::uint64_t round = 1;; ++round) {
    const auto job = value(session.submit());
    auto buffer = value(session.client->allocate(BusySession::size));
    fill(value(buffer.map_cpu()).bytes(), round);
    const auto mapped = value(buffer.map_device());
    const auto view = value(buffer.export_view());
    if (round <= exports_of_a_life) value(send_export(socket, view));
    const auto again = value(session.client->import_view(view));
    const auto point = value(test::submit_copy(*session.client, mapped.address(),
                                               session.device_at->address(), buffer.size()));
    if (round == 1) static_cast<void>(value(session.client->event_fd()));
    value(session.client->watch(job));
    if (round % 2 == 0) value(session.client->wait(point));
  }
}

// Takes what a dead application exported. Returns how many exports there were.
int check_exports(FdView socket) {
  int count = 0;
  while (true) {
    const auto view = receive_export(socket);
    if (!view) return count;
    ++count;
    const auto& piece = view->pieces.front();
    void* const memory = ::mmap(nullptr, piece.length.value(), PROT_READ | PROT_WRITE, MAP_SHARED,
                                piece.fd.get(), static_cast<off_t>(piece.offset));
    if (memory == MAP_FAILED) {
      ADD_FAILURE() << "an export cannot be mapped";
      return count;
    }
    const std::span bytes(static_cast<std::byte*>(memory), piece.length.value());
    EXPECT_EQ(static_cast<std::uint64_t>(count), repeated_word(bytes));
    ::munmap(memory, piece.length.value());
  }
}

TEST_F(Death, AtRandomMomentsLeavesNothingBehindButExports) {
  const std::uint64_t chosen = seed();
  std::cerr << "ACCELMM_SEED=" << chosen << std::endl;
  std::mt19937_64 random(chosen);
  const std::size_t areas = test::count_areas(driver_.pid(), "");
  int exports = 0;
  int without_session = 0;
  for (int death = 0; death < random_deaths && !HasFailure(); ++death) {
    const auto sessions = value(witness_.control().usage()).sessions_total;
    int ends[2];
    ASSERT_EQ(0, ::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends));
    const UniqueFd ours(ends[0]);
    UniqueFd theirs(ends[1]);
    ApplicationProcess application([&] { live(connecting(), theirs.view()); });
    theirs.reset();
    std::this_thread::sleep_for(
        std::chrono::microseconds(std::uniform_int_distribution(0, longest_life_us)(random)));
    application.kill();
    EXPECT_TRUE(application.wait().killed());
    if (value(witness_.control().usage()).sessions_total == sessions) ++without_session;
    expect_no_trace("random death " + std::to_string(death));
    exports += check_exports(ours.view());
  }
  std::cout << random_deaths << " deaths, " << without_session << " of them before the session, "
            << exports << " exports lived on" << std::endl;
  EXPECT_LT(without_session, random_deaths / 2);
  EXPECT_GT(exports, 0);
  EXPECT_LT(test::count_areas(driver_.pid(), ""), areas + areas_of_malloc);
  expect_whole_regions();
}

}  // namespace
}  // namespace accelmm
