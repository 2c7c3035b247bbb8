// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "support/census.hpp"
#include "support/driver_process.hpp"
#include "support/npu_host.hpp"
#include "support/recording_driver.hpp"
#include "support/session_calls.hpp"
#include "support/temporary_folder.hpp"
#include "support/witness.hpp"

#include <accelmm/client.hpp>
#include <accelmm/runtime.hpp>

#include <chrono>
#include <functional>
#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <thread>

#include <gtest/gtest.h>

namespace accelmm::test {

/// Something that can be made to fail at its k-th occurrence.
class Trouble {
 public:
  virtual ~Trouble() = default;
  virtual void begin(long number) = 0;
  /// Returns whether it happened.
  virtual bool end() = 0;
};

/// A host of one NPU in this process, and what is expected of calls that meet trouble.
class FailingSession : public testing::Test {
 protected:
  /// `at_step` runs in the runtime's thread, whenever the driver is asked for something.
  explicit FailingSession(DriverRecord::Measure at_step)
      : record_(std::make_shared<DriverRecord>(std::move(at_step))) {
    DriverProcessOptions options;
    auto description = sim::npu_description(options.npu);
    description.compute_sessions = ComputeSessions::many;
    description.session_quota.waits = 1;  // so that a wait that is forgotten is missed
    runtime_ =
        value(Runtime::create({.directory = folder_.path(), .host_window = options.host_window}));
    value(runtime_->register_device(
        std::move(description),
        std::make_unique<RecordingDriver>(value(sim::make_npu_driver(options.npu)), record_)));
    // Not through a socket, so that it works whatever the socket's calls meet.
    control_.emplace(value(Client::connect(value(runtime_->connect(0, NodeKind::control)))));
    use_a_session();
    books_ = books();
    census_ = take_census();
  }

  [[nodiscard]] accelmm_info_usage books() const { return value(control_->usage()); }
  [[nodiscard]] Result<Client> connect_by(Path path) const {
    if (path == Path::socket) return Client::connect(0, NodeKind::compute, folder_.path());
    auto channel = runtime_->connect(0, NodeKind::compute);
    if (!channel) return fail(channel.error());
    return Client::connect(std::move(*channel));
  }
  void wait_for_no_session() const {
    while (books().compute_sessions != 0)
      std::this_thread::sleep_for(std::chrono::microseconds(200));
  }
  /// Without trouble; what was left to be tried again is tried again by this.
  void use_a_session() const {
    {
      BusySession session([this] { return connect_by(Path::socket); });
      session.begin();
    }
    wait_for_no_session();
  }
  [[nodiscard]] testing::AssertionResult nothing_leaks() {
    use_a_session();
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(2);
    while (true) {
      const Census now = take_census();
      if (now.fds == census_.fds && now.memfd_maps == census_.memfd_maps &&
          Witness::same(books(), books_))
        return testing::AssertionSuccess();
      if (std::chrono::steady_clock::now() > deadline)
        return testing::AssertionFailure() << now << ", " << Witness::text(books()) << "; before "
                                           << census_ << ", " << Witness::text(books_);
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }

  /// Makes one call meet trouble at its k-th point, for each k. Returns how many there are.
  long fail_at_each_point(const SessionCall& call, Path path, Trouble& trouble) {
    for (long number = 1;; ++number) {
      SCOPED_TRACE(call.name + ", point " + std::to_string(number));
      bool happened = false;
      {
        BusySession session([this, path] { return connect_by(path); });
        session.begin();
        call.before(session);
        const auto before = books();
        trouble.begin(number);
        const auto made = call.make(session);
        happened = trouble.end();
        expect_clean(call, session, before, made);
      }
      wait_for_no_session();
      EXPECT_TRUE(Witness::same(books_, books())) << Witness::text(books());
      if (!happened || HasFailure()) {
        EXPECT_TRUE(nothing_leaks());
        return number - 1;
      }
    }
  }
  /// The same for beginning a session.
  long fail_connect_at_each_point(Path path, Trouble& trouble) {
    for (long number = 1;; ++number) {
      SCOPED_TRACE("connect, point " + std::to_string(number));
      trouble.begin(number);
      auto connected = connect_by(path);
      const bool happened = trouble.end();
      EXPECT_TRUE(happened || connected);
      EXPECT_TRUE(connect_by(path)) << "the next one succeeds";
      connected = fail(Errc::canceled, "over");
      wait_for_no_session();
      if (!happened || HasFailure()) {
        EXPECT_TRUE(nothing_leaks());
        return number - 1;
      }
    }
  }
  /// The same for what the driver does when a session ends.
  long fail_close_at_each_point(Path path, Trouble& trouble) {
    for (long number = 1;; ++number) {
      SCOPED_TRACE("close, point " + std::to_string(number));
      BusySession session([this, path] { return connect_by(path); });
      session.begin();
      session.job = value(session.submit());
      session.let_go();
      session.exported.reset();
      session.cpu.reset();
      trouble.begin(number);
      for (auto* buffer : {&session.host, &session.device, &session.visible, &session.imported})
        buffer->reset();
      session.client.reset();
      wait_for_no_session();
      const bool happened = trouble.end();
      EXPECT_TRUE(Witness::same(books_, books())) << Witness::text(books());
      if (!happened || HasFailure()) {
        EXPECT_TRUE(nothing_leaks());
        return number - 1;
      }
    }
  }

  /// All memory of the device in one piece, and all of the host window.
  void expect_whole_regions() const {
    const Client client = value(connect_by(Path::socket));
    const auto facts = value(client.device_info());
    EXPECT_TRUE(client.allocate(ByteCount(facts.memory_size),
                                {.domain = Domain::device, .layout = Layout::contiguous}));
    EXPECT_TRUE(client.allocate(ByteCount(facts.host_window_size)));
  }

 private:
  // A call that met trouble has happened; or it has not, and can be made again; or it has cost the
  // session, which is then over for good.
  void expect_clean(const SessionCall& call, BusySession& session, const accelmm_info_usage& before,
                    const Result<void>& made) {
    if (made) return;
    if (made.error().code == Errc::no_device) {
      EXPECT_EQ(Errc::no_device, code(session.client->usage()));
      return;
    }
    const auto after = books();
    EXPECT_TRUE(Witness::same(before, after))
        << Witness::text(after) << "; before " << Witness::text(before);
    const auto again = call.make(session);
    EXPECT_TRUE(again) << again.error().what << ", after " << made.error().what;
  }

  TemporaryFolder folder_;
  std::shared_ptr<DriverRecord> record_;
  std::unique_ptr<Runtime> runtime_;
  std::optional<Client> control_;
  accelmm_info_usage books_{};
  Census census_;
};

}  // namespace accelmm::test
