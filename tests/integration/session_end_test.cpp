// SPDX-License-Identifier: Apache-2.0
//
// The order in which a session ends: stop work, unmap, invalidate, free; and what becomes of memory
// when the device does not let go of it.
#include "support/census.hpp"
#include "support/driver_process.hpp"
#include "support/npu_host.hpp"
#include "support/recording_driver.hpp"
#include "support/session_calls.hpp"
#include "support/temporary_folder.hpp"

#include <accelmm/client.hpp>
#include <accelmm/runtime.hpp>

#include <algorithm>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

namespace accelmm {
namespace {

using test::BusySession;
using test::value;

using Steps = std::vector<test::DriverRecord::Step>;

class SessionEnd : public testing::Test {
 protected:
  // A session of this many memory files: one of a host buffer (mapped for the device, and imported,
  // which makes no other), and one of CPU-visible device memory (not mapped).
  static constexpr std::size_t memfds = 2;

  void host(ComputeSessions sessions) {
    sim::NpuOptions npu = test::DriverProcessOptions{}.npu;
    npu.compute_sessions = sessions;
    auto driver = value(sim::make_npu_driver(npu));
    value(runtime_->register_device(
        sim::npu_description(npu),
        std::make_unique<test::RecordingDriver>(std::move(driver), record_)));
    control_.emplace(value(Client::connect(value(runtime_->connect(0, NodeKind::control)))));
  }
  [[nodiscard]] static std::size_t count_places() { return test::count_maps("/memfd:accelmm"); }
  [[nodiscard]] accelmm_info_usage books() const { return value(control_->usage()); }
  [[nodiscard]] BusySession::Connect connecting() const {
    return [this] { return Client::connect(0, NodeKind::compute, folder_.path()); };
  }

  // Fills a session, and ends it as its application's death does. Returns when it is over.
  void use_and_end_a_session() {
    {
      BusySession session(connecting());
      session.begin();
      session.job = value(session.submit());
      ASSERT_TRUE(session.client->wait(*session.job, test::soon()));
      session.exported.reset();
      session.cpu.reset();
      EXPECT_EQ(memfds, count_places() - kept_places_);
      session.let_go();
      static_cast<void>(record_->take());
    }
    while (books().compute_sessions != 0) std::this_thread::yield();
  }

  test::TemporaryFolder folder_;
  // What holds the memory of a buffer in this process, when its owner has unmapped and closed all,
  // is the place in the window that the device reaches.
  std::shared_ptr<test::DriverRecord> record_ =
      std::make_shared<test::DriverRecord>([](const std::string&) { return count_places(); });
  std::size_t kept_places_ = 0;  // of sessions before
  std::unique_ptr<Runtime> runtime_ = value(Runtime::create(
      {.directory = folder_.path(), .host_window = ByteCount(std::uint64_t{64} << 20)}));
  std::optional<Client> control_;
};

TEST_F(SessionEnd, StopsUnbindsInvalidatesAndThenFrees) {
  host(ComputeSessions::one);
  const auto before = books();
  use_and_end_a_session();
  // Nothing is given back before the device was invalidated, and all before the driver hears that
  // the session is over.
  const Steps in_order{
      {"stop", memfds}, {"unbind", memfds}, {"invalidate for close", memfds}, {"close", 0}};
  EXPECT_EQ(in_order, record_->take());
  const auto after = books();
  EXPECT_EQ(before.memory_used, after.memory_used);
  EXPECT_EQ(before.host_used, after.host_used);
  EXPECT_EQ(before.page_table_bytes, after.page_table_bytes);
}

TEST_F(SessionEnd, KeepsUnmappedMemoryUntilItIsInvalidated) {
  host(ComputeSessions::one);
  BusySession session(connecting());
  session.begin();
  session.cpu.reset();
  session.exported.reset();
  ASSERT_TRUE(session.imported->free());
  static_cast<void>(record_->take());
  ASSERT_TRUE(session.host->free());
  EXPECT_EQ(2U, count_places()) << "the mapping keeps a freed buffer";
  const auto point = session.host_at->unmap();
  ASSERT_TRUE(point);
  EXPECT_TRUE(session.client->wait(*point, test::soon()));
  EXPECT_EQ((Steps{{"invalidate", 2}}), record_->take());
  EXPECT_EQ(1U, count_places());
}

TEST_F(SessionEnd, GivesNobodyTheMemoryOfADeviceThatIsNotInvalidated) {
  for (const std::string refused : {"invalidate for close", "unbind"}) {
    SCOPED_TRACE(refused);
    record_->refuse(refused);
    host(ComputeSessions::one);
    const auto before = books();
    use_and_end_a_session();
    const auto quarantined = books();
    // What was mapped stays: a host buffer, a piece of device memory, and the tables.
    EXPECT_EQ(before.host_used + BusySession::size.value(), quarantined.host_used);
    EXPECT_EQ(before.memory_used + BusySession::size.value(), quarantined.memory_used);
    EXPECT_GT(quarantined.page_table_bytes, before.page_table_bytes);
    EXPECT_EQ(1U, count_places());
    kept_places_ = 1;

    // The next session gets another address space, and not the memory.
    BusySession next(connecting());
    next.begin();
    EXPECT_EQ(2U, value(next.client->session_info()).asid);
    EXPECT_NE(Errc{}, test::code(next.client->allocate(
                          ByteCount(before.memory_total - 2 * BusySession::size.value()),
                          {.domain = Domain::device})));
    next.cpu.reset();
    next.exported.reset();
    next.let_go();
    next.client.reset();
    next.host.reset();

    record_->refuse("");
    control_.reset();
    ASSERT_TRUE(runtime_->remove_device(0));
    // Removal ends with the work; the memory goes with the last connection.
    while (count_places() != 0) std::this_thread::yield();
    kept_places_ = 0;
    EXPECT_EQ("remove", record_->take().back().what);
  }
}

TEST_F(SessionEnd, TellsWhoWaitsThatAnUnmapWasNotInvalidated) {
  record_->refuse("invalidate");
  host(ComputeSessions::one);
  BusySession session(connecting());
  session.begin();
  const auto before = books();
  const auto point = session.host_at->unmap();
  ASSERT_TRUE(point);
  EXPECT_EQ(Errc::io_error, test::code(session.client->wait(*point, test::soon())));
  ASSERT_TRUE(session.imported->free());
  ASSERT_TRUE(session.host->free());
  EXPECT_EQ(before.host_used, books().host_used) << "the buffer is in quarantine";
}

}  // namespace
}  // namespace accelmm
