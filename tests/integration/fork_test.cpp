// SPDX-License-Identifier: Apache-2.0
//
// An application forks: the session stays its own.
#include "support/driver_process.hpp"
#include "support/npu_host.hpp"
#include "support/session_calls.hpp"
#include "support/temporary_folder.hpp"
#include "support/witness.hpp"

#include <accelmm/client.hpp>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <set>
#include <string>
#include <thread>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <spawn.h>
#include <sys/syscall.h>

namespace accelmm {
namespace {

using test::ApplicationProcess;
using test::BusySession;
using test::code;
using test::DriverProcess;
using test::require;
using test::value;
using test::Witness;

// A child that a failing test leaves behind ends by itself.
constexpr unsigned longest_child_life_s = 100;

// Targets of the calling process's descriptors that are sockets.
std::multiset<std::string> own_sockets() {
  std::multiset<std::string> sockets;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    std::error_code closed;
    const std::string target = std::filesystem::read_symlink(entry.path(), closed);
    if (!closed && target.starts_with("socket:")) sockets.insert(target);
  }
  return sockets;
}

// In a child: nothing of the parent's session can be used.
void require_no_session(BusySession& session) {
  for (const auto& call : test::session_calls())
    require(code(call.make(session)) == Errc::no_device, call.name.c_str());
  require(code(session.client->event_fd()) == Errc::no_device, "event_fd() is refused");
  require(code(session.client->read_event()) == Errc::no_device, "read_event() is refused");
  require(code(session.host->free()) == Errc::no_device, "free() is refused");
}

class ForkedApplication : public testing::Test {
 protected:
  void TearDown() override { EXPECT_TRUE(driver_.end().succeeded()); }

  [[nodiscard]] BusySession::Connect connecting() const {
    return [this] { return Client::connect(0, NodeKind::compute, folder_.path()); };
  }
  // Runs an application that says when `body`, which it is given, has made it ready, and is then
  // killed.
  template <class Body>
  void kill_application_after(Body body) {
    int ready[2];
    ASSERT_EQ(0, ::pipe2(ready, O_CLOEXEC));
    ApplicationProcess application([&] {
      BusySession session(connecting());
      session.begin();
      static_cast<void>(value(session.client->event_fd()));
      session.job = value(session.submit());
      body(session);
      require(::write(ready[1], "", 1) == 1, "the test listens");
      ::pause();
    });
    ::close(ready[1]);
    char byte = 1;
    EXPECT_EQ(1, ::read(ready[0], &byte, 1));
    ::close(ready[0]);
    EXPECT_EQ(1U, value(witness_.control().usage()).compute_sessions);
    application.kill();
    EXPECT_TRUE(application.wait().killed());
  }

  test::TemporaryFolder folder_;
  DriverProcess driver_{folder_.path()};
  Witness witness_{driver_, folder_.path()};
};

TEST_F(ForkedApplication, KeepsItsSessionFromTheChild) {
  const auto before = own_sockets();
  BusySession session(connecting());
  session.begin();
  static_cast<void>(value(session.client->event_fd()));
  std::ranges::fill(session.cpu->bytes(), std::byte{0x77});
  EXPECT_EQ(before.size() + 2, own_sockets().size());  // the connection and the events

  ApplicationProcess child([&] {
    const auto sockets = own_sockets();
    // The control connection of the witness is a session too: what is left was no session's.
    require(sockets.size() + 1 == before.size(), "the child has none of the session's sockets");
    require(test::count_areas(::getpid(), "/memfd:accelmm") == 0, "the child maps no buffer");
    require_no_session(session);
    session.let_go();
    session.client.reset();
    require(own_sockets() == sockets, "ending the child's copy closes nothing of the child's");
  });
  EXPECT_TRUE(child.wait().succeeded());

  for (const auto& call : test::session_calls()) {
    call.before(session);
    EXPECT_TRUE(call.make(session)) << call.name;
  }
  EXPECT_EQ(std::byte{0x77}, session.cpu->bytes().front());
}

TEST_F(ForkedApplication, CanBeginASessionOfItsOwnInTheChild) {
  {
    const Client client = value(connecting()());
    ApplicationProcess child([&] {
      require(code(client.usage()) == Errc::no_device, "the inherited session is refused");
      const auto control = Client::connect(0, NodeKind::control, folder_.path());
      require(control.has_value(), "the child connects by itself");
      require(control->usage().has_value(), "its own session answers");
    });
    EXPECT_TRUE(child.wait().succeeded());
    EXPECT_TRUE(client.usage());
  }
  EXPECT_TRUE(witness_.everything_was_given_back());
}

TEST_F(ForkedApplication, EndsItsSessionByDyingWhileAChildLives) {
  pid_t* const child = static_cast<pid_t*>(
      ::mmap(nullptr, sizeof(pid_t), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  kill_application_after([child](BusySession&) {
    if (::fork() == 0) {
      ::alarm(longest_child_life_s);
      // By now the handlers of fork() have closed what it inherited.
      std::atomic_ref(*child).store(::getpid());
      while (true) ::pause();
    }
    while (std::atomic_ref(*child).load() == 0) std::this_thread::yield();
  });
  ASSERT_GT(*child, 0);
  EXPECT_TRUE(connecting()()) << "the device is free again";
  EXPECT_TRUE(witness_.everything_was_given_back());
  EXPECT_EQ(0, ::kill(*child, 0)) << "the child lives";
  ::kill(*child, SIGKILL);
  ::munmap(child, sizeof(pid_t));
}

TEST_F(ForkedApplication, EndsItsSessionByDyingWhileAProgramItStartedRuns) {
  pid_t* const child = static_cast<pid_t*>(
      ::mmap(nullptr, sizeof(pid_t), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  kill_application_after([child](BusySession&) {
    // posix_spawn() makes its child as vfork() does: no handler of fork() runs.
    char name[] = "sleep";
    char time[] = "100";
    char* arguments[] = {name, time, nullptr};
    // It returns a moment before the child's descriptors are closed, lowest first: the end of this
    // pipe, opened last, says that they are.
    int closed[2];
    require(::pipe2(closed, O_CLOEXEC) == 0, "a pipe");
    require(::posix_spawnp(child, name, nullptr, nullptr, arguments, environ) == 0, "sleep runs");
    ::close(closed[1]);
    char none = 0;
    require(::read(closed[0], &none, 1) == 0, "the program has none of it");
    ::close(closed[0]);
  });
  ASSERT_GT(*child, 0);
  EXPECT_TRUE(connecting()()) << "the device is free again";
  EXPECT_TRUE(witness_.everything_was_given_back());
  EXPECT_EQ(0, ::kill(*child, 0)) << "the program runs";
  ::kill(*child, SIGKILL);
  ::munmap(child, sizeof(pid_t));
}

// A clone system call runs no handlers: the child's copies of the descriptors stay open, but every
// call knows better.
TEST_F(ForkedApplication, RefusesEveryCallInAChildOfARawClone) {
  {
    BusySession session(connecting());
    session.begin();
    static_cast<void>(value(session.client->event_fd()));
    std::fflush(nullptr);
    const auto child = static_cast<pid_t>(::syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0));
    ASSERT_GE(child, 0);
    if (child == 0) {
      require_no_session(session);
      ::_exit(0);
    }
    test::Ending ending;
    ASSERT_EQ(child, ::waitpid(child, &ending.status, 0));
    EXPECT_TRUE(ending.succeeded());
    EXPECT_TRUE(session.client->usage());
  }
  EXPECT_TRUE(witness_.everything_was_given_back());
}

}  // namespace
}  // namespace accelmm
