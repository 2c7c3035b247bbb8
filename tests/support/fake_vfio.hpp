// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/system.hpp"
#include "bus/vfio_kernel.hpp"

#include <accelmm/fault_injection.hpp>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <map>
#include <mutex>
#include <new>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <linux/pci_regs.h>
#include <linux/vfio.h>
#include <sys/mman.h>
#include <unistd.h>

namespace accelmm::test {

/// The hardware behind a FakeVfio: what happens at its registers.
class FakeHardware {
 public:
  virtual ~FakeHardware() = default;
  virtual std::uint64_t read(std::uint64_t offset, std::size_t width) = 0;
  virtual void write(std::uint64_t offset, std::size_t width, std::uint64_t value) = 0;
};

/// The kernel's VFIO over one PCI device, with an IOMMU that keeps which addresses are mapped to
/// which memory, and refuses what the kernel refuses, with its errno.
///
/// What it answers is public, so that a test can make it lie. Every call passes a fault-injection
/// point. Threads: any.
/// Source  the checks of drivers/vfio in Linux 6.12, as linux/vfio.h documents them.
class FakeVfio final : public VfioKernel {
 public:
  static constexpr std::uint64_t page = 4096;
  static constexpr std::uint64_t bar_size = 1 << 20;
  static constexpr std::uint64_t bar_offset = 0;
  static constexpr std::uint64_t config_offset = std::uint64_t{7} << 40;

  struct Mapped {
    std::byte* memory;
    std::uint64_t size;
    std::uint32_t flags;
  };

  // What it tells.
  std::string group_link = "../../../../kernel/iommu_groups/12";
  int version = VFIO_API_VERSION;
  int has_type1v2 = 1;
  std::uint32_t group_flags = VFIO_GROUP_FLAGS_VIABLE;
  vfio_device_info info{.argsz = 0,
                        .flags = VFIO_DEVICE_FLAGS_PCI | VFIO_DEVICE_FLAGS_RESET,
                        .num_regions = VFIO_PCI_NUM_REGIONS,
                        .num_irqs = VFIO_PCI_NUM_IRQS,
                        .cap_offset = 0};
  vfio_region_info bar{.argsz = 0,
                       .flags = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE,
                       .index = 0,
                       .cap_offset = 0,
                       .size = bar_size,
                       .offset = bar_offset};
  vfio_region_info config_space{.argsz = 0,
                                .flags = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE,
                                .index = 0,
                                .cap_offset = 0,
                                .size = 256,
                                .offset = config_offset};
  std::uint32_t msi_count = 1;
  std::uint32_t intx_count = 1;
  std::vector<vfio_iova_range> ranges{{0, 0xfedfffff}, {0xfef00000, (std::uint64_t{1} << 39) - 1}};
  std::uint64_t page_sizes = 0xfffffffffffff000;
  std::optional<std::uint32_t> told_size;  // of the IOMMU's answer, instead of the right one
  sys::LockedMemory lock{.limit = ByteCount(8 << 20), .locked = ByteCount(0), .unlimited = false};
  std::uint64_t memory_left = ~std::uint64_t{0};  // of the machine, bytes
  std::size_t mappings_left = 65535;
  std::vector<const std::byte*> unpinnable;  // pages that are a dma-buf's, say
  FakeHardware* hardware = nullptr;

  // What became of it.
  std::map<std::uint64_t, Mapped> mapped;
  std::uint16_t command = 0;  // of configuration space
  int resets = 0;
  int unmasked = 0;
  std::uint32_t armed_index = ~0U;  // the kind of interrupt that is on

  /// The device's side: false where the IOMMU, or bus mastering, stops it.
  [[nodiscard]] bool dma_read(std::uint64_t iova, std::span<std::byte> into) {
    return dma(iova, into.size(), VFIO_DMA_MAP_FLAG_READ, [&](std::byte* memory, std::size_t at) {
      std::memcpy(into.data() + at, memory, 1);
    });
  }
  [[nodiscard]] bool dma_write(std::uint64_t iova, std::span<const std::byte> from) {
    return dma(iova, from.size(), VFIO_DMA_MAP_FLAG_WRITE, [&](std::byte* memory, std::size_t at) {
      std::memcpy(memory, from.data() + at, 1);
    });
  }
  /// The device's interrupt.
  void signal() {
    const std::lock_guard hold(mutex_);
    constexpr std::uint64_t one = 1;
    if (event_.valid()) (void)!::write(event_.get(), &one, sizeof one);
  }

  Result<UniqueFd> open(const std::string& path) override {
    if (const int injected = fault_injection::point("open"))
      return fail_errno(injected, "injected");
    const std::lock_guard hold(mutex_);
    if (path == "/dev/vfio/vfio") return file(container_);
    if (path == "/dev/vfio/" + group_link.substr(group_link.rfind('/') + 1)) return file(group_);
    return fail_errno(ENOENT, "no such file");
  }
  Result<std::string> read_link(const std::string& path) override {
    if (const int injected = fault_injection::point("read_link"))
      return fail_errno(injected, "injected");
    if (path != "/sys/bus/pci/devices/0000:00:03.0/iommu_group") return fail_errno(ENOENT, "none");
    return group_link;
  }
  Result<int> control(FdView fd, unsigned long request, std::uintptr_t argument,
                      const char* site) override {
    if (const int injected = fault_injection::point(site)) return fail_errno(injected, "injected");
    const std::lock_guard hold(mutex_);
    const int done = answer(fd.get(), request, argument);
    if (done < 0) return fail_errno(-done, "the kernel refuses");
    return done;
  }
  Result<int> control_surely(FdView fd, unsigned long request,
                             std::uintptr_t argument) noexcept override {
    const std::lock_guard hold(mutex_);
    const int done = answer(fd.get(), request, argument);
    if (done < 0) return fail_errno(-done, "the kernel refuses");
    return done;
  }
  Result<void> read_at(FdView fd, std::uint64_t offset, std::span<std::byte> into) override {
    if (const int injected = fault_injection::point("read_at"))
      return fail_errno(injected, "injected");
    std::uint64_t value = 0;
    if (fd.get() != device_ || into.size() > sizeof value) return fail_errno(EINVAL, "no");
    if (offset >= config_offset)
      value = config(offset - config_offset);
    else if (hardware != nullptr)
      value = hardware->read(offset - bar_offset, into.size());
    std::memcpy(into.data(), &value, into.size());
    return {};
  }
  Result<void> write_at(FdView fd, std::uint64_t offset, std::span<const std::byte> from) override {
    if (const int injected = fault_injection::point("write_at"))
      return fail_errno(injected, "injected");
    std::uint64_t value = 0;
    if (fd.get() != device_ || from.size() > sizeof value) return fail_errno(EINVAL, "no");
    std::memcpy(&value, from.data(), from.size());
    if (offset == config_offset + PCI_COMMAND) {
      const std::lock_guard hold(mutex_);
      command = static_cast<std::uint16_t>(value);
    } else if (offset < config_offset && hardware != nullptr) {
      hardware->write(offset - bar_offset, from.size(), value);
    }
    return {};
  }
  Result<sys::LockedMemory> locked_memory() override {
    if (const int injected = fault_injection::point("locked_memory"))
      return fail_errno(injected, "injected");
    const std::lock_guard hold(mutex_);
    return lock;
  }

 private:
  // Real descriptors, so that closing them and mapping them is real.
  Result<UniqueFd> file(int& number) {
    UniqueFd fd(::memfd_create("fake-vfio", MFD_CLOEXEC));
    (void)!::ftruncate(fd.get(), bar_size);
    number = fd.get();
    return fd;
  }

  template <class Copy>
  bool dma(std::uint64_t iova, std::size_t size, std::uint32_t needs, Copy copy) {
    const std::lock_guard hold(mutex_);
    if ((command & PCI_COMMAND_MASTER) == 0) return false;
    for (std::size_t at = 0; at < size; ++at) {
      const auto behind = mapped.upper_bound(iova + at);
      if (behind == mapped.begin()) return false;
      const auto& [begin, memory] = *std::prev(behind);
      if (iova + at - begin >= memory.size || (memory.flags & needs) == 0) return false;
      copy(memory.memory + (iova + at - begin), at);
    }
    return true;
  }

  int answer(int fd, unsigned long request, std::uintptr_t argument) {
    switch (request) {
      case VFIO_GET_API_VERSION:
        return version;
      case VFIO_CHECK_EXTENSION:
        return argument == VFIO_TYPE1v2_IOMMU ? has_type1v2 : 0;
      case VFIO_GROUP_GET_STATUS:
        reinterpret_cast<vfio_group_status*>(argument)->flags = group_flags;
        return fd == group_ ? 0 : -ENOTTY;
      case VFIO_GROUP_SET_CONTAINER:
        if (fd != group_ || *reinterpret_cast<int*>(argument) != container_) return -EINVAL;
        joined_ = true;
        return 0;
      case VFIO_SET_IOMMU:
        if (!joined_ || fd != container_ || argument != VFIO_TYPE1v2_IOMMU) return -EINVAL;
        mapped.clear();
        return 0;
      case VFIO_GROUP_GET_DEVICE_FD:
        if (std::strcmp(reinterpret_cast<const char*>(argument), "0000:00:03.0") != 0)
          return -ENODEV;
        return file(device_)->release();
      case VFIO_DEVICE_GET_INFO:
        return put(argument, info);
      case VFIO_DEVICE_GET_REGION_INFO:
        return region(argument);
      case VFIO_DEVICE_GET_IRQ_INFO:
        return irq(argument);
      case VFIO_DEVICE_SET_IRQS:
        return set_irqs(argument);
      case VFIO_DEVICE_RESET:
        ++resets;
        return 0;
      case VFIO_IOMMU_GET_INFO:
        return iommu(argument);
      case VFIO_IOMMU_MAP_DMA:
        return map(*reinterpret_cast<vfio_iommu_type1_dma_map*>(argument));
      case VFIO_IOMMU_UNMAP_DMA:
        return unmap(*reinterpret_cast<vfio_iommu_type1_dma_unmap*>(argument));
      default:
        return -ENOTTY;
    }
  }

  template <class Args>
  static int put(std::uintptr_t argument, Args told) {
    auto* const args = reinterpret_cast<Args*>(argument);
    if (args->argsz < sizeof told) return -EINVAL;
    told.argsz = sizeof told;
    *args = told;
    return 0;
  }

  int region(std::uintptr_t argument) {
    const std::uint32_t index = reinterpret_cast<vfio_region_info*>(argument)->index;
    if (index >= VFIO_PCI_NUM_REGIONS) return -EINVAL;
    vfio_region_info told = index == VFIO_PCI_CONFIG_REGION_INDEX ? config_space
                            : index == VFIO_PCI_BAR0_REGION_INDEX ? bar
                                                                  : vfio_region_info{};
    told.index = index;
    return put(argument, told);
  }

  int irq(std::uintptr_t argument) {
    vfio_irq_info told{};
    told.index = reinterpret_cast<vfio_irq_info*>(argument)->index;
    told.flags = VFIO_IRQ_INFO_EVENTFD;
    if (told.index == VFIO_PCI_MSI_IRQ_INDEX) told.count = msi_count;
    if (told.index == VFIO_PCI_INTX_IRQ_INDEX) told.count = intx_count;
    return put(argument, told);
  }

  int set_irqs(std::uintptr_t argument) {
    vfio_irq_set set{};
    std::memcpy(&set, reinterpret_cast<const void*>(argument), sizeof set);
    if ((set.flags & VFIO_IRQ_SET_ACTION_UNMASK) != 0) return ++unmasked, 0;
    if ((set.flags & VFIO_IRQ_SET_DATA_NONE) != 0 && set.count == 0) {
      event_.reset();
      armed_index = ~0U;
      return 0;
    }
    if ((set.flags & VFIO_IRQ_SET_DATA_EVENTFD) == 0 || set.count != 1) return -EINVAL;
    if (set.argsz < sizeof set + sizeof(int)) return -EINVAL;
    int event = -1;
    std::memcpy(&event, reinterpret_cast<const std::byte*>(argument) + sizeof set, sizeof event);
    event_.reset(::fcntl(event, F_DUPFD_CLOEXEC, 0));
    armed_index = set.index;
    return 0;
  }

  int iommu(std::uintptr_t argument) {
    struct Answer {
      vfio_iommu_type1_info head;
      vfio_iommu_type1_info_dma_avail available;
      std::uint32_t hole;
    } told{};
    const std::size_t ranges_size =
        sizeof(vfio_iommu_type1_info_cap_iova_range) + ranges.size() * sizeof(vfio_iova_range);
    const auto needed = static_cast<std::uint32_t>(sizeof told + ranges_size);
    auto* const into = reinterpret_cast<std::byte*>(argument);
    std::uint32_t room = 0;
    std::memcpy(&room, into, sizeof room);
    told.head.argsz = told_size.value_or(needed);
    told.head.flags = VFIO_IOMMU_INFO_PGSIZES | VFIO_IOMMU_INFO_CAPS;
    told.head.iova_pgsizes = page_sizes;
    if (room < needed) {
      std::memcpy(into, &told.head, std::min<std::size_t>(room, sizeof told.head));
      return 0;
    }
    told.head.cap_offset = sizeof told.head;
    told.available.header = {VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL, 1, sizeof told};
    told.available.avail = static_cast<std::uint32_t>(mappings_left);
    vfio_iommu_type1_info_cap_iova_range head;  // not {}: it ends in an array of no size
    std::memset(&head, 0, sizeof head);
    head.header = {VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE, 1, 0};
    head.nr_iovas = static_cast<std::uint32_t>(ranges.size());
    std::memcpy(into, &told, sizeof told);
    std::memcpy(into + sizeof told, &head, sizeof head);
    std::memcpy(into + sizeof told + sizeof head, ranges.data(),
                ranges.size() * sizeof(vfio_iova_range));
    return 0;
  }

  int map(const vfio_iommu_type1_dma_map& args) {
    constexpr std::uint32_t both = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE;
    if (args.argsz < sizeof args || (args.flags & ~both) != 0 || (args.flags & both) == 0)
      return -EINVAL;
    if (args.size == 0 || (args.size | args.iova | args.vaddr) % page != 0) return -EINVAL;
    const auto next = mapped.lower_bound(args.iova);
    if (next != mapped.end() && next->first - args.iova < args.size) return -EEXIST;
    if (next != mapped.begin() && args.iova - std::prev(next)->first < std::prev(next)->second.size)
      return -EEXIST;
    if (mapped.size() >= mappings_left) return -ENOSPC;
    const bool inside = std::ranges::any_of(ranges, [&](const vfio_iova_range& range) {
      return range.start <= args.iova && args.iova + (args.size - 1) <= range.end;
    });
    if (!inside) return -EINVAL;
    auto* const memory = reinterpret_cast<std::byte*>(args.vaddr);
    for (const std::byte* const one : unpinnable)
      if (one >= memory && one < memory + args.size) return -EFAULT;
    if (args.size > memory_left) return -ENOMEM;
    if (!lock.unlimited && lock.locked.value() + args.size > lock.limit.value()) return -ENOMEM;
    try {
      mapped.emplace(args.iova, Mapped{memory, args.size, args.flags});
    } catch (const std::bad_alloc&) {
      return -ENOMEM;
    }
    memory_left -= args.size;
    lock.locked += ByteCount(args.size);
    return 0;
  }

  int unmap(vfio_iommu_type1_dma_unmap& args) {
    if (args.argsz < offsetof(vfio_iommu_type1_dma_unmap, data) || args.flags != 0) return -EINVAL;
    const auto found = mapped.find(args.iova);
    if (found == mapped.end() || found->second.size != args.size) return -ENOENT;
    memory_left += args.size;
    lock.locked -= ByteCount(args.size);
    mapped.erase(found);
    return 0;
  }

  std::uint64_t config(std::uint64_t offset) {
    const std::lock_guard hold(mutex_);
    if (offset == PCI_VENDOR_ID) return 0x1234;
    if (offset == PCI_DEVICE_ID) return 0x11e8;
    return offset == PCI_COMMAND ? command : 0;
  }

  std::mutex mutex_;
  int container_ = -1;
  int group_ = -1;
  int device_ = -1;
  bool joined_ = false;
  UniqueFd event_;
};

}  // namespace accelmm::test
