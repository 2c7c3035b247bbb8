// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/error.hpp>
#include <accelmm/units.hpp>

#include <cstdint>

namespace accelmm::mmu {

/// How Gaudi2 makes pages of 64 MiB of DRAM that comes in 5 or 6 parts.
///
/// Each of the N working HBMs gives 8 MiB to a page: the page has N * 8 MiB, which is no power of
/// two. Page tables know powers of two only, so every address of DRAM, device and bus address alike,
/// is scrambled before it reaches them: the byte r of page q lies at q * 64 MiB + r. The leaf of 64
/// MiB is then one page, one of 1 GiB 16 pages, and the last (8 - N) * 8 MiB of each 64 MiB are
/// nothing. With 6 HBMs, as offsets from the base of DRAM:
///
///     0            48 MiB           96 MiB
///     |   page 0    |    page 1     |  ...                address
///     |   page 0    |//|    page 1     |//|  ...          scrambled
///     0         48 MiB 64 MiB      112 MiB 128 MiB
///
/// Addresses outside of DRAM's range are the same in both.
/// Source  Linux drivers/accel/habanalabs/gaudi2: gaudi2_mmu_scramble_addr(), gaudi2P.h.
class Gaudi2Scramble {
 public:
  /// Where DRAM lies, as bus addresses and behind them as device addresses.
  static constexpr std::uint64_t dram_begin = 0x1001'0000'0000'0000;
  static constexpr std::uint64_t dram_end = 0x1002'0000'0000'0000;
  static constexpr std::uint64_t leaf = std::uint64_t{64} << 20;

  /// Errors  invalid_argument: not 1 to 8 HBMs.
  [[nodiscard]] static constexpr Result<Gaudi2Scramble> create(unsigned working_hbms) {
    if (working_hbms == 0 || working_hbms > 8)
      return fail(Errc::invalid_argument, "number of HBMs is not 1 to 8");
    return Gaudi2Scramble(std::uint64_t{working_hbms} << 23);
  }

  /// The memory behind one leaf of 64 MiB.
  [[nodiscard]] constexpr ByteCount page() const { return ByteCount(page_); }

  /// Errors  overflow: the scrambled address would be past DRAM's range.
  template <class Space>
  [[nodiscard]] constexpr Result<Address<Space>> scramble(Address<Space> address) const {
    if (!is_dram(address.value())) return address;
    const std::uint64_t offset = address.value() - dram_begin;
    const std::uint64_t scrambled = offset / page_ * leaf + offset % page_;
    if (scrambled >= dram_end - dram_begin)
      return fail(Errc::overflow, "scrambled address is past DRAM");
    return Address<Space>(dram_begin + scrambled);
  }

  /// Errors  invalid_argument: no address is scrambled to this one.
  template <class Space>
  [[nodiscard]] constexpr Result<Address<Space>> descramble(Address<Space> scrambled) const {
    if (!is_dram(scrambled.value())) return scrambled;
    const std::uint64_t offset = scrambled.value() - dram_begin;
    if (offset % leaf >= page_)
      return fail(Errc::invalid_argument, "scrambled address is between two pages");
    return Address<Space>(dram_begin + offset / leaf * page_ + offset % leaf);
  }

 private:
  explicit constexpr Gaudi2Scramble(std::uint64_t page) : page_(page) {}

  [[nodiscard]] static constexpr bool is_dram(std::uint64_t address) {
    return address >= dram_begin && address < dram_end;
  }

  std::uint64_t page_;
};

}  // namespace accelmm::mmu
