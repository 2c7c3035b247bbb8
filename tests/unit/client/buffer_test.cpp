// SPDX-License-Identifier: Apache-2.0
#include "support/census.hpp"
#include "support/failing_calls.hpp"
#include "unit/client/fake_driver.hpp"

#include <accelmm/buffer.hpp>
#include <accelmm/client.hpp>

#include <climits>
#include <optional>

#include <gtest/gtest.h>
#include <sys/wait.h>

namespace accelmm {
namespace {

using test::FakeChannel;
using test::FakeDriver;
using test::page;
using test::Reply;

constexpr BufferRange pages(std::uint64_t first, std::uint64_t count) {
  return {BufferOffset(first * page), BufferOffset((first + count) * page)};
}

class BufferTest : public testing::Test {
 protected:
  void SetUp() override {
    auto client = Client::connect(std::make_unique<FakeChannel>(driver_));
    ASSERT_TRUE(client);
    client_ = std::move(*client);
    auto buffer = client_->allocate(ByteCount(4 * page));
    ASSERT_TRUE(buffer);
    buffer_ = std::move(*buffer);
  }

  // Runs `call` once for each lie in the reply to `command`: it must fail with protocol_error and
  // leave no descriptor open.
  template <class Struct, class Call>
  void expect_refused(
      std::uint32_t command, Call call,
      const std::vector<std::pair<const char*, std::function<void(Reply&, Struct&)>>>& lies) {
    const test::Census before = test::take_census();
    for (const auto& [field, lie] : lies) {
      SCOPED_TRACE(field);
      driver_->tamper(command, [&](Reply& reply) {
        lie(reply, reply.as<Struct>());
        reply.header.fd_count = static_cast<std::uint16_t>(reply.fds.size());
      });
      const auto result = call();
      ASSERT_FALSE(result);
      EXPECT_EQ(Errc::protocol_error, result.error().code) << result.error().what;
      EXPECT_EQ(before.fds, test::count_fds());
      EXPECT_EQ(before.memfd_maps, test::count_maps("/memfd:"));
    }
    EXPECT_TRUE(call()) << "honest again";
  }

  std::shared_ptr<FakeDriver> driver_ = std::make_shared<FakeDriver>();
  std::optional<Client> client_;
  std::optional<Buffer> buffer_;
};

UniqueFd make_fd(std::uint64_t size) {
  UniqueFd fd(::memfd_create("test", MFD_CLOEXEC));
  EXPECT_EQ(0, ::ftruncate(fd.get(), static_cast<off_t>(size)));
  return fd;
}

TEST_F(BufferTest, OptionsBecomeDomainAndFlags) {
  const std::vector<std::tuple<BufferOptions, std::uint32_t, std::uint32_t>> cases = {
      {{}, ACCELMM_DOMAIN_HOST, 0},
      {{.cpu = CpuVisibility::read_only}, ACCELMM_DOMAIN_HOST, ACCELMM_ALLOC_CPU_READ_ONLY},
      {{.domain = Domain::device}, ACCELMM_DOMAIN_DEVICE, 0},
      {{.domain = Domain::device, .layout = Layout::contiguous},
       ACCELMM_DOMAIN_DEVICE,
       ACCELMM_ALLOC_CONTIGUOUS},
      {{.domain = Domain::device, .cpu = CpuVisibility::visible},
       ACCELMM_DOMAIN_DEVICE,
       ACCELMM_ALLOC_CPU_VISIBLE},
      {{.domain = Domain::device, .cpu = CpuVisibility::read_only},
       ACCELMM_DOMAIN_DEVICE,
       ACCELMM_ALLOC_CPU_VISIBLE | ACCELMM_ALLOC_CPU_READ_ONLY},
  };
  for (const auto& [options, domain, flags] : cases) {
    auto buffer = client_->allocate(ByteCount(1), options);
    ASSERT_TRUE(buffer);
    EXPECT_EQ(ByteCount(page), buffer->size());
    const auto args = driver_->last<accelmm_alloc>();
    EXPECT_EQ(1u, args.size);
    EXPECT_EQ(domain, args.domain);
    EXPECT_EQ(flags, args.flags);
    EXPECT_EQ(0u, args.handle);
  }
}

TEST_F(BufferTest, ARequestOfBackingIsSentAsItIs) {
  const BackingRequest all{.pages = PageSize::huge_1g,
                           .nodes = {NodeRule::interleave, {6}},
                           .rule = BackingRule::exact,
                           .lock = MemoryLock::locked,
                           .dumps = CoreDumps::excluded,
                           .zero_on_free = ZeroOnFree::yes,
                           .prefault = PrefaultPages::yes,
                           .importable = Importable::needed};
  const auto made = client_->allocate(ByteCount(1), {.backing = all});
  ASSERT_TRUE(made);
  const auto args = driver_->last<accelmm_alloc>().backing;
  EXPECT_EQ(static_cast<std::uint32_t>(ACCELMM_PAGES_HUGE_1G), args.pages);
  EXPECT_EQ(static_cast<std::uint32_t>(ACCELMM_NODES_INTERLEAVE), args.node_rule);
  EXPECT_EQ(6u, args.nodes);
  EXPECT_EQ(0x3fu, args.flags);
  EXPECT_EQ(0u, args.reserved);

  const std::vector<std::pair<BackingRequest, std::uint32_t>> single = {
      {{.rule = BackingRule::exact}, ACCELMM_BACKING_EXACT},
      {{.lock = MemoryLock::locked}, ACCELMM_BACKING_LOCK},
      {{.dumps = CoreDumps::excluded}, ACCELMM_BACKING_NO_DUMP},
      {{.zero_on_free = ZeroOnFree::yes}, ACCELMM_BACKING_ZERO_ON_FREE},
      {{.prefault = PrefaultPages::yes}, ACCELMM_BACKING_PREFAULT},
      {{.importable = Importable::needed}, ACCELMM_BACKING_IMPORTABLE},
  };
  for (const auto& [request, flag] : single) {
    const auto buffer = client_->allocate(ByteCount(1), {.backing = request});
    ASSERT_TRUE(buffer);
    EXPECT_EQ(flag, driver_->last<accelmm_alloc>().backing.flags);
  }
}

TEST_F(BufferTest, AReportOfBackingIsGivenOn) {
  const auto report = buffer_->backing(77);
  ASSERT_TRUE(report);
  EXPECT_EQ(77u, driver_->last<accelmm_backing>().deadline_ns);
  EXPECT_EQ(PageSize::transparent, report->pages);
  EXPECT_EQ(2_MiB, report->page_size);
  EXPECT_EQ(PrefaultState::running, report->prefault);
  EXPECT_EQ(ByteCount(3 * page), report->populated);
  EXPECT_EQ(ByteCount(2 * page), report->prefaulted);
  EXPECT_EQ(ByteCount(page), report->locked);
  EXPECT_EQ(NodeSet{5}, report->sample.nodes);
  EXPECT_EQ(9u, report->sample.taken);
  EXPECT_EQ(8u, report->sample.present);
  EXPECT_EQ(7u, report->sample.huge);
  EXPECT_EQ(Errc::not_permitted, report->refused.pages);
  EXPECT_EQ(Errc::over_quota, report->refused.lock);
  EXPECT_EQ(Errc::unknown_ioctl, report->refused.sample);
  EXPECT_FALSE(report->refused.nodes || report->refused.dumps || report->refused.prefault);
  static_cast<void>(buffer_->release());
  EXPECT_EQ(Errc::invalid_argument, buffer_->backing().error().code);
}

TEST_F(BufferTest, AReportOfBackingThatLiesIsRefused) {
  expect_refused<accelmm_backing>(
      ACCELMM_IOCTL_BACKING, [&] { return buffer_->backing(); },
      {{"kind 0", [](Reply&, accelmm_backing& args) { args.pages = 0; }},
       {"kind", [](Reply&, accelmm_backing& args) { args.pages = 5; }},
       {"state", [](Reply&, accelmm_backing& args) { args.prefault = 4; }},
       {"positive", [](Reply&, accelmm_backing& args) { args.refused_nodes = 1; }},
       {"errno", [](Reply&, accelmm_backing& args) { args.refused_dump = -4096; }},
       {"lowest", [](Reply&, accelmm_backing& args) { args.refused_prefault = INT_MIN; }},
       {"descriptor", [](Reply& reply, accelmm_backing&) { reply.fds.push_back(make_fd(1)); }}});
}

TEST_F(BufferTest, DestructionFreesTheHandle) {
  const std::uint64_t handle = buffer_->handle();
  ASSERT_TRUE(driver_->buffers.contains(handle));
  buffer_.reset();
  EXPECT_FALSE(driver_->buffers.contains(handle));
  EXPECT_EQ(1u, driver_->count(ACCELMM_IOCTL_FREE));
}

TEST_F(BufferTest, MovingAssignmentFreesWhatWasThere) {
  auto other = client_->allocate(ByteCount(page));
  ASSERT_TRUE(other);
  const std::uint64_t first = buffer_->handle();
  const std::uint64_t second = other->handle();
  *buffer_ = std::move(*other);
  EXPECT_EQ(second, buffer_->handle());
  EXPECT_FALSE(driver_->buffers.contains(first));
  EXPECT_TRUE(driver_->buffers.contains(second));
}

TEST_F(BufferTest, AFreedOrReleasedBufferRefusesEverything) {
  ASSERT_TRUE(buffer_->free());
  EXPECT_EQ(Errc::invalid_argument, buffer_->free().error().code);
  EXPECT_EQ(Errc::invalid_argument, buffer_->map_cpu().error().code);
  EXPECT_EQ(Errc::invalid_argument, buffer_->map_device().error().code);
  EXPECT_EQ(Errc::invalid_argument, buffer_->export_view().error().code);
  auto kept = client_->allocate(ByteCount(page));
  ASSERT_TRUE(kept);
  const std::uint64_t handle = kept->release();
  EXPECT_EQ(Errc::invalid_argument, kept->free().error().code);
  EXPECT_TRUE(driver_->buffers.contains(handle));
}

TEST_F(BufferTest, AFailedFreeKeepsTheHandle) {
  driver_->refuse(ACCELMM_IOCTL_FREE, EAGAIN);
  EXPECT_EQ(Errc::try_again, buffer_->free().error().code);
  EXPECT_TRUE(buffer_->free());
}

TEST_F(BufferTest, ABufferKeepsTheConnectionOfItsClient) {
  client_.reset();
  EXPECT_TRUE(buffer_->map_cpu());
  buffer_.reset();
  EXPECT_EQ(1, driver_.use_count()) << "the last holder hangs up";
}

TEST_F(BufferTest, AnAllocationReplyThatLiesIsRefused) {
  // What the driver allocated is its own loss; it is dropped so that descriptors can be counted.
  const auto drop = [this](const accelmm_alloc& args) { driver_->buffers.erase(args.handle); };
  expect_refused<accelmm_alloc>(ACCELMM_IOCTL_ALLOC,
                                [&] { return client_->allocate(ByteCount(2 * page)); },
                                {{"size",
                                  [&](Reply&, accelmm_alloc& args) {
                                    drop(args);
                                    args.size = page;
                                  }},
                                 {"size 0",
                                  [&](Reply&, accelmm_alloc& args) {
                                    drop(args);
                                    args.size = 0;
                                  }},
                                 {"descriptor", [&](Reply& reply, accelmm_alloc& args) {
                                    drop(args);
                                    reply.fds.push_back(make_fd(1));
                                  }}});
}

TEST_F(BufferTest, TwoCpuMappingsOfABufferShowTheSameBytes) {
  const auto all = buffer_->map_cpu();
  const auto part = buffer_->map_cpu(pages(1, 2), Access::read);
  ASSERT_TRUE(all);
  ASSERT_TRUE(part);
  ASSERT_EQ(4 * page, all->bytes().size());
  ASSERT_EQ(2 * page, part->bytes().size());
  EXPECT_EQ(std::byte{0}, part->bytes()[5]);
  all->bytes()[page + 5] = std::byte{42};
  EXPECT_EQ(std::byte{42}, part->bytes()[5]);
  const auto args = driver_->last<accelmm_map_cpu>();
  EXPECT_EQ(page, args.offset);
  EXPECT_EQ(2 * page, args.length);
  EXPECT_EQ(static_cast<std::uint32_t>(ACCELMM_ACCESS_READ), args.access);
}

TEST_F(BufferTest, ABufferThatDoesNotBeginItsDescriptorIsMappedWhereItIs) {
  driver_->fd_offset = 3 * page;
  auto buffer = client_->allocate(ByteCount(page));
  ASSERT_TRUE(buffer);
  const auto mapping = buffer->map_cpu();
  ASSERT_TRUE(mapping);
  mapping->bytes()[1] = std::byte{7};
  std::byte stored{};
  const int fd = driver_->buffers[buffer->handle()].get();
  ASSERT_EQ(1, ::pread(fd, &stored, 1, static_cast<off_t>(3 * page + 1)));
  EXPECT_EQ(std::byte{7}, stored);
}

TEST_F(BufferTest, CpuMappingsOutliveTheirBufferAndEndOnce) {
  const std::size_t maps = test::count_maps("/memfd:");
  auto mapping = buffer_->map_cpu();
  ASSERT_TRUE(mapping);
  buffer_.reset();
  client_.reset();
  mapping->bytes()[0] = std::byte{1};
  {
    CpuMapping moved = std::move(*mapping);
    EXPECT_TRUE(mapping->bytes().empty());
    EXPECT_EQ(std::byte{1}, moved.bytes()[0]);
    EXPECT_EQ(maps + 1, test::count_maps("/memfd:"));
  }
  EXPECT_EQ(maps, test::count_maps("/memfd:"));
}

TEST_F(BufferTest, AForkedChildHasNoMappingAndUnmapsNothingOfItsOwn) {
  auto mapping = buffer_->map_cpu();
  ASSERT_TRUE(mapping);
  std::byte* const address = mapping->bytes().data();
  const pid_t child = ::fork();
  if (child == 0) {
    // The place is free in the child, and it puts something of its own there.
    void* const own = ::mmap(address, page, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    if (own != address) ::_exit(1);
    *address = std::byte{9};
    {
      const CpuMapping gone = std::move(*mapping);
    }
    unsigned char resident = 0;
    if (::mincore(address, page, &resident) != 0) ::_exit(2);  // ENOMEM: unmapped
    ::_exit(*address == std::byte{9} ? 0 : 3);
  }
  int status = 0;
  ASSERT_EQ(child, ::waitpid(child, &status, 0));
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(0, WEXITSTATUS(status));
}

TEST_F(BufferTest, ACpuMapReplyThatLiesIsRefused) {
  expect_refused<accelmm_map_cpu>(
      ACCELMM_IOCTL_MAP_CPU, [&] { return buffer_->map_cpu(); },
      {{"fd index", [](Reply&, accelmm_map_cpu& args) { args.fd = 1; }},
       {"fd index huge", [](Reply&, accelmm_map_cpu& args) { args.fd = UINT32_MAX; }},
       {"no fd", [](Reply& reply, accelmm_map_cpu&) { reply.fds.clear(); }},
       {"two fds", [](Reply& reply, accelmm_map_cpu&) { reply.fds.push_back(make_fd(1)); }},
       {"length", [](Reply&, accelmm_map_cpu& args) { args.length = page; }},
       {"fd too short", [](Reply& reply, accelmm_map_cpu&) { reply.fds[0] = make_fd(page); }},
       {"fd_offset", [](Reply&, accelmm_map_cpu& args) { args.fd_offset = page; }},
       {"fd_offset beyond", [](Reply&, accelmm_map_cpu& args) { args.fd_offset = 5 * page; }},
       {"fd_offset huge", [](Reply&, accelmm_map_cpu& args) { args.fd_offset = UINT64_MAX; }}});
}

TEST_F(BufferTest, EverySystemCallOfACpuMapMayFail) {
  const test::Census before = test::take_census();
  long calls = 0;
  {
    const test::FailingCall counter(0, 0);
    ASSERT_TRUE(buffer_->map_cpu());
    calls = counter.calls();
  }
  ASSERT_GE(calls, 3) << "fstat, mmap, madvise";
  for (long k = 1; k <= calls; ++k) {
    const test::FailingCall failing(k, EIO);
    const auto mapping = buffer_->map_cpu();
    ASSERT_FALSE(mapping) << k;
    EXPECT_EQ(Errc::io_error, mapping.error().code);
    EXPECT_EQ(before.fds, test::count_fds());
    EXPECT_EQ(before.memfd_maps, test::count_maps("/memfd:"));
  }
}

TEST_F(BufferTest, RangesAndAccessesThatAreNoneAreRefusedBeforeTheyAreSent) {
  const std::size_t sent = driver_->log.size();
  const BufferRange backwards{BufferOffset(page), BufferOffset(0)};
  const BufferRange empty{BufferOffset(page), BufferOffset(page)};
  for (const BufferRange range : {backwards, empty}) {
    EXPECT_EQ(Errc::invalid_argument, buffer_->map_cpu(range, Access::read).error().code);
    EXPECT_EQ(Errc::invalid_argument, buffer_->map_device(range, Access::read).error().code);
    EXPECT_EQ(Errc::invalid_argument, buffer_->export_view(range).error().code);
  }
  EXPECT_EQ(Errc::invalid_argument, buffer_->map_cpu(static_cast<Access>(4)).error().code);
  EXPECT_EQ(Errc::invalid_argument, buffer_->map_device(static_cast<Access>(0)).error().code);
  const BufferOptions no_domain{.domain = static_cast<Domain>(2)};
  EXPECT_EQ(Errc::invalid_argument, client_->allocate(ByteCount(1), no_domain).error().code);
  EXPECT_EQ(sent, driver_->log.size());
}

TEST_F(BufferTest, ADeviceMappingSaysWhereAndWhenAndUnmapsItself) {
  {
    const auto mapping = buffer_->map_device(pages(1, 2), Access::write,
                                             DevicePlacement::fixed(DeviceAddr(0x40000)));
    ASSERT_TRUE(mapping);
    EXPECT_EQ(DeviceAddr(0x40000), mapping->address());
    EXPECT_EQ(ByteCount(2 * page), mapping->size());
    EXPECT_EQ((Point{.timeline = TimelineKind::address_space, .value = 1}), mapping->point());
    const auto args = driver_->last<accelmm_map_device>();
    EXPECT_EQ(buffer_->handle(), args.handle);
    EXPECT_EQ(page, args.offset);
    EXPECT_EQ(2 * page, args.length);
    EXPECT_EQ(static_cast<std::uint32_t>(ACCELMM_PLACE_FIXED), args.placement);
    EXPECT_EQ(static_cast<std::uint32_t>(ACCELMM_ACCESS_WRITE), args.access);
  }
  EXPECT_EQ(0x40000u, driver_->last<accelmm_unmap_device>().address);
}

TEST_F(BufferTest, AnExplicitUnmapGivesAPointAndHappensOnce) {
  auto mapping = buffer_->map_device();
  ASSERT_TRUE(mapping);
  EXPECT_EQ(2u, mapping->unmap()->value);
  EXPECT_EQ(Errc::invalid_argument, mapping->unmap().error().code);
  auto kept = buffer_->map_device();
  ASSERT_TRUE(kept);
  const DeviceAddr where = kept->release();
  EXPECT_EQ(kept->address(), where);
  {
    const DeviceMapping gone = std::move(*kept);
  }
  EXPECT_EQ(1u, driver_->count(ACCELMM_IOCTL_UNMAP_DEVICE));
}

TEST_F(BufferTest, AHintMayEndUpElsewhereAndAFixedAddressMayNot) {
  driver_->tamper(ACCELMM_IOCTL_MAP_DEVICE,
                  [](Reply& reply) { reply.as<accelmm_map_device>().address = 0x9000; });
  const auto mapping = buffer_->map_device(Access::read, DevicePlacement::hint(DeviceAddr(0x8000)));
  ASSERT_TRUE(mapping);
  EXPECT_EQ(DeviceAddr(0x9000), mapping->address());
  driver_->refuse(ACCELMM_IOCTL_MAP_DEVICE, EADDRINUSE);
  EXPECT_EQ(
      Errc::address_in_use,
      buffer_->map_device(Access::read, DevicePlacement::fixed(DeviceAddr(0x8000))).error().code);
}

TEST_F(BufferTest, ADeviceMapReplyThatLiesIsRefused) {
  expect_refused<accelmm_map_device>(
      ACCELMM_IOCTL_MAP_DEVICE,
      [&] { return buffer_->map_device(Access::read, DevicePlacement::fixed(DeviceAddr(0x8000))); },
      {{"address", [](Reply&, accelmm_map_device& args) { args.address = 0x9000; }},
       {"address beyond", [](Reply&, accelmm_map_device& args) { args.address = UINT64_MAX; }},
       {"timeline",
        [](Reply&, accelmm_map_device& args) {
          args.point.timeline = ACCELMM_TIMELINE_PRESSURE + 1;
        }},
       {"reserved", [](Reply&, accelmm_map_device& args) { args.point.reserved = 1; }},
       {"descriptor", [](Reply& reply, accelmm_map_device&) { reply.fds.push_back(make_fd(1)); }}});
  driver_->tamper(ACCELMM_IOCTL_MAP_DEVICE, [](Reply& reply) {
    reply.as<accelmm_map_device>().address = UINT64_MAX - page + 1;
  });
  EXPECT_EQ(Errc::protocol_error, buffer_->map_device().error().code);
}

TEST_F(BufferTest, AnUnmapReplyThatLiesIsRefused) {
  auto mapping = buffer_->map_device();
  ASSERT_TRUE(mapping);
  driver_->tamper(ACCELMM_IOCTL_UNMAP_DEVICE, [](Reply& reply) {
    reply.as<accelmm_unmap_device>().point.timeline = UINT32_MAX;
  });
  EXPECT_EQ(Errc::protocol_error, mapping->unmap().error().code);
}

TEST_F(BufferTest, WaitingSendsThePointAndTheDeadline) {
  EXPECT_TRUE(client_->wait(Point{}));
  EXPECT_EQ(no_deadline, driver_->last<accelmm_wait>().deadline_ns);
  EXPECT_EQ(Errc::timed_out, client_->wait(Point::job(9), 5).error().code);
  const auto args = driver_->last<accelmm_wait>();
  EXPECT_EQ(static_cast<std::uint32_t>(ACCELMM_TIMELINE_JOBS), args.point.timeline);
  EXPECT_EQ(9u, args.point.value);
  EXPECT_EQ(5u, args.deadline_ns);
  using Clock = std::chrono::steady_clock;
  EXPECT_TRUE(client_->wait(Point{}, Clock::time_point(std::chrono::nanoseconds(77))));
  EXPECT_EQ(77u, driver_->last<accelmm_wait>().deadline_ns);
  EXPECT_TRUE(client_->wait(Point{}, Clock::time_point(std::chrono::nanoseconds(-1))));
  EXPECT_EQ(0u, driver_->last<accelmm_wait>().deadline_ns);
}

}  // namespace
}  // namespace accelmm
