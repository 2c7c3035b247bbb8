// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "oracle/oracle.hpp"

#include <accelmm/error.hpp>

#include <memory>

namespace accelmm::test {

struct Aarch64Machine {
  enum class From { el1, el0 };
  unsigned granule_shift = 12;  ///< 12, 14 or 16
  unsigned address_bits = 48;   ///< of the addresses translated: 25 to 48
  From from = From::el0;        ///< whose access it is; devices' are mostly unprivileged
};

/// Stage 1 of an AArch64 CPU that Unicorn emulates, asked with AT and PAR_EL1.
///
/// It sees the tables of TTBR0 only: address bit 55 is zero. Its memory has 64 MiB. It ignores the
/// contiguous hint (oracle/contiguous_groups.hpp judges that), and tells no leaf size.
/// Errors  invalid_argument: no such machine.  io_error: Unicorn refuses.
/// Source  Arm ARM (DDI 0487), D8 and the AT instructions.
[[nodiscard]] Result<std::unique_ptr<Oracle>> make_unicorn_aarch64(const Aarch64Machine& machine);

}  // namespace accelmm::test
