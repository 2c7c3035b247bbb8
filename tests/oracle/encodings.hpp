// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "oracle/encoding.hpp"

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

// The formats as tests write them.

namespace accelmm::test {

inline constexpr std::uint64_t kib = 1ULL << 10;
inline constexpr std::uint64_t mib = 1ULL << 20;
inline constexpr std::uint64_t gib = 1ULL << 30;

inline unsigned bits_of(Allowed allowed) {
  return static_cast<unsigned>(allowed);
}
inline bool may_write(Allowed allowed) {
  return (bits_of(allowed) & 2) != 0;
}

inline std::vector<Encoding::Hop> nine_bit_hops(unsigned levels) {
  std::vector<Encoding::Hop> hops;
  for (unsigned level = levels; level > 0; --level) hops.push_back({3 + 9 * level, 9});
  return hops;
}

inline Encoding habana_encoding(std::string name, Format format, std::vector<Encoding::Hop> hops,
                                std::vector<LeafKind> leaves, unsigned address_bits) {
  const auto levels = static_cast<unsigned>(hops.size());
  return {
      .name = std::move(name),
      .format = format,
      .levels = levels,
      .hops = std::move(hops),
      .leaves = std::move(leaves),
      .permissions = {Allowed::both},
      .address_bits = address_bits,
      .extension = Encoding::Extension::zero,
      .word_bytes = 8,
      .bus_bits = 50,
      .table_alignment = 4 * kib,
      .repeats_group = false,
      .link_flags = 0xfff,
      .leaf_flags = 0xfff,
      .link = [](unsigned, unsigned, std::uint64_t table) -> std::uint64_t { return table | 1; },
      .leaf = [](const Encoding&, const LeafKind&, std::uint64_t bus_address,
                 Allowed) -> std::uint64_t { return bus_address | 0x801; }};
}

inline Encoding gaudi1_encoding() {
  return habana_encoding("gaudi1", Format::gaudi1, {{48, 2}, {39, 9}, {30, 9}, {21, 9}, {12, 9}},
                         {{4, 4 * kib}, {3, 2 * mib}}, 50);
}

inline Encoding gaudi2_pmmu_4k_encoding() {
  return habana_encoding("gaudi2_pmmu_4k", Format::gaudi2_pmmu_4k,
                         {{57, 7}, {48, 9}, {39, 9}, {30, 9}, {21, 9}, {12, 9}},
                         {{5, 4 * kib}, {4, 2 * mib}}, 64);
}

inline Encoding gaudi2_pmmu_64k_encoding() {
  return habana_encoding("gaudi2_pmmu_64k", Format::gaudi2_pmmu_64k,
                         {{56, 8}, {48, 8}, {40, 8}, {32, 8}, {24, 8}, {16, 8}},
                         {{5, 64 * kib}, {4, 16 * mib}}, 64);
}

/// Of scrambled addresses: whoever writes tables for plain ones scrambles them first.
inline Encoding gaudi2_hmmu_encoding() {
  return habana_encoding("gaudi2_hmmu", Format::gaudi2_hmmu,
                         {{57, 7}, {48, 9}, {39, 9}, {30, 9}, {26, 4}},
                         {{4, 64 * mib}, {3, 1 * gib}}, 64);
}

inline Encoding x86_64_encoding(unsigned levels) {
  return {
      .name = "x86_64_" + std::to_string(levels),
      .format = Format::x86_64,
      .levels = levels,
      .hops = nine_bit_hops(levels),
      .leaves = {{levels - 1, 4 * kib}, {levels - 2, 2 * mib}, {levels - 3, 1 * gib}},
      .permissions = {Allowed::read, Allowed::both},
      .address_bits = 12 + 9 * levels,
      .extension = Encoding::Extension::sign,
      .word_bytes = 8,
      .bus_bits = 52,
      .table_alignment = 4 * kib,
      .repeats_group = false,
      .link_flags = 0x85,
      .leaf_flags = 0x7,
      .link = [](unsigned, unsigned, std::uint64_t table) -> std::uint64_t { return table | 0x27; },
      .leaf = [](const Encoding&, const LeafKind& kind, std::uint64_t bus_address,
                 Allowed allowed) -> std::uint64_t {
        return bus_address | 0x25 | (may_write(allowed) ? 0x42U : 0) |
               (kind.size > 4 * kib ? 0x80U : 0);
      }};
}

/// `granule_shift` is 12, 14 or 16; addresses have 48 bits.
inline Encoding aarch64_encoding(unsigned granule_shift) {
  const unsigned stride = granule_shift - 3;
  std::vector<Encoding::Hop> hops;
  for (unsigned shift = granule_shift; shift < 48; shift += stride)
    hops.insert(hops.begin(), {shift, shift + stride > 48 ? 48 - shift : stride});
  const auto levels = static_cast<unsigned>(hops.size());
  const unsigned last = levels - 1;
  std::vector<LeafKind> leaves;
  if (granule_shift == 12) {
    leaves = {{last, 4 * kib},  {last - 1, 2 * mib},  {last - 2, gib},
              {last, 64 * kib}, {last - 1, 32 * mib}, {last - 2, 16 * gib}};
  } else if (granule_shift == 14) {
    leaves = {{last, 16 * kib}, {last - 1, 32 * mib}, {last, 2 * mib}, {last - 1, gib}};
  } else {
    leaves = {{last, 64 * kib}, {last - 1, 512 * mib}, {last, 2 * mib}, {last - 1, 16 * gib}};
  }
  return {
      .name = "aarch64_" + std::to_string((1ULL << granule_shift) / kib) + "k",
      .format = granule_shift == 12   ? Format::aarch64_4k
                : granule_shift == 14 ? Format::aarch64_16k
                                      : Format::aarch64_64k,
      .levels = levels,
      .hops = std::move(hops),
      .leaves = std::move(leaves),
      .permissions = {Allowed::read, Allowed::both},
      .address_bits = 48,
      .extension = Encoding::Extension::zero,
      .word_bytes = 8,
      .bus_bits = 48,
      .table_alignment = 1ULL << granule_shift,
      .repeats_group = false,
      .link_flags = 0x3,
      .leaf_flags = 0x4c3 | 1ULL << 52,
      .link = [](unsigned, unsigned, std::uint64_t table) -> std::uint64_t { return table | 3; },
      .leaf = [](const Encoding& encoding, const LeafKind& kind, std::uint64_t bus_address,
                 Allowed allowed) -> std::uint64_t {
        std::uint64_t word = bus_address | 0xf45;
        if (kind.hop + 1 == encoding.levels) word |= 2;
        if (!may_write(allowed)) word |= 0x80;
        if (kind.size > encoding.span(kind.hop)) word |= 1ULL << 52;
        return word;
      }};
}

inline Encoding riscv_encoding(unsigned levels) {
  std::vector<LeafKind> leaves;
  for (unsigned hop = 0; hop < levels; ++hop)
    leaves.push_back({hop, 1ULL << (12 + 9 * (levels - 1 - hop))});
  leaves.push_back({levels - 1, 64 * kib});
  return {.name = "riscv_" + std::to_string(levels),
          .format = Format::riscv,
          .levels = levels,
          .hops = nine_bit_hops(levels),
          .leaves = std::move(leaves),
          .permissions = {Allowed::read, Allowed::both},
          .address_bits = 12 + 9 * levels,
          .extension = Encoding::Extension::sign,
          .word_bytes = 8,
          .bus_bits = 56,
          .table_alignment = 4 * kib,
          .repeats_group = true,
          .link_flags = 0xdf,
          .leaf_flags = 0x53,
          .link = [](unsigned, unsigned, std::uint64_t table) -> std::uint64_t {
            return table >> 2 | 1;
          },
          .leaf = [](const Encoding& encoding, const LeafKind& kind, std::uint64_t bus_address,
                     Allowed allowed) -> std::uint64_t {
            std::uint64_t word = bus_address >> 2 | 0x53;
            if (may_write(allowed)) word |= 0x84;
            if (kind.size > encoding.span(kind.hop)) word |= 1ULL << 63 | 1ULL << 13;
            return word;
          }};
}

inline Encoding vtd_second_stage_encoding(unsigned levels) {
  return {
      .name = "vtd_second_stage_" + std::to_string(levels),
      .format = Format::vtd_second_stage,
      .levels = levels,
      .hops = nine_bit_hops(levels),
      .leaves = {{levels - 1, 4 * kib}, {levels - 2, 2 * mib}, {levels - 3, 1 * gib}},
      .permissions = {Allowed::read, Allowed::write, Allowed::both},
      .address_bits = 12 + 9 * levels,
      .extension = Encoding::Extension::zero,
      .word_bytes = 8,
      .bus_bits = 52,
      .table_alignment = 4 * kib,
      .repeats_group = false,
      .link_flags = 0x80,
      .leaf_flags = 0x3,
      .link = [](unsigned, unsigned, std::uint64_t table) -> std::uint64_t { return table | 3; },
      .leaf = [](const Encoding&, const LeafKind& kind, std::uint64_t bus_address,
                 Allowed allowed) -> std::uint64_t {
        return bus_address | bits_of(allowed) | (kind.size > 4 * kib ? 0x80U : 0);
      }};
}

inline Encoding amd_iommu_v1_encoding(unsigned levels) {
  std::vector<LeafKind> leaves;
  for (unsigned lg2 = 12; lg2 <= 42 && lg2 < 11 + 9 * levels; ++lg2)
    if (lg2 != 39) leaves.push_back({levels - 1 - (lg2 - 12) / 9, 1ULL << lg2});
  auto hops = nine_bit_hops(levels);
  if (levels == 6) hops[0].bits = 7;
  return {.name = "amd_iommu_v1_" + std::to_string(levels),
          .format = Format::amd_iommu_v1,
          .levels = levels,
          .hops = std::move(hops),
          .leaves = std::move(leaves),
          .permissions = {Allowed::read, Allowed::write, Allowed::both},
          .address_bits = levels == 6 ? 64 : 12 + 9 * levels,
          .extension = Encoding::Extension::zero,
          .word_bytes = 8,
          .bus_bits = 52,
          .table_alignment = 4 * kib,
          .repeats_group = true,
          .link_flags = 0xe01,
          .leaf_flags = 0x6000'0000'0000'0001,
          .link = [](unsigned hops_below, unsigned, std::uint64_t table) -> std::uint64_t {
            return table | 0x6000'0000'0000'0001 | std::uint64_t{hops_below} << 9;
          },
          .leaf = [](const Encoding& encoding, const LeafKind& kind, std::uint64_t bus_address,
                     Allowed allowed) -> std::uint64_t {
            std::uint64_t word = bus_address | 1 | std::uint64_t{bits_of(allowed)} << 61;
            if (kind.size > encoding.span(kind.hop)) word |= (kind.size / 2 - 4096) | 0xe00;
            return word;
          }};
}

inline Encoding rockchip_encoding(Format format) {
  const bool second = format == Format::rockchip_v2;
  Encoding encoding{
      .name = second ? "rockchip_v2" : "rockchip_v1",
      .format = format,
      .levels = 2,
      .hops = {{22, 10}, {12, 10}},
      .leaves = {{1, 4 * kib}},
      .permissions = {Allowed::read, Allowed::write, Allowed::both},
      .address_bits = 32,
      .extension = Encoding::Extension::zero,
      .word_bytes = 4,
      .bus_bits = second ? 40U : 32U,
      .table_alignment = 4 * kib,
      .repeats_group = false,
      .link_flags = second ? 0xfU : 0xfffU,
      .leaf_flags = second ? 0xfU : 0xe07U,
      .link = [](unsigned, unsigned, std::uint64_t table) -> std::uint64_t { return table | 1; },
      .leaf = [](const Encoding&, const LeafKind&, std::uint64_t bus_address, Allowed allowed)
          -> std::uint64_t { return bus_address | 1 | bits_of(allowed) << 1; }};
  if (second) {
    encoding.link = [](unsigned, unsigned, std::uint64_t table) -> std::uint64_t {
      return (table & 0xffff'f000) | (table >> 32 & 0xf) << 8 | (table >> 36 & 0xf) << 4 | 1;
    };
    encoding.leaf = [](const Encoding& self, const LeafKind&, std::uint64_t bus_address,
                       Allowed allowed) -> std::uint64_t {
      return self.link(0, 1, bus_address) | bits_of(allowed) << 1;
    };
  }
  return encoding;
}

inline Encoding intel_npu_encoding() {
  return {
      .name = "intel_npu",
      .format = Format::intel_npu,
      .levels = 4,
      .hops = nine_bit_hops(4),
      .leaves = {{3, 4 * kib}, {3, 64 * kib}},
      .permissions = {Allowed::read, Allowed::both},
      .address_bits = 48,
      .extension = Encoding::Extension::zero,
      .word_bytes = 8,
      .bus_bits = 48,
      .table_alignment = 4 * kib,
      .repeats_group = false,
      .link_flags = 0xfff,
      .leaf_flags = 0x7fb | 1ULL << 52,
      .link = [](unsigned, unsigned, std::uint64_t table) -> std::uint64_t { return table | 3; },
      .leaf = [](const Encoding&, const LeafKind& kind, std::uint64_t bus_address,
                 Allowed allowed) -> std::uint64_t {
        return bus_address | 0xc43 | (may_write(allowed) ? 0U : 0x80U) |
               (kind.size > 4 * kib ? 1ULL << 52 : 0);
      }};
}

inline Encoding nvidia_hopper_encoding() {
  return {
      .name = "nvidia_hopper",
      .format = Format::nvidia_hopper,
      .levels = 7,
      .hops = {{56, 1}, {47, 9}, {38, 9}, {29, 9}, {21, 8, 3, 0, 2}, {16, 5, 4, 0}, {12, 9, 4, 1}},
      .leaves = {{6, 4 * kib}, {5, 64 * kib}, {4, 2 * mib}, {3, 512 * mib}},
      .permissions = {Allowed::read, Allowed::both},
      .address_bits = 57,
      .extension = Encoding::Extension::zero,
      .word_bytes = 8,
      .bus_bits = 52,
      .table_alignment = 256,
      .repeats_group = false,
      .link_flags = 0x5,
      .leaf_flags = 0x31,
      .link = [](unsigned, unsigned, std::uint64_t table) -> std::uint64_t { return table | 0xc; },
      .leaf = [](const Encoding&, const LeafKind&, std::uint64_t bus_address, Allowed allowed)
          -> std::uint64_t { return bus_address | (may_write(allowed) ? 0x605U : 0x665U); }};
}

inline std::vector<Encoding> encodings() {
  return {gaudi1_encoding(),
          gaudi2_pmmu_4k_encoding(),
          gaudi2_pmmu_64k_encoding(),
          gaudi2_hmmu_encoding(),
          x86_64_encoding(4),
          x86_64_encoding(5),
          aarch64_encoding(12),
          aarch64_encoding(14),
          aarch64_encoding(16),
          riscv_encoding(3),
          riscv_encoding(4),
          riscv_encoding(5),
          vtd_second_stage_encoding(3),
          vtd_second_stage_encoding(4),
          vtd_second_stage_encoding(5),
          amd_iommu_v1_encoding(3),
          amd_iommu_v1_encoding(4),
          amd_iommu_v1_encoding(6),
          rockchip_encoding(Format::rockchip_v1),
          rockchip_encoding(Format::rockchip_v2),
          intel_npu_encoding(),
          nvidia_hopper_encoding()};
}

}  // namespace accelmm::test
