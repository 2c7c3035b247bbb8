// SPDX-License-Identifier: Apache-2.0
#include "base/system.hpp"
#include "support/census.hpp"
#include "support/failing_calls.hpp"
#include "support/temporary_folder.hpp"

#include <accelmm/fault_injection.hpp>

#include <array>
#include <cerrno>
#include <functional>
#include <string>
#include <vector>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

namespace accelmm {
namespace {

using test::FailingSite;

TEST(FaultInjection, WithoutAHookEveryPointPasses) {
  EXPECT_EQ(0, fault_injection::point("x"));
}

TEST(FaultInjection, TheHookSeesTheSiteAndDecides) {
  std::vector<std::string> sites;
  const auto hook = [](void* context, const char* site) noexcept {
    static_cast<std::vector<std::string>*>(context)->emplace_back(site);
    return std::string(site) == "second" ? ENOSPC : 0;
  };
  fault_injection::install(hook, &sites);
  EXPECT_EQ(0, fault_injection::point("first"));
  EXPECT_EQ(ENOSPC, fault_injection::point("second"));
  fault_injection::install(nullptr, nullptr);
  EXPECT_EQ(0, fault_injection::point("second"));
  EXPECT_EQ((std::vector<std::string>{"first", "second"}), sites);
}

struct Call {
  const char* site;
  std::function<int()> error;  // calls a wrapper; its errno, or 0
};

template <class T>
int error_of(const Result<T>& result) {
  return result ? 0 : static_cast<int>(result.error().code);
}

/// Every wrapper that may fail, once for each system call that it makes.
class EveryWrapper {
 public:
  [[nodiscard]] std::vector<Call> calls() {
    std::vector<Call> all = memory_calls();
    for (auto& some : {file_calls(), socket_calls()})
      all.insert(all.end(), some.begin(), some.end());
    return all;
  }

 private:
  std::vector<Call> memory_calls() {
    const FdView fd = memfd_.view();
    return {
        {"memfd_create", [] { return error_of(sys::memfd_create("x", 4_KiB)); }},
        {"ftruncate", [] { return error_of(sys::memfd_create("x", 4_KiB)); }},
        {"add_seals", [=] { return error_of(sys::add_seals(fd, F_SEAL_GROW)); }},
        {"get_seals", [=] { return error_of(sys::get_seals(fd)); }},
        {"mmap", [=] { return error_of(sys::mmap(nullptr, 4_KiB, PROT_READ, MAP_SHARED, fd, 0)); }},
        {"madvise", [] { return error_of(sys::madvise(nullptr, 0_B, MADV_NORMAL)); }},
        {"populate", [] { return error_of(sys::populate(nullptr, 0_B)); }},
        {"mbind", [] { return error_of(sys::mbind(nullptr, 0_B, 0, 0)); }},
        {"lock_on_fault", [] { return error_of(sys::lock_on_fault(nullptr, 0_B)); }},
        {"nodes_of_pages", [] { return error_of(sys::nodes_of_pages({}, {})); }},
        {"is_huge_page", [=] { return error_of(sys::is_huge_page(fd, nullptr)); }},
        {"seek", [=] { return error_of(sys::seek(fd, 0, SEEK_HOLE)); }}};
  }
  std::vector<Call> file_calls() {
    const FdView fd = memfd_.view();
    const std::string path = folder_.file("f");
    return {{"open", [] { return error_of(sys::open("/dev/null", O_RDONLY)); }},
            {"duplicate", [=] { return error_of(sys::duplicate(fd)); }},
            {"fstat", [=] { return error_of(sys::fstat(fd)); }},
            {"file_system_magic", [=] { return error_of(sys::file_system_magic(fd)); }},
            {"get_flags", [=] { return error_of(sys::get_flags(fd)); }},
            {"flock", [=] { return error_of(sys::flock(fd, LOCK_SH)); }},
            {"mkdir", [=] { return error_of(sys::mkdir(path, 0700)); }},
            {"unlink", [=] { return error_of(sys::unlink(path)); }},
            {"chmod", [=] { return error_of(sys::chmod(path, 0600)); }},
            {"chown", [=] { return error_of(sys::chown(path, 0, 0)); }},
            {"get_flags", [=] { return error_of(sys::set_nonblocking(fd)); }},
            {"set_nonblocking", [=] { return error_of(sys::set_nonblocking(fd)); }},
            {"pipe", [] { return error_of(sys::pipe()); }},
            {"read", [=, this] { return error_of(sys::read(fd, bytes_)); }},
            {"write", [=, this] { return error_of(sys::write(fd, bytes_)); }},
            {"eventfd", [] { return error_of(sys::eventfd()); }},
            {"poll_one", [=] { return error_of(sys::poll_one(fd, POLLIN, 0)); }}};
  }
  std::vector<Call> socket_calls() {
    const FdView fd = memfd_.view();
    const std::string path = folder_.file("socket");
    std::vector<Call> calls;
    for (const char* site : {"socket", "bind", "chmod", "listen"})
      calls.push_back({site, [=] { return error_of(sys::listen_seqpacket(path)); }});
    for (const char* site : {"socket", "connect"})
      calls.push_back({site, [=] { return error_of(sys::connect_seqpacket(path)); }});
    calls.push_back({"peer_credentials", [=] { return error_of(sys::peer_credentials(fd)); }});
    calls.push_back(
        {"send_packet", [=, this] { return error_of(sys::send_packet(fd, bytes_, {})); }});
    calls.push_back(
        {"receive_packet", [=, this] { return error_of(sys::receive_packet(fd, bytes_, 1)); }});
    return calls;
  }

  test::TemporaryFolder folder_;
  UniqueFd memfd_ = std::move(*sys::memfd_create("every-wrapper", 4_KiB));
  std::array<std::byte, 8> bytes_{};
};

TEST(FaultInjection, EveryWrapperFailsWithTheInjectedErrnoAndLeavesNothing) {
  EveryWrapper wrappers;
  for (const Call& call : wrappers.calls()) {
    const test::Census before = test::take_census();
    // EXDEV: none of these calls gives it for a reason of its own.
    const FailingSite failing(call.site, EXDEV);
    EXPECT_EQ(EXDEV, call.error()) << call.site;
    EXPECT_EQ(1, failing.failures()) << call.site;
    EXPECT_TRUE(before.matches(test::take_census())) << call.site;
  }
}

TEST(FaultInjection, AnInjectedInterruptionIsNotRetried) {
  const FailingSite failing("open", EINTR);
  EXPECT_EQ(EINTR, error_of(sys::open("/dev/null", O_RDONLY)));
  EXPECT_EQ(1, failing.failures());
}

}  // namespace
}  // namespace accelmm
