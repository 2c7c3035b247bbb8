// SPDX-License-Identifier: Apache-2.0
//
// The k-th allocation of memory during each call of an application fails, for each k, in the
// application's thread or in the runtime's: the call fails cleanly, or happens, or the session is
// over; nothing leaks.
//
// Where there is nobody to give an error to, at the end of a session and where the device's thread
// answers, what is taken away waits for memory instead, and everything is given back all the same.
#include "support/failing_session.hpp"

#include <atomic>
#include <cstdlib>
#include <iostream>
#include <new>

#include <gtest/gtest.h>

namespace accelmm {
namespace {

using test::Path;

std::atomic<long> allocations{0};
std::atomic<long> failing_number{0};  // 0: none
thread_local bool counted = false;    // the thread's allocations count
bool counted_at_close = false;        // those of the framework while a session ends count too

bool next_fails() {
  if (!counted || failing_number.load(std::memory_order_relaxed) == 0) return false;
  return ++allocations == failing_number.load();
}

class FailingAllocation final : public test::Trouble {
 public:
  void begin(long number) override {
    allocations = 0;
    failing_number = number;
  }
  bool end() override { return allocations.load() >= failing_number.exchange(0); }
};

class FailingAllocations : public test::FailingSession {
 protected:
  FailingAllocations()
      : FailingSession([](const std::string& step) {
          // The runtime's thread, but in what the driver does: an invalidation that it fails costs
          // the memory, which is another test's matter.
          if (step == "enter framework")
            counted = counted_at_close;
          else
            counted = step.starts_with("open") || step == "close";
          return std::size_t{0};
        }) {
    counted = true;
  }

  void fail_in_each_call(Path path) {
    FailingAllocation trouble;
    long total = fail_connect_at_each_point(path, trouble);
    std::cout << "  connect: " << total << "\n";
    EXPECT_GT(total, 0);
    for (const auto& call : test::session_calls()) {
      const long points = fail_at_each_point(call, path, trouble);
      std::cout << "  " << call.name << ": " << points << "\n";
      EXPECT_GT(points, 0) << call.name;
      total += points;
      if (HasFailure()) return;
    }
    std::cout << "  together: " << total << std::endl;
    expect_whole_regions();
  }
};

TEST_F(FailingAllocations, AtTheEndOfASessionAreWaitedFor) {
  FailingAllocation trouble;
  counted = false;  // the application only watches
  counted_at_close = true;
  for (const Path path : {Path::socket, Path::embedded}) {
    const long points = fail_close_at_each_point(path, trouble);
    std::cout << "  close: " << points << std::endl;
    EXPECT_GT(points, 0);
  }
  counted_at_close = false;
  expect_whole_regions();
}

TEST_F(FailingAllocations, LeaveNothingBehind) {
  fail_in_each_call(Path::socket);
}

TEST_F(FailingAllocations, InEmbeddedModeLeaveNothingBehind) {
  fail_in_each_call(Path::embedded);
}

}  // namespace

// Not inlined: where g++ sees free() take what operator new returned, it warns of a mismatch.
[[gnu::noinline]] static void* take_block(std::size_t size) noexcept {
  return next_fails() ? nullptr : std::malloc(size == 0 ? 1 : size);
}
[[gnu::noinline]] static void give_block(void* block) noexcept {
  std::free(block);
}

}  // namespace accelmm

void* operator new(std::size_t size) {
  void* const block = accelmm::take_block(size);
  if (block == nullptr) throw std::bad_alloc();
  return block;
}
void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
  return accelmm::take_block(size);
}
void* operator new[](std::size_t size) {
  return operator new(size);
}
void* operator new[](std::size_t size, const std::nothrow_t& tag) noexcept {
  return operator new(size, tag);
}
void operator delete(void* block) noexcept {
  accelmm::give_block(block);
}
void operator delete(void* block, std::size_t) noexcept {
  accelmm::give_block(block);
}
void operator delete[](void* block) noexcept {
  accelmm::give_block(block);
}
void operator delete[](void* block, std::size_t) noexcept {
  accelmm::give_block(block);
}
void operator delete(void* block, const std::nothrow_t&) noexcept {
  accelmm::give_block(block);
}
void operator delete[](void* block, const std::nothrow_t&) noexcept {
  accelmm::give_block(block);
}
