// SPDX-License-Identifier: Apache-2.0
#include "bus/vfio_bus.hpp"
#include "kernel/bus/edu_machine.hpp"
#include "mm/backing/memory_window.hpp"
#include "mm/backing/sealed_memfd.hpp"

#include <algorithm>
#include <cstring>
#include <optional>
#include <vector>

#include <gtest/gtest.h>
#include <linux/capability.h>
#include <linux/udmabuf.h>
#include <linux/vfio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

/// The VFIO bus in front of a real IOMMU, and QEMU's edu device behind it, whose registers the tests
/// use without a driver.
namespace accelmm::kernel_test {
namespace {

using Extents = std::vector<Extent>;

constexpr ByteCount window_size = 64_MiB;
constexpr std::uint64_t transfer_ns = 20'000'000'000;

Extent at(ByteCount offset, ByteCount length) {
  return {RegionOffset(offset.value()), length};
}

/// A host window with one buffer of 8 MiB at its beginning.
class Memory {
 public:
  Memory()
      : window_(MemoryWindow::create(window_size, Backdrop::none)),
        memfd_(SealedMemfd::create("vfio-test", 8_MiB)) {
    EXPECT_TRUE(window_.has_value() && memfd_.has_value());
    EXPECT_TRUE(window_->place(at(0_B, 8_MiB), memfd_->fd(), 0_B, Access::read_write).has_value());
  }
  [[nodiscard]] std::byte* data(ByteCount offset = 0_B) const {
    return window_->data(RegionOffset(offset.value()));
  }
  [[nodiscard]] std::span<const std::byte> window() const {
    return {window_->data(RegionOffset(0)), window_size.value()};
  }
  [[nodiscard]] MemoryWindow& places() { return *window_; }
  [[nodiscard]] FdView fd() const { return memfd_->fd(); }

 private:
  Result<MemoryWindow> window_;
  Result<SealedMemfd> memfd_;
};

/// The device with its interrupt on, let loose on the bus.
class Edu {
 public:
  Edu() : device_(open_edu()) {
    EXPECT_TRUE(device_.has_value()) << device_.error().what;
    auto registers = (*device_)->region(0);
    auto interrupt = (*device_)->interrupt();
    EXPECT_TRUE(registers.has_value() && interrupt.has_value());
    registers_.emplace(std::move(*registers));
    interrupt_.emplace(std::move(*interrupt));
    EXPECT_TRUE((*device_)->set_bus_master(VfioDevice::BusMaster::on).has_value());
  }
  [[nodiscard]] VfioDevice& device() { return **device_; }
  [[nodiscard]] VfioRegion& registers() { return *registers_; }
  [[nodiscard]] VfioInterrupt& interrupt() { return *interrupt_; }

  /// Moves bytes between the bus and the device's buffer, and waits for the interrupt.
  void to_device(BusAddr from, std::uint32_t length) {
    transfer(from.value(), 0x40000, length, 0x1 | 0x4);
  }
  void to_memory(BusAddr to, std::uint32_t length) {
    transfer(0x40000, to.value(), length, 0x1 | 0x2 | 0x4);
  }

 private:
  void transfer(std::uint64_t from, std::uint64_t to, std::uint64_t length, std::uint64_t command) {
    EXPECT_TRUE(registers_->write64(0x80_B, from).has_value());
    EXPECT_TRUE(registers_->write64(0x88_B, to).has_value());
    EXPECT_TRUE(registers_->write64(0x90_B, length).has_value());
    EXPECT_TRUE(registers_->write64(0x98_B, command).has_value());
    EXPECT_TRUE(interrupt_->wait(sys::monotonic_ns() + transfer_ns).has_value());
    EXPECT_EQ(0x100U, registers_->read32(0x24_B).value_or(0));
    EXPECT_TRUE(registers_->write32(0x64_B, 0x100).has_value());
    EXPECT_TRUE(interrupt_->rearm().has_value());
  }

  Result<std::unique_ptr<VfioDevice>> device_;
  std::optional<VfioRegion> registers_;
  std::optional<VfioInterrupt> interrupt_;
};

Result<std::unique_ptr<Bus>> bus_of(Edu& edu, const Memory& memory) {
  return edu.device().bus_factory(28)(memory.window());
}

void fill(std::byte* bytes, std::size_t size, unsigned seed) {
  for (std::size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::byte>(seed + 31 * i + i / 251);
}

TEST(Vfio, TheDeviceIsWhatItSaysAndItsInterruptArrives) {
  Edu edu;
  EXPECT_EQ((VfioDevice::Identity{0x1234, 0x11e8}), *edu.device().identity());
  EXPECT_TRUE(edu.registers().is_mapped());
  EXPECT_EQ(1_MiB, edu.registers().size());
  EXPECT_EQ(VfioInterrupt::Kind::msi, edu.interrupt().kind());
  EXPECT_EQ(0x00edU, *edu.registers().read32(0_B) & 0xffff);
  EXPECT_EQ(Errc::timed_out, edu.interrupt().wait(sys::monotonic_ns() + 100'000'000).error().code);
  ASSERT_TRUE(edu.registers().write32(0x60_B, 0x80).has_value());
  EXPECT_TRUE(edu.interrupt().wait(sys::monotonic_ns() + transfer_ns).has_value());
  EXPECT_EQ(0x80U, *edu.registers().read32(0x24_B));
  EXPECT_TRUE(edu.registers().write32(0x64_B, 0x80).has_value());
  EXPECT_EQ(Errc::no_device, edu.device().region(1).error().code);
  EXPECT_EQ(Errc::invalid_argument, edu.registers().read32(2_B).error().code);
  EXPECT_EQ(Errc::invalid_argument, edu.registers().read32(1_MiB).error().code);
}

TEST(Vfio, TheIommuNamesItsRangesAndPages) {
  Edu edu;
  EXPECT_NE(0U, edu.device().page_sizes() & 4096);
  const auto ranges = edu.device().bus_addresses();
  ASSERT_FALSE(ranges.empty());
  for (const auto& range : ranges) {
    std::fprintf(stderr, "IOVA %#llx to %#llx\n",
                 static_cast<unsigned long long>(range.begin.value()),
                 static_cast<unsigned long long>(range.end.value()));
    EXPECT_FALSE(range.contains(BusAddr(0xfee00000)));  // where interrupts are sent to
  }
}

TEST(Vfio, AGroupThatIsInUseIsBusy) {
  Edu edu;
  EXPECT_EQ(Errc::busy, VfioDevice::open(edu_address()).error().code);
}

TEST(Vfio, ADeviceOfAKernelDriverAndNoDeviceAreRefused) {
  PciAddress nowhere = edu_address();
  nowhere.bus = 0xf0;
  EXPECT_EQ(Errc::no_device, VfioDevice::open(nowhere).error().code);
  const auto camera = PciAddress::parse(pci_device("0x1013", "0x00b8").filename().string());
  ASSERT_TRUE(camera.has_value());
  EXPECT_EQ(Errc::no_device, VfioDevice::open(*camera).error().code);
}

TEST(Vfio, BytesGoThroughTheDeviceByItsOwnDma) {
  Edu edu;
  const Memory memory;
  auto bus = bus_of(edu, memory);
  ASSERT_TRUE(bus.has_value());
  const std::int64_t pinned = pinned_pages();
  fill(memory.data(), 8192, 3);
  const auto from = (*bus)->attach(Extents{at(0_B, 8_KiB)}, Access::read);
  const auto to = (*bus)->attach(Extents{at(1_MiB, 4_KiB), at(5_MiB, 8_KiB)});
  ASSERT_TRUE(from.has_value() && to.has_value());
  EXPECT_EQ(pinned + 5, pinned_pages());
  edu.to_device((*from)[0].address + 1000_B, 4000);  // across a page
  edu.to_memory((*to)[1].address + 100_B, 4000);
  EXPECT_EQ(0, std::memcmp(memory.data() + 1000, memory.data(5_MiB) + 100, 4000));
  EXPECT_EQ(std::byte{0}, memory.data(5_MiB)[99]);
  EXPECT_EQ(std::byte{0}, memory.data(5_MiB)[4100]);
  (*bus)->detach(*from);
  (*bus)->detach(*to);
  EXPECT_EQ(pinned, pinned_pages());
}

TEST(Vfio, AfterDetachTheDevicesNextAccessReachesNothing) {
  Edu edu;
  const Memory memory;
  auto bus = bus_of(edu, memory);
  fill(memory.data(), 4096, 3);
  const auto source = (*bus)->attach(Extents{at(0_B, 4_KiB)});
  edu.to_device((*source)[0].address, 2048);
  const auto target = (*bus)->attach(Extents{at(1_MiB, 4_KiB)});
  edu.to_memory((*target)[0].address, 2048);
  ASSERT_EQ(0, std::memcmp(memory.data(), memory.data(1_MiB), 2048));
  (*bus)->detach(*target);
  std::memset(memory.data(1_MiB), 0x77, 4096);
  KernelLog log;
  edu.to_memory((*target)[0].address, 2048);  // the device says that all went well
  EXPECT_TRUE(std::all_of(memory.data(1_MiB), memory.data(1_MiB) + 4096,
                          [](std::byte byte) { return byte == std::byte{0x77}; }));
  EXPECT_TRUE(log.has("DMAR: [DMA Write", "fault addr")) << log.seen();
  (*bus)->detach(*source);
}

TEST(Vfio, AnOldAddressReachesItsNextHolderAloneAndFaultsWhereItHasNone) {
  Edu edu;
  const Memory memory;
  auto bus = bus_of(edu, memory);
  fill(memory.data(), 4096, 3);
  const auto source = (*bus)->attach(Extents{at(0_B, 4_KiB)});
  edu.to_device((*source)[0].address, 2048);
  const auto old = (*bus)->attach(Extents{at(1_MiB, 8_KiB)});
  const BusAddr address = (*old)[0].address;
  edu.to_memory(address, 64);  // so that the IOMMU has both translations at hand
  edu.to_memory(address + 4_KiB, 64);
  (*bus)->detach(*old);
  const auto next = (*bus)->attach(Extents{at(2_MiB, 4_KiB)});
  ASSERT_EQ(address, (*next)[0].address) << "free addresses are given out again at once";
  std::memset(memory.data(1_MiB), 0x77, 8192);
  std::memset(memory.data(2_MiB), 0x77, 8192);
  KernelLog log;
  edu.to_memory(address, 2048);
  EXPECT_EQ(0, std::memcmp(memory.data(), memory.data(2_MiB), 2048));
  edu.to_memory(address + 4_KiB, 2048);
  EXPECT_TRUE(log.has("DMAR: [DMA Write", "fault addr")) << log.seen();
  const auto is_untouched = [](std::byte byte) { return byte == std::byte{0x77}; };
  EXPECT_TRUE(std::all_of(memory.data(1_MiB), memory.data(1_MiB + 8_KiB), is_untouched));
  EXPECT_TRUE(std::all_of(memory.data(2_MiB + 2_KiB), memory.data(2_MiB + 8_KiB), is_untouched));
  (*bus)->detach(*next);
  (*bus)->detach(*source);
}

TEST(Vfio, ADeviceDoesNotWriteWhatWasAttachedForReading) {
  Edu edu;
  const Memory memory;
  auto bus = bus_of(edu, memory);
  std::memset(memory.data(), 0x55, 4096);
  const auto runs = (*bus)->attach(Extents{at(0_B, 4_KiB)}, Access::read);
  KernelLog log;
  edu.to_memory((*runs)[0].address, 64);
  EXPECT_EQ(std::byte{0x55}, memory.data()[0]);
  EXPECT_TRUE(log.has("DMAR: [DMA Write", "fault addr")) << log.seen();
  edu.to_device((*runs)[0].address, 64);
  (*bus)->detach(*runs);
}

TEST(Vfio, WithoutBusMasteringTheDeviceReachesNothing) {
  Edu edu;
  const Memory memory;
  auto bus = bus_of(edu, memory);
  std::memset(memory.data(), 0x55, 4096);
  const auto runs = (*bus)->attach(Extents{at(0_B, 4_KiB)});
  // An MSI is a write too: without bus mastering none comes, so the end is polled for.
  ASSERT_TRUE(edu.device().set_bus_master(VfioDevice::BusMaster::off).has_value());
  EXPECT_TRUE(edu.registers().write64(0x80_B, 0x40000).has_value());
  EXPECT_TRUE(edu.registers().write64(0x88_B, (*runs)[0].address.value()).has_value());
  EXPECT_TRUE(edu.registers().write64(0x90_B, 64).has_value());
  EXPECT_TRUE(edu.registers().write64(0x98_B, 0x1 | 0x2).has_value());
  while ((*edu.registers().read64(0x98_B) & 1) != 0) ::usleep(10'000);
  EXPECT_EQ(std::byte{0x55}, memory.data()[0]);
  (*bus)->detach(*runs);
}

TEST(Vfio, LongMemoryIsMappedAtAddressesThatTheDeviceHas) {
  Edu edu;
  const Memory memory;
  auto bus = bus_of(edu, memory);
  const auto runs = (*bus)->attach(Extents{at(0_B, 8_MiB)});
  ASSERT_TRUE(runs.has_value());
  EXPECT_LE((*runs)[0].address.value() + (8_MiB).value(), 1U << 28);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(memory.data()) % (2_MiB).value(),
            (*runs)[0].address.value() % (2_MiB).value());
  fill(memory.data(8_MiB - 64_B), 64, 9);
  edu.to_device((*runs)[0].address + (8_MiB - 64_B), 64);
  edu.to_memory((*runs)[0].address, 64);
  EXPECT_EQ(0, std::memcmp(memory.data(), memory.data(8_MiB - 64_B), 64));
  (*bus)->detach(*runs);
}

/// The raw errno of mapping memory for the device.
int map_errno(const std::byte* memory, std::uint64_t size) {
  const auto folder = pci_device("0x1234", "0x11e8");
  const auto group_name = std::filesystem::read_symlink(folder / "iommu_group").filename();
  const UniqueFd container = opened("/dev/vfio/vfio");
  const UniqueFd group = opened("/dev/vfio/" + group_name.string());
  int number = container.get();
  EXPECT_EQ(0, ::ioctl(group.get(), VFIO_GROUP_SET_CONTAINER, &number));
  EXPECT_EQ(0, ::ioctl(container.get(), VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU));
  vfio_iommu_type1_dma_map args{};
  args.argsz = sizeof args;
  args.flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE;
  args.vaddr = reinterpret_cast<std::uintptr_t>(memory);
  args.iova = 1 << 20;
  args.size = size;
  return ::ioctl(container.get(), VFIO_IOMMU_MAP_DMA, &args) == 0 ? 0 : errno;
}

TEST(Vfio, TheMappingOfADmabufIsNotPinnedWhileThatOfItsMemfdIs) {
  const Memory memory;
  ASSERT_EQ(0, ::fcntl(memory.fd().get(), F_ADD_SEALS, F_SEAL_SHRINK));
  const UniqueFd node = opened("/dev/udmabuf");
  udmabuf_create request{};
  request.memfd = static_cast<std::uint32_t>(memory.fd().get());
  request.flags = UDMABUF_FLAGS_CLOEXEC;
  request.size = 8192;
  const UniqueFd dmabuf(::ioctl(node.get(), UDMABUF_CREATE, &request));
  ASSERT_TRUE(dmabuf.valid());
  auto* const seen = static_cast<std::byte*>(
      ::mmap(nullptr, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, dmabuf.get(), 0));
  ASSERT_NE(MAP_FAILED, static_cast<void*>(seen));
  EXPECT_EQ(EFAULT, map_errno(seen, 8192));
  EXPECT_EQ(0, map_errno(memory.data(), 8192));
  Edu edu;
  auto bus = edu.device().bus_factory(28)(std::span(seen, 8192));
  EXPECT_EQ(Errc::not_supported, (*bus)->attach(Extents{at(0_B, 8_KiB)}).error().code);
  bus->reset();
  EXPECT_EQ(0, ::munmap(seen, 8192));
}

void drop_ipc_lock() {
  __user_cap_header_struct header{};
  header.version = _LINUX_CAPABILITY_VERSION_3;
  __user_cap_data_struct data[2]{};
  ASSERT_EQ(0, ::syscall(SYS_capget, &header, data));
  data[0].effective &= ~(1U << CAP_IPC_LOCK);
  ASSERT_EQ(0, ::syscall(SYS_capset, &header, data));
}

/// Runs a test's body in a process of its own, whose limits are its own.
template <class Body>
void in_child(Body body) {
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    body();
    ::_exit(testing::Test::HasFailure() ? 1 : 0);
  }
  int status = -1;
  ASSERT_EQ(child, ::waitpid(child, &status, 0));
  EXPECT_EQ(0, status);
}

TEST(Vfio, PinnedMemoryCountsAgainstTheLimitOfLockedMemory) {
  in_child([] {
    Edu edu;
    const Memory memory;
    auto bus = bus_of(edu, memory);
    drop_ipc_lock();
    const rlimit limit{64 << 10, 64 << 10};
    ASSERT_EQ(0, ::setrlimit(RLIMIT_MEMLOCK, &limit));
    const auto first = (*bus)->attach(Extents{at(0_B, 32_KiB)});
    ASSERT_TRUE(first.has_value());
    const auto locked = system_vfio_kernel().locked_memory();
    EXPECT_EQ(32_KiB, locked->locked);
    EXPECT_EQ(64_KiB, locked->limit);
    EXPECT_FALSE(locked->unlimited);
    const auto refused = (*bus)->attach(Extents{at(1_MiB, 4_KiB), at(2_MiB, 32_KiB)});
    EXPECT_EQ(Errc::over_quota, refused.error().code);
    EXPECT_EQ(32_KiB, system_vfio_kernel().locked_memory()->locked);  // not a page more
    const auto again = (*bus)->attach(Extents{at(0_B, 32_KiB)});      // is pinned already
    EXPECT_TRUE(again.has_value());
    const auto second = (*bus)->attach(Extents{at(1_MiB, 32_KiB)});
    EXPECT_TRUE(second.has_value());
    for (const auto& runs : {first, again, second}) (*bus)->detach(*runs);
    EXPECT_EQ(0_B, system_vfio_kernel().locked_memory()->locked);
  });
}

TEST(Vfio, AKilledProcessLeavesNothingMappedAndNothingPinned) {
  const std::int64_t pinned = pinned_pages();
  const Memory memory;  // shared with the child, by its file
  int ends[2];
  ASSERT_EQ(0, ::pipe(ends));
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    Edu edu;
    // The window is left out of forked children: it is placed anew.
    auto window = MemoryWindow::create(window_size, Backdrop::none);
    (void)window->place(at(0_B, 8_MiB), memory.fd(), 0_B, Access::read_write);
    auto bus = edu.device().bus_factory(28)({window->data(RegionOffset(0)), window_size.value()});
    const auto runs = (*bus)->attach(Extents{at(0_B, 8_MiB)});
    const std::uint64_t address = runs ? runs->front().address.value() : 0;
    (void)!::write(ends[1], &address, sizeof address);
    ::pause();
  }
  std::uint64_t address = 0;
  ASSERT_EQ(static_cast<ssize_t>(sizeof address), ::read(ends[0], &address, sizeof address));
  ASSERT_NE(0U, address);
  EXPECT_EQ(pinned + 2048, pinned_pages());
  ASSERT_EQ(0, ::kill(child, SIGKILL));
  ASSERT_EQ(child, ::waitpid(child, nullptr, 0));
  ::close(ends[0]);
  ::close(ends[1]);
  Edu edu;
  std::memset(memory.data(), 0x66, 4096);
  EXPECT_EQ(pinned, pinned_pages());
  edu.to_memory(BusAddr(address), 64);
  EXPECT_EQ(std::byte{0x66}, memory.data()[0]);
}

}  // namespace
}  // namespace accelmm::kernel_test
