// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "oracle/golden_words.hpp"
#include "oracle/naive/aarch64.hpp"
#include "oracle/naive/amd_iommu_v1.hpp"
#include "oracle/naive/gaudi1.hpp"
#include "oracle/naive/gaudi2_hmmu.hpp"
#include "oracle/naive/gaudi2_pmmu_4k.hpp"
#include "oracle/naive/gaudi2_pmmu_64k.hpp"
#include "oracle/naive/intel_npu.hpp"
#include "oracle/naive/nvidia_hopper.hpp"
#include "oracle/naive/riscv.hpp"
#include "oracle/naive/rockchip_v1.hpp"
#include "oracle/naive/rockchip_v2.hpp"
#include "oracle/naive/vtd_second_stage.hpp"
#include "oracle/naive/x86_64.hpp"

#include <cstdint>
#include <functional>
#include <optional>
#include <ostream>

namespace accelmm::test {

/// Gives an entry of `bytes` bytes at a bus address.
using Read = std::function<std::uint64_t(std::uint64_t address, unsigned bytes)>;

/// What a naive walker makes of an address.
struct NaiveAnswer {
  std::uint64_t bus_address;
  std::uint64_t leaf_size;
  Allowed allowed;
  constexpr bool operator==(const NaiveAnswer&) const = default;
};

inline void PrintTo(const NaiveAnswer& answer, std::ostream* out) {
  *out << std::hex << "bus address 0x" << answer.bus_address << ", leaf of 0x" << answer.leaf_size
       << " bytes, allowed " << static_cast<int>(answer.allowed) << std::dec;
}

/// Walks tables of `levels` hops with the format's naive walker, as an unprivileged access does:
/// AArch64 with addresses of 48 bits from EL0, Gaudi2's HMMU with 6 stacks of memory.
inline std::optional<NaiveAnswer> naive_walk(Format format, unsigned levels, const Read& read,
                                             std::uint64_t root, std::uint64_t address) {
  const auto same = [](const auto& found) -> std::optional<NaiveAnswer> {
    if (!found) return std::nullopt;
    const int allowed = (found->readable ? 1 : 0) | (found->writable ? 2 : 0);
    return NaiveAnswer{found->bus_address, found->leaf_size, static_cast<Allowed>(allowed)};
  };
  const auto arm = [&](unsigned granule_shift) {
    return same(
        naive_aarch64::translate(read, root, address, granule_shift, 48, naive_aarch64::From::el0));
  };
  switch (format) {
    case Format::gaudi1:
      return same(naive_gaudi1::translate(read, root, address));
    case Format::gaudi2_pmmu_4k:
      return same(naive_gaudi2_pmmu_4k::translate(read, root, address));
    case Format::gaudi2_pmmu_64k:
      return same(naive_gaudi2_pmmu_64k::translate(read, root, address));
    case Format::gaudi2_hmmu:
      return same(naive_gaudi2_hmmu::translate(read, root, address, 6));
    case Format::x86_64:
      return same(naive_x86_64::translate(read, root, address, levels));
    case Format::aarch64_4k:
      return arm(12);
    case Format::aarch64_16k:
      return arm(14);
    case Format::aarch64_64k:
      return arm(16);
    case Format::riscv:
      return same(naive_riscv::translate(read, root, address, levels));
    case Format::vtd_second_stage:
      return same(naive_vtd_second_stage::translate(read, root, address, static_cast<int>(levels)));
    case Format::amd_iommu_v1:
      return same(naive_amd_iommu_v1::translate(read, root, address, levels));
    case Format::rockchip_v1:
      return same(naive_rockchip_v1::translate(read, root, address));
    case Format::rockchip_v2:
      return same(naive_rockchip_v2::translate(read, root, address));
    case Format::intel_npu:
      return same(naive_intel_npu::translate(read, root, address));
    case Format::nvidia_hopper:
      return same(naive_nvidia_hopper::translate(read, root, address));
  }
  return std::nullopt;
}

}  // namespace accelmm::test
