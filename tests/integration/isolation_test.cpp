// SPDX-License-Identifier: Apache-2.0
//
// Who once had a buffer keeps its mapping and its descriptor, and reaches nothing with them but the
// memory of that buffer.
#include "support/driver_process.hpp"
#include "support/npu_host.hpp"
#include "support/session_calls.hpp"
#include "support/temporary_folder.hpp"
#include "support/witness.hpp"

#include <accelmm/client.hpp>

#include <algorithm>
#include <cstddef>
#include <span>
#include <string>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>

namespace accelmm {
namespace {

using test::ApplicationProcess;
using test::DriverProcess;
using test::value;
using test::Witness;

constexpr ByteCount size{std::uint64_t{64} << 10};
constexpr std::byte own{0x11};      // what the former owner wrote first
constexpr std::byte meddled{0x22};  // what it writes when it is no owner any more
constexpr std::byte theirs{0x33};   // what the next owner writes

bool all_are(std::span<const std::byte> bytes, std::byte value) {
  return std::ranges::all_of(bytes, [value](std::byte byte) { return byte == value; });
}

// Asks for the descriptor of a whole buffer, as the client library does for its mappings.
Result<UniqueFd> fd_of(const Client& client, const Buffer& buffer, Access access) {
  accelmm_map_cpu args{};
  args.handle = buffer.handle();
  args.length = buffer.size().value();
  args.access = static_cast<std::uint32_t>(access);
  std::vector<UniqueFd> fds;
  if (const auto mapped = client.ioctl(ACCELMM_IOCTL_MAP_CPU, args, {}, &fds); !mapped)
    return fail(mapped.error());
  return std::move(fds.at(args.fd));
}

int errno_of(bool succeeded) {
  return succeeded ? 0 : errno;
}

// mmap(2) of a descriptor from its beginning; MAP_FAILED as it says.
void* map(const UniqueFd& fd, std::size_t length, int prot, off_t offset = 0) {
  return ::mmap(nullptr, length, prot, MAP_SHARED, fd.get(), offset);
}

UniqueFd reopen(const UniqueFd& fd, int flags) {
  return UniqueFd(::open(("/proc/self/fd/" + std::to_string(fd.get())).c_str(), flags | O_CLOEXEC));
}

class Isolation : public testing::Test {
 protected:
  static sim::NpuOptions shared_npu() {
    sim::NpuOptions npu = test::DriverProcessOptions{}.npu;
    npu.compute_sessions = ComputeSessions::many;
    return npu;
  }
  void TearDown() override { EXPECT_TRUE(driver_.end().succeeded()); }

  [[nodiscard]] Client connect() const {
    return value(Client::connect(0, NodeKind::compute, folder_.path()));
  }

  // One owner after the other takes all there is of one kind of memory, so that the second one has
  // the places of the first; `between` ends the first one's ownership.
  void pass_on(BufferOptions options, const std::function<void(Buffer&, Client&)>& between);

  test::TemporaryFolder folder_;
  DriverProcess driver_{folder_.path(), {.npu = shared_npu()}};
  Witness witness_{driver_, folder_.path()};
};

void Isolation::pass_on(BufferOptions options,
                        const std::function<void(Buffer&, Client&)>& between) {
  Client first = connect();
  const auto facts = value(first.device_info());
  const ByteCount all(options.domain == Domain::device ? facts.memory_size
                                                       : facts.host_window_size);
  Buffer old = value(first.allocate(all, options));
  const UniqueFd kept_fd = value(fd_of(first, old, Access::read_write));
  const auto kept =
      value(old.map_cpu({BufferOffset(0), BufferOffset(size.value())}, Access::read_write));
  std::ranges::fill(kept.bytes(), own);
  between(old, first);

  // The next owner has every byte of the region: the places of the former one among them.
  const Client second = connect();
  const Buffer whole = value(second.allocate(all, options));
  const BufferRange front{BufferOffset(0), BufferOffset(size.value())};
  const auto cpu = value(whole.map_cpu(front, Access::read_write));
  EXPECT_TRUE(all_are(cpu.bytes(), std::byte{0})) << "the next owner finds zeroes";
  const auto target = value(whole.map_device(front, Access::read_write));
  const BufferRange behind{front.end, BufferOffset(2 * size.value())};
  const auto source_cpu = value(whole.map_cpu(behind, Access::read_write));
  const auto source = value(whole.map_device(behind, Access::read_write));
  std::ranges::fill(source_cpu.bytes(), theirs);
  std::ranges::fill(cpu.bytes().first(size.value() / 2), theirs);
  EXPECT_TRUE(all_are(kept.bytes(), own)) << "the former owner sees no write of a CPU";
  ASSERT_TRUE(test::copy_and_wait(second, source.address(), target.address(), size));
  EXPECT_TRUE(all_are(cpu.bytes(), theirs));
  EXPECT_TRUE(all_are(kept.bytes(), own)) << "the former owner sees no write of a device";

  std::ranges::fill(kept.bytes(), meddled);
  void* const anew = map(kept_fd, size.value(), PROT_READ | PROT_WRITE);
  ASSERT_NE(MAP_FAILED, anew);
  const std::span remapped(static_cast<std::byte*>(anew), size.value());
  EXPECT_TRUE(all_are(remapped, meddled)) << "the descriptor is still the old memory's";
  EXPECT_TRUE(all_are(cpu.bytes(), theirs)) << "no CPU sees what a former owner writes";
  std::ranges::fill(source_cpu.bytes(), std::byte{0});
  ASSERT_TRUE(test::copy_and_wait(second, target.address(), source.address(), size));
  EXPECT_TRUE(all_are(source_cpu.bytes(), theirs)) << "no device sees it";
  ::munmap(anew, size.value());
}

TEST_F(Isolation, AFormerOwnerOfAHostBufferReachesNothingAfterFree) {
  pass_on({}, [](Buffer& buffer, Client&) { ASSERT_TRUE(buffer.free()); });
  EXPECT_TRUE(witness_.everything_was_given_back());
}

TEST_F(Isolation, AFormerOwnerOfDeviceMemoryReachesNothingAfterFree) {
  pass_on({.domain = Domain::device, .layout = Layout::contiguous, .cpu = CpuVisibility::visible},
          [](Buffer& buffer, Client&) { ASSERT_TRUE(buffer.free()); });
  EXPECT_TRUE(witness_.everything_was_given_back());
}

TEST_F(Isolation, AFormerOwnerReachesNothingAfterItsSession) {
  for (const Domain domain : {Domain::host, Domain::device})
    pass_on({.domain = domain,
             .layout = Layout::contiguous,
             .cpu = domain == Domain::host ? CpuVisibility::by_domain : CpuVisibility::visible},
            [this](Buffer& buffer, Client& client) {
              static_cast<void>(buffer.release());
              {
                const Client ended = std::move(client);
              }
              ASSERT_TRUE(witness_.everything_was_given_back());
            });
}

TEST_F(Isolation, ADescriptorReachesItsBufferAndNothingElse) {
  const Client client = connect();
  const Buffer neighbour = value(client.allocate(size));
  const Buffer buffer = value(client.allocate(size));
  const Buffer behind = value(client.allocate(size));
  const UniqueFd fd = value(fd_of(client, buffer, Access::read_write));
  const UniqueFd again = reopen(fd, O_RDWR);
  ASSERT_TRUE(again.valid());
  struct stat first{};
  struct stat second{};
  ASSERT_EQ(0, ::fstat(fd.get(), &first));
  ASSERT_EQ(0, ::fstat(again.get(), &second));
  EXPECT_EQ(static_cast<off_t>(size.value()), first.st_size);
  EXPECT_TRUE(first.st_dev == second.st_dev && first.st_ino == second.st_ino);

  for (const UniqueFd* each : {&fd, &again}) {
    EXPECT_EQ(EPERM, errno_of(::ftruncate(each->get(), 0) == 0));
    EXPECT_EQ(EPERM, errno_of(::ftruncate(each->get(), first.st_size + 4096) == 0));
    EXPECT_EQ(EPERM, errno_of(::fallocate(each->get(), 0, first.st_size, 4096) == 0));
    EXPECT_EQ(EPERM, errno_of(::fcntl(each->get(), F_ADD_SEALS, F_SEAL_WRITE) == 0));
    EXPECT_EQ(EPERM, errno_of(::pwrite(each->get(), "x", 1, first.st_size) == 1));
  }
  // What the driver's own window has behind the buffer is not behind it in a mapping.
  for (const UniqueFd* each : {&fd, &again}) {
    ApplicationProcess child([&] {
      const rlimit no_core{0, 0};
      ::setrlimit(RLIMIT_CORE, &no_core);
      ::signal(SIGBUS, SIG_DFL);  // a sanitizer may have its own
      void* const longer = map(*each, 2 * size.value(), PROT_READ | PROT_WRITE);
      if (longer == MAP_FAILED) ::raise(SIGBUS);
      *static_cast<volatile char*>(
          static_cast<void*>(static_cast<std::byte*>(longer) + size.value())) = 1;
    });
    EXPECT_TRUE(child.wait().signalled(SIGBUS));
  }
  EXPECT_TRUE(client.usage()) << "nobody else is harmed";
}

TEST_F(Isolation, AReadOnlyBufferCannotBeWrittenFromOutside) {
  const Client client = connect();
  for (const Domain domain : {Domain::host, Domain::device}) {
    const Buffer buffer =
        value(client.allocate(size, {.domain = domain, .cpu = CpuVisibility::read_only}));
    EXPECT_EQ(Errc::not_permitted, test::code(buffer.map_cpu(Access::read_write)));
    EXPECT_EQ(Errc::not_permitted, test::code(fd_of(client, buffer, Access::write)));
    const UniqueFd fd = value(fd_of(client, buffer, Access::read));
    const UniqueFd again = reopen(fd, O_RDWR);
    const auto view = value(buffer.export_view());
    const UniqueFd exported = value(duplicate(view.pieces.front().fd.view()));
    for (const UniqueFd* each : {&fd, &again, &exported}) {
      if (!each->valid()) continue;  // not even opened for writing
      EXPECT_EQ(MAP_FAILED, map(*each, size.value(), PROT_READ | PROT_WRITE));
      EXPECT_EQ(EPERM, errno_of(::pwrite(each->get(), "x", 1, 0) == 1));
      EXPECT_EQ(EPERM, errno_of(::fallocate(each->get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                            0, 4096) == 0));
      void* const readable = map(*each, size.value(), PROT_READ);
      ASSERT_NE(MAP_FAILED, readable);
      EXPECT_EQ(EACCES, errno_of(::mprotect(readable, size.value(), PROT_READ | PROT_WRITE) == 0));
      ::munmap(readable, size.value());
    }
    // The device may write it, and those outside see that.
    const auto source = value(client.allocate(size));
    std::ranges::fill(value(source.map_cpu()).bytes(), theirs);
    const auto from = value(source.map_device());
    const auto to = value(buffer.map_device());
    ASSERT_TRUE(test::copy_and_wait(client, from.address(), to.address(), size));
    EXPECT_TRUE(all_are(value(buffer.map_cpu(Access::read)).bytes(), theirs));
  }
}

TEST_F(Isolation, EveryDescriptorIsCloseOnExec) {
  const test::Holdings before = test::take_holdings(::getpid());
  test::BusySession session([this]() -> Result<Client> { return connect(); });
  session.begin();
  for (const auto& call : test::session_calls()) {
    call.before(session);
    ASSERT_TRUE(call.make(session)) << call.name;
  }
  const test::Holdings application = test::take_holdings(::getpid());
  const test::Holdings driver = driver_.holdings();
  EXPECT_GT(application.fds, before.fds);
  EXPECT_EQ(before.inheritable_fds, application.inheritable_fds);
  EXPECT_GT(driver.memfds, 0U);
  EXPECT_EQ(0U, driver.inheritable_fds);
}

}  // namespace
}  // namespace accelmm
