// SPDX-License-Identifier: Apache-2.0
// That nothing of QEMU is left behind and nobody waits for it for ever.

#include "oracle/qemu_process.hpp"

#include "oracle/compare.hpp"
#include "oracle/vtd_oracle.hpp"
#include "oracle/x86_oracle.hpp"

#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <memory>
#include <set>
#include <string>
#include <thread>

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/wait.h>

namespace accelmm::test {
namespace {

// What the descriptors of a process lead to, without the standard ones.
std::multiset<std::string> open_files(pid_t pid) {
  std::multiset<std::string> files;
  const std::filesystem::path folder = "/proc/" + std::to_string(pid) + "/fd";
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    std::error_code closed;
    const std::string target = std::filesystem::read_symlink(entry.path(), closed);
    if (!closed && std::stoi(entry.path().filename()) > 2) files.insert(target);
  }
  return files;
}

bool is_there(pid_t pid) {
  return ::kill(pid, 0) == 0;
}

template <class AnOracle>
class QemuProcessTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!find_program("qemu-system-x86_64")) GTEST_SKIP() << "qemu-system-x86_64 is not installed";
  }
  static std::unique_ptr<AnOracle> create() {
    auto created = AnOracle::create({.levels = 4, .memory = ByteCount(16 << 20)});
    EXPECT_TRUE(created) << created.error().what;
    return created ? std::move(*created) : nullptr;
  }
  static bool answers(AnOracle& oracle) {
    const std::uint64_t address = 0x1000;
    const auto answer = oracle.translate(oracle.base(), std::span(&address, 1), Access::read);
    if (answer) return true;
    EXPECT_EQ(Errc::io_error, answer.error().code);
    return false;
  }
};
using Oracles = testing::Types<X86Oracle, VtdOracle>;
TYPED_TEST_SUITE(QemuProcessTest, Oracles);

TYPED_TEST(QemuProcessTest, InheritsOnlyWhatItIsGivenAndLeavesNothingBehind) {
  const auto before = open_files(::getpid());
  const UniqueFd secret(::memfd_create("secret", 0));  // not close-on-exec, as a careless user has
  pid_t pid = 0;
  {
    const auto oracle = this->create();
    ASSERT_NE(nullptr, oracle);
    ASSERT_TRUE(this->answers(*oracle));
    pid = oracle->pid();
    for (const std::string& file : open_files(pid))
      EXPECT_EQ(std::string::npos, file.find("secret"));
  }
  EXPECT_FALSE(is_there(pid)) << "not even as a zombie";
  EXPECT_EQ(before.size() + 1, open_files(::getpid()).size());
}

TYPED_TEST(QemuProcessTest, AnEndedQemuIsAnErrorEachTime) {
  const auto oracle = this->create();
  ASSERT_NE(nullptr, oracle);
  ::kill(oracle->pid(), SIGKILL);
  EXPECT_FALSE(this->answers(*oracle));
  EXPECT_FALSE(this->answers(*oracle));
}

TYPED_TEST(QemuProcessTest, ASilentQemuIsAnErrorAndStaysOneWhenItWakes) {
  const auto oracle = this->create();
  ASSERT_NE(nullptr, oracle);
  ::kill(oracle->pid(), SIGSTOP);
  oracle->wire().set_patience(std::chrono::milliseconds(200));
  EXPECT_FALSE(this->answers(*oracle));
  ::kill(oracle->pid(), SIGCONT);
  oracle->wire().set_patience(std::chrono::seconds(60));
  EXPECT_FALSE(this->answers(*oracle)) << "it may answer what was asked before";
}

TYPED_TEST(QemuProcessTest, EndsWithATestThatAborts) {
  int ends[2];
  ASSERT_EQ(0, ::pipe2(ends, O_CLOEXEC));
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    const auto oracle = this->create();
    const pid_t pid = oracle == nullptr ? 0 : oracle->pid();
    static_cast<void>(!::write(ends[1], &pid, sizeof pid));
    ::raise(SIGKILL);
  }
  pid_t pid = 0;
  ASSERT_EQ(static_cast<ssize_t>(sizeof pid), ::read(ends[0], &pid, sizeof pid));
  ::close(ends[0]);
  ::close(ends[1]);
  ASSERT_EQ(child, ::waitpid(child, nullptr, 0));
  ASSERT_GT(pid, 0);
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  const auto is_running = [&] {
    std::ifstream status("/proc/" + std::to_string(pid) + "/stat");
    std::string number;
    std::string name;
    std::string state;
    return status >> number >> name >> state && state != "Z" && state != "X";
  };
  while (is_running() && std::chrono::steady_clock::now() < end)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  EXPECT_FALSE(is_running());
}

TEST(QemuProcess, AProgramThatIsNotThereIsFoundMissing) {
  EXPECT_FALSE(find_program("qemu-system-of-tomorrow"));
}

TEST(QemuProcess, AProgramThatCannotRunIsAnErrorAtOnce) {
  int ends[2];
  ASSERT_EQ(0, ::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends));
  UniqueFd theirs(ends[1]);
  QemuWire wire{UniqueFd(ends[0])};
  const int inherited = theirs.get();
  const auto process = QemuProcess::start("/dev/null", {}, std::span(&inherited, 1));
  ASSERT_TRUE(process);
  theirs.reset();
  const auto answer = wire.exchange("hello", [](const std::string&) { return false; });
  ASSERT_FALSE(answer);
  EXPECT_EQ(Errc::io_error, answer.error().code);
}

TEST(QemuProcess, WhatItPrintsIsKept) {
  const auto shell = find_program("sh");
  ASSERT_TRUE(shell);
  const auto process = QemuProcess::start(*shell, {"-c", "echo why >&2"}, {});
  ASSERT_TRUE(process);
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (process->last_words().empty() && std::chrono::steady_clock::now() < end)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  EXPECT_EQ("why\n", process->last_words());
}

}  // namespace
}  // namespace accelmm::test
