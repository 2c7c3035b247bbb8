// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "oracle/naive_walk.hpp"

#include <cstdint>
#include <cstdio>
#include <string>

namespace accelmm::test {

/// What became of the contiguous hints (bit 52) in a tree of AArch64 stage 1 tables.
struct ContiguousGroups {
  std::uint64_t groups = 0;   ///< that keep the rule
  std::uint64_t largest = 0;  ///< bytes
  std::string wrong;          ///< the first that breaks it; empty where none does
};

/// Judges the hints, which emulated CPUs ignore, by the raw words of the tables.
///
/// A group is 16 entries with a granule of 4 KiB; of 16 KiB 128 pages or 32 blocks; of 64 KiB 32
/// entries. Where one entry of a group has the hint all have it, all map memory, the memory is
/// consecutive from an address aligned to the group's size, and all other bits are the same (also
/// those that hardware ignores, which the architecture does not ask for). Tables have no hint.
/// Intel's NPU has the same groups: a granule of 4 KiB, and only at the last level.
/// Source  Arm ARM (DDI 0487), D8, "the Contiguous bit".
class ContiguousJudge {
 public:
  /// Reads the tables below `root` that translate addresses of `address_bits` bits.
  [[nodiscard]] static ContiguousGroups judge(const Read& read, std::uint64_t root,
                                              unsigned granule_shift, unsigned address_bits) {
    ContiguousJudge judge(read, granule_shift, address_bits);
    unsigned top = granule_shift;
    while (top + judge.stride_ < address_bits) top += judge.stride_;
    judge.visit(root, top);
    return judge.found_;
  }

 private:
  static constexpr std::uint64_t hint = 1ULL << 52;

  ContiguousJudge(const Read& read, unsigned granule_shift, unsigned address_bits)
      : read_(read),
        granule_shift_(granule_shift),
        stride_(granule_shift - 3),
        address_bits_(address_bits),
        address_mask_(0x0000'ffff'ffff'ffffULL >> granule_shift << granule_shift) {}

  void complain(std::uint64_t place, const char* what) {
    if (!found_.wrong.empty()) return;
    char text[128];
    std::snprintf(text, sizeof text, "entry at 0x%llx: %s", static_cast<unsigned long long>(place),
                  what);
    found_.wrong = text;
  }

  [[nodiscard]] bool is_leaf(std::uint64_t entry, unsigned shift) const {
    return (entry & 3) == (shift == granule_shift_ ? 3U : 1U);
  }

  [[nodiscard]] std::uint64_t entries_of_group(unsigned shift) const {
    if (granule_shift_ == 12) return 16;
    return granule_shift_ == 14 && shift == granule_shift_ ? 128 : 32;
  }

  void judge_group(std::uint64_t begin_place, unsigned shift) {
    const std::uint64_t count = entries_of_group(shift);
    const std::uint64_t size = 1ULL << shift;
    const std::uint64_t begin = read_(begin_place, 8);
    for (std::uint64_t item = 0; item < count; ++item) {
      const std::uint64_t place = begin_place + item * 8;
      const std::uint64_t entry = read_(place, 8);
      if (!is_leaf(entry, shift)) return complain(place, "maps nothing in a group");
      if ((entry & hint) == 0) return complain(place, "has no hint in a group");
      if ((entry & ~address_mask_) != (begin & ~address_mask_))
        return complain(place, "has other attributes than the group's first");
      if ((entry & address_mask_) != (begin & address_mask_) + item * size)
        return complain(place, "maps memory that is not next in the group");
    }
    if ((begin & address_mask_) % (size * count) != 0)
      return complain(begin_place, "begins a group whose memory is not aligned");
    ++found_.groups;
    if (size * count > found_.largest) found_.largest = size * count;
  }

  void visit(std::uint64_t table, unsigned shift) {
    const std::uint64_t bits = address_bits_ - shift < stride_ ? address_bits_ - shift : stride_;
    const std::uint64_t group = entries_of_group(shift);
    std::uint64_t judged_until = 0;  // a group is judged once
    for (std::uint64_t index = 0; index < 1ULL << bits; ++index) {
      const std::uint64_t entry = read_(table + index * 8, 8);
      if ((entry & 1) == 0) continue;
      if (is_leaf(entry, shift)) {
        if ((entry & hint) == 0 || index < judged_until) continue;
        const std::uint64_t first = index / group * group;
        judge_group(table + first * 8, shift);
        judged_until = first + group;
      } else if (shift != granule_shift_) {  // there it is reserved: whoever walks it says so
        if ((entry & hint) != 0) complain(table + index * 8, "is a table with the hint");
        visit(entry & address_mask_, shift - stride_);
      }
    }
  }

  const Read& read_;
  unsigned granule_shift_;
  unsigned stride_;
  unsigned address_bits_;
  std::uint64_t address_mask_;
  ContiguousGroups found_;
};

}  // namespace accelmm::test
