// SPDX-License-Identifier: Apache-2.0
#include <accelmm/device_constraints.hpp>

#include <algorithm>
#include <bit>

namespace accelmm {

Constraints device_constraints(const accelmm_info_device& device) {
  // A driver process is not trusted: nonsense from it makes demands that others can refuse.
  const std::uint64_t page =
      std::has_single_bit(device.host_page_size) ? device.host_page_size : 4096;
  const bool has_mmu = device.mmu_format[0] != 0;
  Constraints wanted;
  wanted.size_divisor = page;
  wanted.offset_divisor = page;
  wanted.base_alignment = Alignment(page);
  wanted.max_size = ByteCount(device.host_window_size);
  if (has_mmu && device.va_end > device.va_begin)
    wanted.max_size = std::min(wanted.max_size, ByteCount(device.va_end - device.va_begin));
  wanted.contiguity = has_mmu ? Contiguity::scattered : Contiguity::contiguous;
  // The driver process maps what it imports.
  wanted.needs = {Use::cpu_map};
  return wanted;
}

}  // namespace accelmm
