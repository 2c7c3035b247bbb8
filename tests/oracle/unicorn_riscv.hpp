// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "oracle/oracle.hpp"

#include <accelmm/error.hpp>

#include <memory>

namespace accelmm::test {

/// The MMU of a RISC-V CPU that Unicorn emulates, asked with loads and stores of user mode.
///
/// `levels` is 3 (Sv39), 4 (Sv48) or 5 (Sv57). Its memory has 64 MiB, below 2^56; no leaf may map
/// that. It sets the accessed bit of what it walks, and the dirty bit of what it writes. It knows
/// neither groups (Svnapot) nor memory types (Svpbmt): bits 54 to 63 of an entry are zero. It tells
/// no leaf size.
/// Errors  invalid_argument: no such machine.  io_error: Unicorn refuses.
/// Source  The RISC-V Instruction Set Manual, volume II, Sv39 to Sv57, and mstatus.MPRV.
[[nodiscard]] Result<std::unique_ptr<Oracle>> make_unicorn_riscv(unsigned levels);

}  // namespace accelmm::test
