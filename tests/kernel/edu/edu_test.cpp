// SPDX-License-Identifier: Apache-2.0
#include "devices/edu/edu_driver.hpp"
#include "kernel/bus/edu_machine.hpp"
#include "kernel/sharing/physical_memory.hpp"
#include "support/temporary_folder.hpp"

#include <accelmm/client.hpp>
#include <accelmm/runtime.hpp>
#include <accelmm/sim/edu_uapi.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>

/// The driver of the edu device in a driver process, with applications beside it: real DMA, real
/// interrupts.
namespace accelmm::kernel_test {
namespace {

/// A driver process with the edu device, until it is killed.
class DriverProcess {
 public:
  DriverProcess() {
    std::string path = testing::TempDir() + "edu-XXXXXX";
    EXPECT_NE(nullptr, ::mkdtemp(path.data()));
    directory_ = path;
    int ends[2];
    EXPECT_EQ(0, ::pipe(ends));
    child_ = ::fork();
    if (child_ == 0) serve(ends[1]);
    ::close(ends[1]);
    char ready = 0;
    EXPECT_EQ(1, ::read(ends[0], &ready, 1)) << "the driver process did not come up";
    ::close(ends[0]);
  }
  DriverProcess(const DriverProcess&) = delete;
  DriverProcess& operator=(const DriverProcess&) = delete;
  ~DriverProcess() {
    kill_it();
    std::filesystem::remove_all(directory_);
  }
  void kill_it() {
    if (child_ <= 0) return;
    EXPECT_EQ(0, ::kill(child_, SIGKILL));
    EXPECT_EQ(child_, ::waitpid(child_, nullptr, 0));
    child_ = -1;
  }
  [[nodiscard]] pid_t pid() const { return child_; }
  [[nodiscard]] Client connect() const {
    auto client = Client::connect(0, NodeKind::compute, directory_);
    EXPECT_TRUE(client.has_value()) << client.error().what;
    return std::move(*client);
  }

 private:
  [[noreturn]] void serve(int ready) const {
    const auto fail_with = [](const char* what) {
      std::fprintf(stderr, "driver process: %s\n", what);
      ::_exit(1);
    };
    auto device = open_edu();
    if (!device) fail_with(device.error().what);
    const DeviceDescription description = edu::edu_description(**device, {});
    auto driver = edu::make_edu_driver(std::move(*device), {});
    auto runtime = Runtime::create({.directory = directory_, .host_window = 1_GiB});
    if (!runtime) fail_with(runtime.error().what);
    const auto number = (*runtime)->register_device(description, std::move(*driver));
    if (!number) fail_with(number.error().what);
    (void)!::write(ready, "r", 1);
    (*runtime)->run();
    ::_exit(0);
  }

  std::string directory_;
  pid_t child_ = -1;
};

Result<std::uint64_t> submit(const Client& client, std::uint32_t command, std::uint64_t address,
                             std::uint32_t offset, std::uint32_t length) {
  accelmm_edu_copy args{};
  args.address = address;
  args.offset = offset;
  args.length = length;
  if (auto sent = client.ioctl(command, args); !sent) return fail(sent.error());
  return args.point.value;
}
Result<void> copy(const Client& client, std::uint32_t command, std::uint64_t address,
                  std::uint32_t offset, std::uint32_t length) {
  const auto point = submit(client, command, address, offset, length);
  if (!point) return fail(point.error());
  return client.wait(Point::job(*point));
}

void fill(std::span<std::byte> bytes, unsigned seed) {
  for (std::size_t i = 0; i < bytes.size(); ++i)
    bytes[i] = static_cast<std::byte>(seed + 31 * i + i / 251);
}

TEST(Edu, BytesOfAnApplicationGoThroughTheDeviceAndBack) {
  const std::int64_t pinned = pinned_pages();
  {
    const DriverProcess driver;
    const Client client = driver.connect();
    const auto from = client.allocate(64_KiB);
    const auto to = client.allocate(64_KiB);
    const auto from_bytes = from->map_cpu();
    const auto to_bytes = to->map_cpu();
    fill(from_bytes->bytes(), 7);
    const auto from_there = from->map_device(Access::read);
    const auto to_there = to->map_device();
    ASSERT_TRUE(from_there.has_value() && to_there.has_value());
    EXPECT_EQ(pinned + 32, pinned_pages());
    // Four strips, each through the device and to another place.
    for (std::uint32_t strip = 0; strip < 4; ++strip) {
      const std::uint64_t source = from_there->address().value() + 9000 * strip + 5;
      const std::uint64_t target = to_there->address().value() + 9000 * (3 - strip) + 1;
      ASSERT_TRUE(copy(client, ACCELMM_IOCTL_EDU_COPY_IN, source, 3, 4000).has_value());
      ASSERT_TRUE(copy(client, ACCELMM_IOCTL_EDU_COPY_OUT, target, 3, 4000).has_value());
      EXPECT_EQ(0, std::memcmp(from_bytes->bytes().data() + 9000 * strip + 5,
                               to_bytes->bytes().data() + 9000 * (3 - strip) + 1, 4000));
    }
    EXPECT_EQ(std::byte{0}, to_bytes->bytes()[0]);
    EXPECT_EQ(std::byte{0}, to_bytes->bytes()[4001]);
    const auto told = client.driver_info(0);
    accelmm_info_edu info{};
    std::memcpy(&info, told->data(), sizeof info);
    EXPECT_EQ(8U, info.transfers);
    EXPECT_EQ(8U, info.interrupts);
    EXPECT_EQ(0U, info.timeouts);
  }
  EXPECT_EQ(pinned, pinned_pages());
}

// At the device's hop too: what it reads and writes are the page frames that the application has.
TEST(Edu, ReadsAndWritesThePageFramesOfTheApplicationsMapping) {
  const PhysicalMemory memory;
  const DriverProcess driver;
  const Client client = driver.connect();
  const auto buffer = client.allocate(8_KiB);
  const auto bytes = buffer->map_cpu();
  fill(bytes->bytes(), 3);
  const auto frames_of = [&](pid_t process, const void* at) {
    return frames_at(process, reinterpret_cast<std::uint64_t>(at), 8_KiB);
  };
  const Frames frames = frames_of(::getpid(), bytes->bytes().data());
  ASSERT_TRUE(are_all_there(frames));
  const FileId memfd = file_at(bytes->bytes().data());

  const auto there = buffer->map_device();
  const std::uint64_t address = there->address().value();
  const Area window = area_of_file(driver.pid(), memfd);
  ASSERT_NE(0U, window.begin) << "the driver process does not have " << memfd;
  EXPECT_EQ(frames, frames_at(driver.pid(), window.begin, 8_KiB)) << "what it had pinned";

  ASSERT_TRUE(copy(client, ACCELMM_IOCTL_EDU_COPY_IN, address + 100, 0, 3000).has_value());
  ASSERT_TRUE(copy(client, ACCELMM_IOCTL_EDU_COPY_OUT, address + 4096 + 7, 0, 3000).has_value());
  const std::vector<std::byte> seen = memory.read(frames);
  EXPECT_EQ(0, std::memcmp(seen.data() + 100, seen.data() + 4096 + 7, 3000));
  EXPECT_TRUE(std::ranges::equal(seen, bytes->bytes()));
  EXPECT_EQ(frames, frames_of(::getpid(), bytes->bytes().data())) << "pages were moved";
}

/// A child that does nothing but share what fork() shares, while this lives.
class HeldChild {
 public:
  HeldChild() : child_(::fork()) {
    while (child_ == 0) ::pause();
    EXPECT_GT(child_, 0);
  }
  HeldChild(const HeldChild&) = delete;
  HeldChild& operator=(const HeldChild&) = delete;
  ~HeldChild() {
    EXPECT_EQ(0, ::kill(child_, SIGKILL));
    EXPECT_EQ(child_, ::waitpid(child_, nullptr, 0));
  }

 private:
  pid_t child_;
};

/// A driver process that is this one.
std::unique_ptr<Runtime> embedded(const std::string& directory) {
  auto device = open_edu();
  EXPECT_TRUE(device.has_value()) << device.error().what;
  const DeviceDescription description = edu::edu_description(**device, {});
  auto driver = edu::make_edu_driver(std::move(*device), {});
  auto runtime = Runtime::create({.directory = directory, .host_window = 1_GiB});
  EXPECT_TRUE(runtime.has_value()) << runtime.error().what;
  EXPECT_TRUE((*runtime)->register_device(description, std::move(*driver)).has_value());
  return std::move(*runtime);
}

TEST(Edu, ReachesMemoryOfAnEmbeddingProcessWhereItLies) {
  const PhysicalMemory physical;
  const test::TemporaryFolder folder;
  const std::int64_t pinned = pinned_pages();
  void* const at =
      ::mmap(nullptr, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(MAP_FAILED, at);
  const std::span memory(static_cast<std::byte*>(at), 8192);
  fill(memory, 9);
  const Frames frames = frames_at(::getpid(), reinterpret_cast<std::uint64_t>(at), 8_KiB);
  ASSERT_TRUE(are_all_there(frames));
  {
    const auto runtime = embedded(folder.path());
    const auto client = Client::connect(*runtime->connect(0, NodeKind::compute));
    auto there = client->map_in_place(memory);
    ASSERT_TRUE(there.has_value()) << there.error().what;
    EXPECT_EQ(pinned + 2, pinned_pages());
    const std::uint64_t address = there->address().value();
    ASSERT_TRUE(copy(*client, ACCELMM_IOCTL_EDU_COPY_IN, address + 64, 0, 4000).has_value());
    ASSERT_TRUE(copy(*client, ACCELMM_IOCTL_EDU_COPY_OUT, address + 4096, 0, 4000).has_value());
    EXPECT_EQ(0, std::memcmp(memory.data() + 64, memory.data() + 4096, 4000));
    EXPECT_EQ(frames, frames_at(::getpid(), reinterpret_cast<std::uint64_t>(at), 8_KiB));
    EXPECT_TRUE(std::ranges::equal(memory, physical.read(frames)));
    {
      // What is written with a child alive is seen by the device: the child has copies.
      const HeldChild child;
      fill(memory, 10);
      ASSERT_TRUE(copy(*client, ACCELMM_IOCTL_EDU_COPY_IN, address + 64, 0, 4000).has_value());
      ASSERT_TRUE(copy(*client, ACCELMM_IOCTL_EDU_COPY_OUT, address + 4096, 0, 4000).has_value());
      EXPECT_EQ(0, std::memcmp(memory.data() + 64, memory.data() + 4096, 4000));
      EXPECT_EQ(frames, frames_at(::getpid(), reinterpret_cast<std::uint64_t>(at), 8_KiB));
    }

    ASSERT_TRUE(there->unmap().has_value());
    EXPECT_EQ(pinned, pinned_pages());
    EXPECT_EQ(Errc::fault, copy(*client, ACCELMM_IOCTL_EDU_COPY_OUT, address, 0, 8).error().code);
    (void)client->map_in_place(memory)->release();

    // What is not to be written, or is not there.
    ASSERT_EQ(0, ::mprotect(at, 4096, PROT_READ));
    EXPECT_EQ(Errc::not_supported, client->map_in_place(memory.first(4096)).error().code);
    EXPECT_TRUE(client->map_in_place(memory.first(4096), Access::read).has_value());
    ASSERT_EQ(0, ::munmap(at, 4096));
    EXPECT_EQ(Errc::not_supported, client->map_in_place(memory).error().code);
  }
  EXPECT_EQ(pinned, pinned_pages());
  ::munmap(memory.data() + 4096, 4096);
}

TEST(Edu, WhatASessionUnmappedFaultsAndItsEndUnpinsEverything) {
  const DriverProcess driver;
  const std::int64_t pinned = pinned_pages();
  {
    const Client client = driver.connect();
    const auto buffer = client.allocate(8_KiB);
    auto there = buffer->map_device();
    const std::uint64_t address = there->address().value();
    EXPECT_TRUE(copy(client, ACCELMM_IOCTL_EDU_COPY_OUT, address + 4096, 0, 4000).has_value());
    ASSERT_TRUE(there->unmap().has_value());
    EXPECT_EQ(pinned, pinned_pages());
    EXPECT_EQ(Errc::fault, copy(client, ACCELMM_IOCTL_EDU_COPY_OUT, address, 0, 8).error().code);
    EXPECT_EQ(address, client.last_fault()->address);
    (void)buffer->map_device()->release();
    EXPECT_EQ(pinned + 2, pinned_pages());
  }
  const Client next = driver.connect();  // once the session before has ended
  EXPECT_EQ(pinned, pinned_pages());
}

TEST(Edu, AnOldAddressReachesOnlyWhatItsSessionMapsThereNow) {
  const DriverProcess driver;
  const Client client = driver.connect();
  const auto former = client.allocate(8_KiB);
  const auto next = client.allocate(4_KiB);
  const auto former_bytes = former->map_cpu();
  const auto next_bytes = next->map_cpu();
  fill(former_bytes->bytes(), 5);
  fill(next_bytes->bytes(), 99);
  auto there = former->map_device();
  const std::uint64_t address = there->address().value();
  ASSERT_TRUE(copy(client, ACCELMM_IOCTL_EDU_COPY_IN, address, 0, 4000).has_value());
  std::vector<std::byte> copied(former_bytes->bytes().begin(),
                                former_bytes->bytes().begin() + 4000);
  ASSERT_TRUE(there->unmap().has_value());
  std::memset(former_bytes->bytes().data(), 0x11, 8192);
  const auto mapped = next->map_device();
  ASSERT_EQ(address, mapped->address().value()) << "free addresses are given out again at once";
  ASSERT_TRUE(copy(client, ACCELMM_IOCTL_EDU_COPY_OUT, address, 0, 4000).has_value());
  EXPECT_EQ(0, std::memcmp(copied.data(), next_bytes->bytes().data(), 4000));
  EXPECT_EQ(Errc::fault,
            copy(client, ACCELMM_IOCTL_EDU_COPY_OUT, address + 4096, 0, 64).error().code);
  EXPECT_EQ(address + 4096, client.last_fault()->address);
  EXPECT_TRUE(std::ranges::all_of(former_bytes->bytes(),
                                  [](std::byte byte) { return byte == std::byte{0x11}; }));
}

TEST(Edu, AnAddressOfASessionThatEndedReachesNothingInTheNextOne) {
  const DriverProcess driver;
  std::uint64_t address = 0;
  {
    const Client first = driver.connect();
    const auto buffer = first.allocate(8_KiB);
    const auto there = buffer->map_device();
    address = there->address().value();
    ASSERT_TRUE(copy(first, ACCELMM_IOCTL_EDU_COPY_OUT, address + 4096, 0, 64).has_value());
  }
  const Client second = driver.connect();
  const auto buffer = second.allocate(4_KiB);
  const auto bytes = buffer->map_cpu();
  std::memset(bytes->bytes().data(), 0x22, 4096);
  EXPECT_EQ(Errc::fault, copy(second, ACCELMM_IOCTL_EDU_COPY_OUT, address, 0, 64).error().code);
  const auto mapped = buffer->map_device();  // of one page, where the other session had two
  ASSERT_EQ(address, mapped->address().value());
  EXPECT_EQ(Errc::fault,
            copy(second, ACCELMM_IOCTL_EDU_COPY_OUT, address + 4000, 0, 200).error().code);
  EXPECT_EQ(Errc::fault,
            copy(second, ACCELMM_IOCTL_EDU_COPY_IN, address + 4096, 0, 64).error().code);
  EXPECT_TRUE(
      std::ranges::all_of(bytes->bytes(), [](std::byte byte) { return byte == std::byte{0x22}; }));
}

TEST(Edu, AKilledDriverProcessLeavesNothingMappedAndTheNextOneStarts) {
  const std::int64_t pinned = pinned_pages();
  DriverProcess first;
  const Client client = first.connect();
  const auto buffer = client.allocate(1_MiB);
  const auto bytes = buffer->map_cpu();
  const auto there = buffer->map_device();
  const std::uint64_t address = there->address().value();
  fill(bytes->bytes(), 1);
  ASSERT_TRUE(copy(client, ACCELMM_IOCTL_EDU_COPY_IN, address, 0, 4000).has_value());
  std::memset(bytes->bytes().data(), 0x11, bytes->bytes().size());
  ASSERT_TRUE(submit(client, ACCELMM_IOCTL_EDU_COPY_OUT, address, 0, 4000).has_value());
  first.kill_it();  // in the middle of the transfer
  EXPECT_EQ(Errc::no_device,
            submit(client, ACCELMM_IOCTL_EDU_COPY_OUT, address, 0, 8).error().code);
  {
    const DriverProcess second;  // which takes the device only once the kernel has let go of it
    EXPECT_EQ(pinned, pinned_pages());
    const Client other = second.connect();
    const auto its = other.allocate(4_KiB);
    const auto its_bytes = its->map_cpu();
    const auto mapped = its->map_device();
    std::memset(its_bytes->bytes().data(), 0x22, 4096);
    ASSERT_TRUE(
        copy(other, ACCELMM_IOCTL_EDU_COPY_IN, mapped->address().value(), 0, 64).has_value());
    ASSERT_TRUE(copy(other, ACCELMM_IOCTL_EDU_COPY_OUT, mapped->address().value() + 100, 0, 64)
                    .has_value());
  }
  // The transfer came to its end or did not; nothing of the second process reached the buffer.
  const auto is_old = [](std::byte byte) { return byte == std::byte{0x11}; };
  EXPECT_TRUE(std::all_of(bytes->bytes().begin() + 4096, bytes->bytes().end(), is_old));
}

}  // namespace
}  // namespace accelmm::kernel_test
