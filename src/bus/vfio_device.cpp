// SPDX-License-Identifier: Apache-2.0
#include "bus/vfio_bus.hpp"
#include "bus/vfio_files.hpp"
#include "bus/vfio_interrupt.hpp"
#include "bus/vfio_region.hpp"

#include <accelmm/vfio_device.hpp>

#include <array>
#include <new>
#include <string>
#include <utility>

#include <linux/pci_regs.h>
#include <linux/vfio.h>

namespace accelmm {
namespace {

// The number of the IOMMU group: the last name of the link's target.
Result<std::string> group_of(VfioKernel& kernel, const std::string& address) {
  const auto link = kernel.read_link("/sys/bus/pci/devices/" + address + "/iommu_group");
  if (!link) {
    if (link.error().code == Errc::no_entry)
      return fail(Errc::no_device, "no such PCI device, or none behind an IOMMU");
    return fail(link.error());
  }
  std::string number = link->substr(link->rfind('/') + 1);  // npos + 1 is 0
  if (number.empty() || number.find_first_not_of("0123456789") != std::string::npos)
    return fail(Errc::protocol_error, "the name of an IOMMU group is no number");
  return number;
}

Result<void> open_device(VfioFiles& files, const std::string& address) {
  const VfioContainer& container = *files.container;
  const auto fd = files.kernel().control(container.group(), VFIO_GROUP_GET_DEVICE_FD,
                                         reinterpret_cast<std::uintptr_t>(address.c_str()),
                                         "vfio_group_get_device_fd");
  if (!fd) return fail(fd.error());
  files.device.reset(*fd);  // close-on-exec: the kernel makes it so
  vfio_device_info info{};
  info.argsz = sizeof info;
  const auto told = files.kernel().control(files.device.view(), VFIO_DEVICE_GET_INFO,
                                           VfioKernel::address_of(info), "vfio_device_get_info");
  if (!told) return fail(told.error());
  if ((info.flags & VFIO_DEVICE_FLAGS_PCI) == 0)
    return fail(Errc::not_supported, "not a PCI device");
  if (info.num_regions <= VFIO_PCI_CONFIG_REGION_INDEX)
    return fail(Errc::protocol_error, "PCI device without configuration space");
  files.regions = info.num_regions;
  files.interrupts = info.num_irqs;
  files.can_reset = (info.flags & VFIO_DEVICE_FLAGS_RESET) != 0;
  return {};
}

}  // namespace

struct VfioDevice::State {
  std::shared_ptr<const VfioFiles> files;
  VfioRegionPlace config{};

  [[nodiscard]] Result<std::uint16_t> read_config(std::uint64_t offset) const {
    std::array<std::byte, 2> bytes;
    if (auto read = files->kernel().read_at(files->device.view(), config.offset + offset, bytes);
        !read)
      return fail(read.error());
    return static_cast<std::uint16_t>(std::to_integer<unsigned>(bytes[0]) |
                                      std::to_integer<unsigned>(bytes[1]) << 8);
  }
  [[nodiscard]] Result<void> write_config(std::uint64_t offset, std::uint16_t value) const {
    const std::array<std::byte, 2> bytes{static_cast<std::byte>(value & 0xff),
                                         static_cast<std::byte>(value >> 8)};
    return files->kernel().write_at(files->device.view(), config.offset + offset, bytes);
  }
};

VfioDevice::VfioDevice(std::unique_ptr<State> state) : state_(std::move(state)) {}
VfioDevice::~VfioDevice() = default;

Result<std::unique_ptr<VfioDevice>> VfioDevice::open(const PciAddress& address) {
  return open(address, system_vfio_kernel());
}

Result<std::unique_ptr<VfioDevice>> VfioDevice::open(const PciAddress& address,
                                                     VfioKernel& kernel) try {
  const std::string name = address.to_string();
  const auto group = group_of(kernel, name);
  if (!group) return fail(group.error());
  auto container = VfioContainer::open(kernel, *group);
  if (!container) return fail(container.error());
  auto files = std::make_shared<VfioFiles>();
  files->container = std::make_shared<VfioContainer>(std::move(*container));
  if (auto opened = open_device(*files, name); !opened) return fail(opened.error());
  const auto config = place_of_region(*files, VFIO_PCI_CONFIG_REGION_INDEX);
  if (!config) return fail(config.error());
  if (config->size < ByteCount(PCI_STD_HEADER_SIZEOF))
    return fail(Errc::protocol_error, "configuration space of a PCI device is cut short");
  auto state = std::make_unique<State>(State{std::move(files), *config});
  return std::unique_ptr<VfioDevice>(new VfioDevice(std::move(state)));
} catch (const std::bad_alloc&) {
  return fail(Errc::no_memory, "no memory to open a device");
}

Result<VfioDevice::Identity> VfioDevice::identity() const {
  const auto vendor = state_->read_config(PCI_VENDOR_ID);
  if (!vendor) return fail(vendor.error());
  const auto device = state_->read_config(PCI_DEVICE_ID);
  if (!device) return fail(device.error());
  return Identity{*vendor, *device};
}

Result<VfioRegion> VfioDevice::region(unsigned bar) const {
  if (bar > VFIO_PCI_BAR5_REGION_INDEX) return fail(Errc::invalid_argument, "PCI has 6 BARs");
  auto opened = VfioRegion::State::open(state_->files, VFIO_PCI_BAR0_REGION_INDEX + bar);
  if (!opened) return fail(opened.error());
  return VfioRegion(std::move(*opened));
}

Result<void> VfioDevice::set_bus_master(BusMaster wanted) {
  const auto command = state_->read_config(PCI_COMMAND);
  if (!command) return fail(command.error());
  const auto changed = wanted == BusMaster::on
                           ? static_cast<std::uint16_t>(*command | PCI_COMMAND_MASTER)
                           : static_cast<std::uint16_t>(*command & ~PCI_COMMAND_MASTER);
  return state_->write_config(PCI_COMMAND, changed);
}

Result<VfioInterrupt> VfioDevice::interrupt() const {
  auto opened = VfioInterrupt::State::open(state_->files);
  if (!opened) return fail(opened.error());
  return VfioInterrupt(std::move(*opened));
}

Result<void> VfioDevice::reset() {
  const VfioFiles& files = *state_->files;
  if (!files.can_reset) return fail(Errc::not_supported, "device cannot be reset by itself");
  const auto done =
      files.kernel().control(files.device.view(), VFIO_DEVICE_RESET, 0, "vfio_device_reset");
  if (!done) return fail(done.error());
  return {};
}

std::span<const Range<BusAddr>> VfioDevice::bus_addresses() const {
  return state_->files->container->info().ranges;
}

std::uint64_t VfioDevice::page_sizes() const {
  return state_->files->container->info().page_sizes;
}

BusFactory VfioDevice::bus_factory(unsigned address_bits) const {
  return [container = state_->files->container,
          address_bits](std::span<const std::byte> host_window) -> Result<std::unique_ptr<Bus>> {
    auto bus = VfioBus::create(container, host_window, address_bits);
    if (!bus) return fail(bus.error());
    return std::move(*bus);
  };
}

}  // namespace accelmm
