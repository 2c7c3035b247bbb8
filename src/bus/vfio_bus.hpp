// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/mutex.hpp"
#include "bus/iova_book.hpp"
#include "bus/vfio_container.hpp"

#include <accelmm/bus.hpp>

#include <memory>
#include <span>
#include <vector>

namespace accelmm {

/// The bus of a real PCI device: host memory is reached through the machine's IOMMU.
///
/// What is attached is pinned, and mapped at an address that the IOMMU and the device can; all else
/// is a fault of the IOMMU. An extent that is attached again with the same access is pinned once and
/// has the same address.
/// Owns      the addresses; shares the container with the device.
/// Threads   any thread. attach() and detach() go one after the other, over the kernel's own calls,
///           which it serialises as well.
/// Lifetime  destroyed with everything detached: checked.
/// Cost      attach() of new memory pins it: it faults each page in, and takes a time that grows
///           with the pages.
class VfioBus final : public Bus {
 public:
  struct Statistics {
    std::size_t mappings = 0;
    ByteCount pinned{};
    bool operator==(const Statistics&) const = default;
  };

  /// `host_window` is where the host window is mapped in this process; it is never touched here.
  /// `address_bits`  of the device.
  /// Errors  not_supported: the device reaches no address that the IOMMU maps.  no_memory.
  [[nodiscard]] static Result<std::unique_ptr<VfioBus>> create(
      std::shared_ptr<VfioContainer> container, std::span<const std::byte> host_window,
      unsigned address_bits);
  VfioBus(const VfioBus&) = delete;
  VfioBus& operator=(const VfioBus&) = delete;
  ~VfioBus() override;

  /// Errors  those of Bus::attach(); over_quota: RLIMIT_MEMLOCK, or too many mappings.
  ///         no_memory: also, no address is free.  not_supported: memory that cannot be pinned, or
  ///         that is not whole pages of the IOMMU.
  [[nodiscard]] Result<std::vector<Run>> attach(std::span<const Extent> host_extents,
                                                Access access) override;
  using Bus::attach;
  /// Errors  as attach().
  [[nodiscard]] Result<std::vector<Run>> attach_memory(std::span<std::byte> memory,
                                                       Access access) override;
  void detach(std::span<const Run> runs) noexcept override;

  [[nodiscard]] Statistics statistics() const;
  void validate() const;

 private:
  VfioBus(std::shared_ptr<VfioContainer> container, std::span<const std::byte> host_window,
          IovaBook book);
  [[nodiscard]] Result<void> check_extents(std::span<const Extent> host_extents) const;
  [[nodiscard]] Result<Run> attach_one(const std::byte* memory, Extent extent, Access access,
                                       IovaBook::Entry entry) ACCELMM_REQUIRES(mutex_);
  void detach_one(Run run) noexcept ACCELMM_REQUIRES(mutex_);

  std::shared_ptr<VfioContainer> container_;
  std::span<const std::byte> host_window_;
  mutable Mutex mutex_;
  IovaBook book_ ACCELMM_GUARDED_BY(mutex_);
};

}  // namespace accelmm
