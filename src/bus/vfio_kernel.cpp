// SPDX-License-Identifier: Apache-2.0
#include "bus/vfio_kernel.hpp"

#include "base/system.hpp"

#include <fcntl.h>

namespace accelmm {
namespace {

class SystemVfioKernel final : public VfioKernel {
 public:
  Result<UniqueFd> open(const std::string& path) override { return sys::open(path, O_RDWR); }
  Result<std::string> read_link(const std::string& path) override { return sys::read_link(path); }
  Result<int> control(FdView fd, unsigned long request, std::uintptr_t argument,
                      const char* site) override {
    return sys::control(fd, request, argument, site);
  }
  Result<int> control_surely(FdView fd, unsigned long request,
                             std::uintptr_t argument) noexcept override {
    return sys::control_surely(fd, request, argument);
  }
  Result<void> read_at(FdView fd, std::uint64_t offset, std::span<std::byte> into) override {
    return sys::read_at(fd, offset, into);
  }
  Result<void> write_at(FdView fd, std::uint64_t offset, std::span<const std::byte> from) override {
    return sys::write_at(fd, offset, from);
  }
  Result<sys::LockedMemory> locked_memory() override { return sys::locked_memory(); }
};

}  // namespace

VfioKernel& system_vfio_kernel() noexcept {
  static SystemVfioKernel kernel;  // without state
  return kernel;
}

}  // namespace accelmm
