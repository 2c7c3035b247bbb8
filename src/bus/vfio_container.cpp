// SPDX-License-Identifier: Apache-2.0
#include "bus/vfio_container.hpp"

#include <accelmm/check.hpp>

#include <cstring>
#include <new>
#include <vector>

#include <linux/vfio.h>

// The order is the kernel's: a container without a group has no IOMMU to ask, and a group gives out
// its devices only once it is in a container that has one.

namespace accelmm {
namespace {

// The answer has some hundred bytes: 16 for each range, and a machine has a handful of them.
constexpr std::size_t largest_answer = 65536;

Result<UniqueFd> open_container(VfioKernel& kernel) {
  auto container = kernel.open("/dev/vfio/vfio");
  if (!container) {
    if (container.error().code == Errc::no_entry)
      return fail(Errc::not_supported, "the kernel has no VFIO");
    return container;
  }
  const auto version =
      kernel.control(container->view(), VFIO_GET_API_VERSION, 0, "vfio_get_api_version");
  if (!version) return fail(version.error());
  if (*version != VFIO_API_VERSION)
    return fail(Errc::not_supported, "the kernel's VFIO is of another version");
  const auto type1 = kernel.control(container->view(), VFIO_CHECK_EXTENSION, VFIO_TYPE1v2_IOMMU,
                                    "vfio_check_extension");
  if (!type1) return fail(type1.error());
  if (*type1 == 0) return fail(Errc::not_supported, "VFIO has no IOMMU of type 1, version 2");
  return container;
}

Result<UniqueFd> open_group(VfioKernel& kernel, const std::string& number) {
  auto group = kernel.open("/dev/vfio/" + number);
  if (!group) {
    if (group.error().code == Errc::no_entry)
      return fail(Errc::no_device, "no device of the IOMMU group is bound to vfio-pci");
    return group;
  }
  vfio_group_status status{.argsz = sizeof status, .flags = 0};
  const auto told = kernel.control(group->view(), VFIO_GROUP_GET_STATUS,
                                   VfioKernel::address_of(status), "vfio_group_get_status");
  if (!told) return fail(told.error());
  if ((status.flags & VFIO_GROUP_FLAGS_VIABLE) == 0)
    return fail(Errc::busy, "a device of the IOMMU group belongs to another driver");
  if ((status.flags & VFIO_GROUP_FLAGS_CONTAINER_SET) != 0)
    return fail(Errc::busy, "the IOMMU group is in use");
  return group;
}

}  // namespace

Result<VfioContainer> VfioContainer::open(VfioKernel& kernel, const std::string& group) try {
  auto container = open_container(kernel);
  if (!container) return fail(container.error());
  auto opened = open_group(kernel, group);
  if (!opened) return fail(opened.error());
  VfioContainer self(kernel, std::move(*container), std::move(*opened));
  if (auto joined = self.join(); !joined) return fail(joined.error());
  if (auto read = self.read_info(); !read) return fail(read.error());
  return self;
} catch (const std::bad_alloc&) {
  return fail(Errc::no_memory, "no memory to open an IOMMU");
}

Result<void> VfioContainer::join() {
  int container = container_.get();
  const auto set = kernel_->control(group_.view(), VFIO_GROUP_SET_CONTAINER,
                                    VfioKernel::address_of(container), "vfio_group_set_container");
  if (!set) return fail(set.error());
  const auto chosen =
      kernel_->control(container_.view(), VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU, "vfio_set_iommu");
  if (!chosen) return fail(chosen.error());
  return {};
}

Result<void> VfioContainer::read_info() {
  // Asked once for the size, and once more with room for all of it.
  std::vector<std::byte> answer(sizeof(vfio_iommu_type1_info));
  for (int turn = 0; turn < 2; ++turn) {
    vfio_iommu_type1_info head{};
    head.argsz = static_cast<std::uint32_t>(answer.size());
    std::memcpy(answer.data(), &head, sizeof head);
    const auto told =
        kernel_->control(container_.view(), VFIO_IOMMU_GET_INFO,
                         reinterpret_cast<std::uintptr_t>(answer.data()), "vfio_iommu_get_info");
    if (!told) return fail(told.error());
    std::memcpy(&head, answer.data(), sizeof head);
    if (head.argsz <= answer.size()) {
      auto info = parse_iommu_info(answer);
      if (!info) return fail(info.error());
      info_ = std::move(*info);
      return {};
    }
    if (head.argsz > largest_answer) break;
    answer.assign(head.argsz, std::byte{});
  }
  return fail(Errc::protocol_error, "the IOMMU's answer has no end");
}

Result<void> VfioContainer::map(Run run, const std::byte* memory, Access access) {
  vfio_iommu_type1_dma_map args{.argsz = sizeof args,
                                .flags = 0,
                                .vaddr = reinterpret_cast<std::uintptr_t>(memory),
                                .iova = run.address.value(),
                                .size = run.length.value()};
  if (allows(access, Access::read)) args.flags |= VFIO_DMA_MAP_FLAG_READ;
  if (allows(access, Access::write)) args.flags |= VFIO_DMA_MAP_FLAG_WRITE;
  const auto mapped = kernel_->control(container_.view(), VFIO_IOMMU_MAP_DMA,
                                       VfioKernel::address_of(args), "vfio_iommu_map_dma");
  if (!mapped) return fail(map_error(mapped.error(), run.length));
  return {};
}

// The kernel says ENOMEM for the limit of locked memory too. What it counts is to be had from it: if
// this much more would be beyond the limit, that was it.
Error VfioContainer::map_error(Error error, ByteCount length) const {
  if (error.code == static_cast<Errc>(ENOSPC))
    return {Errc::over_quota, "the kernel allows no more mappings for devices"};
  switch (error.code) {
    case Errc::no_memory: {
      const auto memory = kernel_->locked_memory();
      if (memory && !memory->unlimited &&
          (memory->locked > memory->limit || length > memory->limit - memory->locked))
        return {Errc::over_quota, "this process may not lock so much memory (RLIMIT_MEMLOCK)"};
      return {Errc::no_memory, "no memory to map for a device"};
    }
    case Errc::fault:
      return {Errc::not_supported, "memory that cannot be pinned: of a dma-buf, or read-only"};
    case Errc::exists:
      return {Errc::address_in_use, "something is mapped at this address of the IOMMU"};
    default:
      return error;
  }
}

void VfioContainer::unmap(Run run) noexcept {
  vfio_iommu_type1_dma_unmap args{};
  args.argsz = sizeof args;
  args.iova = run.address.value();
  args.size = run.length.value();
  const auto unmapped = kernel_->control_surely(container_.view(), VFIO_IOMMU_UNMAP_DMA,
                                                VfioKernel::address_of(args));
  ACCELMM_CHECK(unmapped.has_value());
  ACCELMM_CHECK(args.size == run.length.value());
}

}  // namespace accelmm
