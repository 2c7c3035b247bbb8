// SPDX-License-Identifier: Apache-2.0
//
// What a session may ask of its host memory, call by call, and what it is told. What this machine
// cannot do is injected.
#include "mm/backing/huge_pages.hpp"
#include "support/census.hpp"
#include "support/failing_calls.hpp"
#include "support/plain_host.hpp"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <optional>
#include <string>

#include <gtest/gtest.h>
#include <sys/mman.h>

namespace accelmm::test {
namespace {

constexpr __u64 size = 8 << 20;

accelmm_alloc host_memory(accelmm_backing_request backing, __u64 bytes = size) {
  return {
      .size = bytes, .domain = ACCELMM_DOMAIN_HOST, .flags = 0, .handle = 0, .backing = backing};
}

accelmm_backing_request flags(__u32 bits) {
  return {.pages = 0, .node_rule = 0, .nodes = 0, .flags = bits, .reserved = 0};
}

accelmm_backing_request pages(__u32 kind, __u32 bits = 0) {
  return {.pages = kind, .node_rule = 0, .nodes = 0, .flags = bits, .reserved = 0};
}

accelmm_backing_request node(__u32 rule, __u64 nodes, __u32 bits = 0) {
  return {.pages = 0, .node_rule = rule, .nodes = nodes, .flags = bits, .reserved = 0};
}

/// One session on a device whose host window the test chooses.
class Backing : public testing::Test {
 protected:
  explicit Backing(const devices::HostMemory& memory = {}, DeviceDescription device = description())
      : host(std::move(device), memory), client(host) {
    client.say_hello();
  }
  static DeviceDescription description() {
    DeviceDescription device = plain_description();
    device.session_quota.locked = 16_MiB;
    return device;
  }
  std::int32_t allocate(accelmm_alloc& args) { return client.ioctl(ACCELMM_IOCTL_ALLOC, args); }
  std::int32_t allocate(accelmm_backing_request backing, __u64 bytes = size) {
    accelmm_alloc args = host_memory(backing, bytes);
    const std::int32_t status = allocate(args);
    if (status == 0) last = args.handle;
    return status;
  }
  accelmm_backing report(__u64 deadline_ns = 0) {
    accelmm_backing args{};
    args.handle = last;
    args.deadline_ns = deadline_ns;
    EXPECT_EQ(0, client.ioctl(ACCELMM_IOCTL_BACKING, args));
    return args;
  }
  void free_last() {
    accelmm_free args{last};
    EXPECT_EQ(0, client.ioctl(ACCELMM_IOCTL_FREE, args));
  }
  // Until all pages are made.
  accelmm_backing finished() {
    while (true) {
      const accelmm_backing told = report();
      if (told.prefault != ACCELMM_PREFAULT_RUNNING) return told;
      std::this_thread::yield();
    }
  }

  PlainHost host;
  RawClient client;
  __u64 last = 0;
};

TEST_F(Backing, WhatNobodyAskedForIsBasePagesAndNoRefusals) {
  ASSERT_EQ(0, allocate(accelmm_backing_request{}));
  const accelmm_backing told = report();
  EXPECT_EQ(static_cast<__u32>(ACCELMM_PAGES_BASE), told.pages);
  EXPECT_EQ(4096U, told.page_size);
  EXPECT_EQ(0U, told.populated);
  EXPECT_EQ(static_cast<__u32>(ACCELMM_PREFAULT_NONE), told.prefault);
  EXPECT_EQ(0, told.refused_pages | told.refused_nodes | told.refused_lock | told.refused_dump |
                   told.refused_prefault);
}

TEST_F(Backing, AStructThatIsOlderThanBackingStillAllocates) {
  accelmm_alloc args = host_memory({});
  constexpr std::size_t old_size = offsetof(accelmm_alloc, backing);
  const std::uint32_t old = _IOC(_IOC_READ | _IOC_WRITE, ACCELMM_IOCTL_TYPE, 0x01, old_size);
  EXPECT_EQ(24U, old_size);
  EXPECT_EQ(0, client.call(old, std::as_bytes(std::span(&args, 1)).first(old_size)));
}

TEST_F(Backing, MalformedRequestsAreRefused) {
  const accelmm_backing_request wrong[] = {
      pages(ACCELMM_PAGES_HUGE_1G + 1),
      pages(0xffffffff),
      flags(1U << 6),
      flags(0x80000000),
      node(ACCELMM_NODES_ANY, 1),
      node(ACCELMM_NODES_BIND, 0),
      node(ACCELMM_NODES_INTERLEAVE + 1, 1),
      {.pages = 0, .node_rule = 0, .nodes = 0, .flags = 0, .reserved = 1},
  };
  for (const accelmm_backing_request& backing : wrong) EXPECT_EQ(-EINVAL, allocate(backing));
  EXPECT_EQ(0_B, host.host->host().used());
}

TEST_F(Backing, DeviceMemoryHasNone) {
  accelmm_alloc args = host_memory(flags(ACCELMM_BACKING_LOCK));
  args.domain = ACCELMM_DOMAIN_DEVICE;
  EXPECT_EQ(-EINVAL, allocate(args));
  args.backing = {};
  ASSERT_EQ(0, allocate(args));
  accelmm_backing told{};
  told.handle = args.handle;
  EXPECT_EQ(-EOPNOTSUPP, client.ioctl(ACCELMM_IOCTL_BACKING, told));
  told.handle = 0x1234;
  EXPECT_EQ(-EINVAL, client.ioctl(ACCELMM_IOCTL_BACKING, told));
}

TEST_F(Backing, LargerPagesFallBackToSmallerOnesAndTheFirstRefusalIsTold) {
  // Everything but base pages refused: a writable buffer may have no pool's pages.
  const FailingSite no_file("open", ENOENT);
  for (const __u32 kind : {ACCELMM_PAGES_HUGE_1G, ACCELMM_PAGES_HUGE_2M}) {
    ASSERT_EQ(0, allocate(pages(kind)));
    EXPECT_EQ(static_cast<__u32>(ACCELMM_PAGES_BASE), report().pages);
    EXPECT_EQ(-EPERM, report().refused_pages);
    EXPECT_EQ(-EPERM, allocate(pages(kind, ACCELMM_BACKING_EXACT)));
  }
  ASSERT_EQ(0, allocate(pages(ACCELMM_PAGES_TRANSPARENT)));
  EXPECT_EQ(-EOPNOTSUPP, report().refused_pages);
  EXPECT_EQ(-EOPNOTSUPP, allocate(pages(ACCELMM_PAGES_TRANSPARENT, ACCELMM_BACKING_EXACT)));
}

TEST_F(Backing, ImportableBuffersHaveNoHugePages) {
  const __u32 bits = ACCELMM_BACKING_IMPORTABLE;
  accelmm_alloc args = host_memory(pages(ACCELMM_PAGES_HUGE_2M, bits));
  args.flags = ACCELMM_ALLOC_CPU_READ_ONLY;
  ASSERT_EQ(0, allocate(args));
  last = args.handle;
  EXPECT_EQ(static_cast<__u32>(ACCELMM_PAGES_BASE), report().pages);
  EXPECT_EQ(-EPERM, report().refused_pages);
  args = host_memory(pages(ACCELMM_PAGES_HUGE_2M, bits | ACCELMM_BACKING_EXACT));
  args.flags = ACCELMM_ALLOC_CPU_READ_ONLY;
  EXPECT_EQ(-EPERM, allocate(args));
}

TEST_F(Backing, ReadOnlyBuffersTryThePoolAndFallBackFromAnEmptyOne) {
  // As a kernel whose pool is empty answers, and one that has no such pages.
  const struct {
    const char* site;
    int error;
    std::int32_t told;
  } kernels[] = {{"memfd_create", ENODEV, -EOPNOTSUPP},
                 {"memfd_create", ENOSYS, -EOPNOTSUPP},
                 {"populate", EFAULT, 0}};
  for (const auto& kernel : kernels) {
    const Census before = take_census();
    const FailingSite failing(kernel.site, kernel.error);
    accelmm_alloc args =
        host_memory(pages(ACCELMM_PAGES_HUGE_2M, ACCELMM_BACKING_EXACT), std::uint64_t{4} << 20);
    args.flags = ACCELMM_ALLOC_CPU_READ_ONLY;
    const std::int32_t status = allocate(args);
    EXPECT_NE(0, status);
    if (kernel.told != 0) {
      EXPECT_EQ(kernel.told, status) << kernel.error;
    }
    EXPECT_EQ(0_B, host.host->host().used());
    EXPECT_TRUE(before.matches(take_census()));
  }
}

TEST_F(Backing, AnExactRequestForAnotherNodeIsRefusedAndABestEffortTells) {
  const __u64 no_node = __u64{1} << 63;
  EXPECT_EQ(-EOPNOTSUPP, allocate(node(ACCELMM_NODES_BIND, no_node, ACCELMM_BACKING_EXACT)));
  EXPECT_EQ(0_B, host.host->host().used());
  ASSERT_EQ(0, allocate(node(ACCELMM_NODES_BIND, no_node)));
  EXPECT_EQ(-EOPNOTSUPP, report().refused_nodes);
}

TEST_F(Backing, LockedMemoryIsCountedApartAndGivenBack) {
  ASSERT_EQ(0, allocate(flags(ACCELMM_BACKING_LOCK)));
  if (report().locked == 0) GTEST_SKIP() << "RLIMIT_MEMLOCK is below 8 MiB here";
  EXPECT_EQ(size, report().locked);
  const __u64 first = last;
  ASSERT_EQ(0, allocate(flags(ACCELMM_BACKING_LOCK)));
  if (report().locked == 0) GTEST_SKIP() << "RLIMIT_MEMLOCK is below 16 MiB here";
  // The session may lock 16 MiB.
  EXPECT_EQ(-EDQUOT, allocate(flags(ACCELMM_BACKING_LOCK | ACCELMM_BACKING_EXACT)));
  ASSERT_EQ(0, allocate(flags(ACCELMM_BACKING_LOCK)));
  EXPECT_EQ(0U, report().locked);
  EXPECT_EQ(-EDQUOT, report().refused_lock);
  last = first;
  free_last();
  EXPECT_EQ(0, allocate(flags(ACCELMM_BACKING_LOCK | ACCELMM_BACKING_EXACT)));
}

TEST_F(Backing, WhatTheSystemDoesNotLockIsNotCounted) {
  for (int i = 0; i < 4; ++i) {
    const FailingSite failing("lock_on_fault", ENOMEM);
    ASSERT_EQ(0, allocate(flags(ACCELMM_BACKING_LOCK)));
    EXPECT_EQ(0U, report().locked);
    EXPECT_EQ(-EDQUOT, report().refused_lock);
    EXPECT_EQ(-EDQUOT, allocate(flags(ACCELMM_BACKING_LOCK | ACCELMM_BACKING_EXACT)));
    free_last();
  }
  ASSERT_EQ(0, allocate(flags(ACCELMM_BACKING_LOCK)));
  EXPECT_NE(-EDQUOT, report().locked == 0 ? 0 : report().refused_lock);
}

TEST_F(Backing, APrefaultMakesAllPagesAndNobodyWaits) {
  ASSERT_EQ(0, allocate(flags(ACCELMM_BACKING_PREFAULT)));
  const accelmm_backing told = finished();
  EXPECT_EQ(static_cast<__u32>(ACCELMM_PREFAULT_DONE), told.prefault);
  EXPECT_EQ(size, told.prefaulted);
  EXPECT_EQ(size, told.populated);
  EXPECT_EQ(told.samples, told.samples_present);
}

TEST_F(Backing, APrefaultThatFailsIsToldAndTheBufferStays) {
  {
    const FailingSite failing("populate", EFAULT);
    ASSERT_EQ(0, allocate(flags(ACCELMM_BACKING_PREFAULT)));
    const accelmm_backing told = finished();
    EXPECT_EQ(static_cast<__u32>(ACCELMM_PREFAULT_FAILED), told.prefault);
    EXPECT_EQ(-EFAULT, told.refused_prefault);
  }
  free_last();
  EXPECT_EQ(0_B, host.host->host().used());
}

TEST_F(Backing, AWaitForAPrefaultIsOneReplyWhenItEnds) {
  ASSERT_EQ(0, allocate(flags(ACCELMM_BACKING_PREFAULT)));
  accelmm_backing args{};
  args.handle = last;
  args.deadline_ns = ~__u64{0};
  client.log().sent.clear();
  client.send(ACCELMM_MESSAGE_IOCTL, ACCELMM_IOCTL_BACKING, std::as_bytes(std::span(&args, 1)));
  while (client.log().sent.empty()) host.transport.drain();
  ASSERT_EQ(1U, client.log().sent.size());
  const auto& reply = client.log().sent.front();
  ASSERT_EQ(0, reply.header.status);
  std::memcpy(&args, reply.payload.data(), sizeof args);
  EXPECT_EQ(static_cast<__u32>(ACCELMM_PREFAULT_DONE), args.prefault);
  EXPECT_EQ(size, args.prefaulted);
  // And at once when it has ended.
  EXPECT_EQ(static_cast<__u32>(ACCELMM_PREFAULT_DONE), report(~__u64{0}).prefault);
}

TEST_F(Backing, FreeingWhileABackingIsAwaitedEndsTheWaitAndTheMakingOfPages) {
  accelmm_alloc large = host_memory(flags(ACCELMM_BACKING_PREFAULT), std::uint64_t{48} << 20);
  ASSERT_EQ(0, allocate(large));
  last = large.handle;
  accelmm_backing args{};
  args.handle = last;
  args.deadline_ns = ~__u64{0};
  client.send(ACCELMM_MESSAGE_IOCTL, ACCELMM_IOCTL_BACKING, std::as_bytes(std::span(&args, 1)));
  accelmm_free freed{last};
  client.send(ACCELMM_MESSAGE_IOCTL, ACCELMM_IOCTL_FREE, std::as_bytes(std::span(&freed, 1)));
  EXPECT_EQ(0_B, host.host->host().used());
  for (int i = 0; i < 3; ++i) host.transport.drain();
  int replies = 0;
  for (const auto& packet : client.log().sent)
    if (packet.header.command == ACCELMM_IOCTL_BACKING) {
      ++replies;
      // Freed before it ended, as a rule; on an idle machine all pages may be there already.
      EXPECT_TRUE(packet.header.status == -EINVAL || packet.header.status == 0);
    }
  EXPECT_EQ(1, replies);
}

TEST_F(Backing, ASessionThatEndsWhilePagesAreMadeLeavesNothing) {
  const Census before = take_census();
  {
    RawClient other(host);
    other.say_hello();
    accelmm_alloc large = host_memory(flags(ACCELMM_BACKING_PREFAULT), std::uint64_t{32} << 20);
    ASSERT_EQ(0, other.ioctl(ACCELMM_IOCTL_ALLOC, large));
    accelmm_backing args{};
    args.handle = large.handle;
    args.deadline_ns = ~__u64{0};
    other.send(ACCELMM_MESSAGE_IOCTL, ACCELMM_IOCTL_BACKING, std::as_bytes(std::span(&args, 1)));
  }
  host.transport.drain();
  EXPECT_EQ(0_B, host.host->host().used());
  EXPECT_EQ(0U, host.transport.timers());
  EXPECT_TRUE(before.matches(take_census()));
}

/// The memory of the last buffer, as its session has it mapped.
class Cleared : public Backing {
 protected:
  std::byte* map() {
    accelmm_map_cpu args{.handle = last,
                         .offset = 0,
                         .length = size,
                         .access = ACCELMM_ACCESS_READ | ACCELMM_ACCESS_WRITE,
                         .fd = 0,
                         .fd_offset = 0};
    KeptConnection::Packet reply{};
    EXPECT_EQ(0, client.call(ACCELMM_IOCTL_MAP_CPU, std::as_bytes(std::span(&args, 1)), &reply));
    mapped_ = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, reply.fds.at(0).get(), 0);
    EXPECT_NE(MAP_FAILED, mapped_);
    return static_cast<std::byte*>(mapped_);
  }
  ~Cleared() override { ::munmap(mapped_, size); }
  void* mapped_ = nullptr;
};

TEST_F(Cleared, OnFreeIsSeenByWhoKeptAMapping) {
  ASSERT_EQ(0, allocate(flags(ACCELMM_BACKING_ZERO_ON_FREE)));
  std::byte* const bytes = map();
  bytes[5 << 20] = std::byte{9};
  free_last();
  EXPECT_EQ(std::byte{0}, bytes[5 << 20]);
}

TEST_F(Cleared, NotUnlessAskedFor) {
  ASSERT_EQ(0, allocate(accelmm_backing_request{}));
  std::byte* const bytes = map();
  bytes[5 << 20] = std::byte{9};
  free_last();
  EXPECT_EQ(std::byte{9}, bytes[5 << 20]);
}

TEST_F(Cleared, NotWhereOthersHoldAnExport) {
  ASSERT_EQ(0, allocate(flags(ACCELMM_BACKING_ZERO_ON_FREE)));
  std::byte* const bytes = map();
  bytes[5 << 20] = std::byte{9};
  accelmm_export args{};
  args.handle = last;
  args.length = size;
  ASSERT_EQ(0, client.ioctl(ACCELMM_IOCTL_EXPORT, args));
  free_last();
  EXPECT_EQ(std::byte{9}, bytes[5 << 20]);
}

devices::HostMemory eager_memory() {
  devices::HostMemory memory;
  memory.defaults.prefault = PrefaultPages::yes;
  memory.defaults.pages = PageSize::huge_2m;
  memory.policy.hugetlb = HugetlbUse::none;
  memory.policy.prefault_threads = 1;
  return memory;
}

class EagerWindow : public Backing {
 protected:
  EagerWindow() : Backing(eager_memory()) {}
};

TEST_F(EagerWindow, ItsDefaultsAreForWhoAsksForNothing) {
  ASSERT_EQ(0, allocate(accelmm_backing_request{}));
  EXPECT_EQ(-EPERM, report().refused_pages) << "2 MiB pages were tried";
  EXPECT_EQ(static_cast<__u32>(ACCELMM_PREFAULT_DONE), finished().prefault);
  ASSERT_EQ(0, allocate(pages(ACCELMM_PAGES_BASE)));
  EXPECT_EQ(0, report().refused_pages);
}

TEST(HostWindow, WithDefaultsThatContradictThemselvesIsNotMade) {
  devices::HostMemory memory;
  memory.defaults.nodes.rule = NodeRule::bind;
  const auto region =
      devices::Region::create({.domain = devices::Domain::host, .size = 1_MiB, .host = memory});
  ASSERT_FALSE(region.has_value());
  EXPECT_EQ(Errc::invalid_argument, region.error().code);
}

accelmm_backing_request everything(__u32 rule) {
  return {.pages = ACCELMM_PAGES_TRANSPARENT,
          .node_rule = ACCELMM_NODES_PREFERRED,
          .nodes = 1,
          .flags = rule | ACCELMM_BACKING_LOCK | ACCELMM_BACKING_NO_DUMP |
                   ACCELMM_BACKING_ZERO_ON_FREE | ACCELMM_BACKING_PREFAULT,
          .reserved = 0};
}

TEST_F(Backing, TheKthCallFailingLeavesNothingAndTheNextAllocationSucceeds) {
  for (const __u32 rule : {0U, static_cast<__u32>(ACCELMM_BACKING_EXACT)}) {
    accelmm_backing_request backing = everything(rule);
    if (rule != 0) backing.pages = ACCELMM_PAGES_BASE;
    long points = 0;
    {
      const FailingCall counting(0, 0);
      ASSERT_EQ(0, allocate(backing, __u64{1} << 20));
      static_cast<void>(report());
      free_last();
      points = counting.calls();
    }
    const Census before = take_census();
    long refused = 0;
    for (long k = 1; k <= points; ++k) {
      {
        const FailingCall failing(k, ENOMEM);
        if (allocate(backing, __u64{1} << 20) == 0) {
          static_cast<void>(report());
          free_last();
        } else {
          ++refused;
        }
      }
      // A place that could not be emptied is given back by the next allocation.
      ASSERT_EQ(0, allocate(backing, __u64{1} << 20)) << k;
      free_last();
      EXPECT_EQ(0_B, host.host->host().used()) << k;
      EXPECT_EQ(0U, host.host->host().window().pending_removals()) << k;
      const Census after = take_census();
      // The window's addresses are always the same; sanitizers map more and more.
      EXPECT_EQ(before.fds, after.fds) << k;
      EXPECT_EQ(before.memfd_maps, after.memfd_maps) << k;
    }
    std::printf("%ld calls failed in turn, %ld refused the allocation\n", points, refused);
    EXPECT_GE(points, 15);
    // What fails with huge pages is tried again without, where the kernel has them to give.
    if (rule == 0 && check_transparent_pages()) {
      EXPECT_EQ(0, refused);
    } else {
      EXPECT_GE(refused, 6);
    }
  }
}

}  // namespace
}  // namespace accelmm::test
