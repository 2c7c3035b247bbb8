// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>

// Words of tables as the public sources of their formats write them. They follow from those sources
// alone: whoever reads or writes tables here is measured against them, and is never used to make
// them. "linux" is the Linux kernel, "uvm" kernel-open/nvidia-uvm in open-gpu-kernel-modules of
// NVIDIA. Files without a folder are those of the comment above them.

namespace accelmm::test {

enum class Format : std::uint8_t {
  gaudi1,
  gaudi2_pmmu_4k,
  gaudi2_pmmu_64k,
  gaudi2_hmmu,
  x86_64,
  aarch64_4k,
  aarch64_16k,
  aarch64_64k,
  riscv,
  vtd_second_stage,
  amd_iommu_v1,
  rockchip_v1,
  rockchip_v2,
  intel_npu,
  nvidia_hopper,
};

enum class Entry : std::uint8_t { nothing, link, leaf };

/// What may be done with a leaf. The values are a bit set, as those of accelmm::Access.
enum class Allowed : std::uint8_t { neither = 0, read = 1, write = 2, both = 3 };

/// One word of a table of `levels` hops, in hop `hop` counted from the root.
///
/// Of an entry that consists of two words, `part` says which. Hopper's tables of 64 KiB pages are
/// hop 5, linked by part 0 of hop 4, those of 4 KiB pages hop 6, linked by part 1.
struct GoldenWord {
  Format format;
  unsigned levels;
  unsigned hop;
  Entry entry;
  std::uint64_t bus_address;  ///< of the next table, or of the memory; of a group the item's own
  std::uint64_t size;         ///< of the leaf in bytes, of the whole group where it is part of one
  Allowed allowed;
  std::uint64_t word;
  const char* source;
  unsigned part = 0;
};

// clang-format off
inline constexpr auto golden_words = [] {
  using enum Format;
  using enum Entry;
  using enum Allowed;
  return std::to_array<GoldenWord>({
    // linux drivers/accel/habanalabs/include/hw_ip/mmu/mmu_general.h: PAGE_PRESENT_MASK 1,
    // LAST_MASK 0x800, FLAGS_MASK 0xfff; the hops' shifts are in mmu_v1_1.h and mmu_v2_0.h beside
    // it.
    {gaudi1, 5, 0, link, 0x1'2345'6000, 0, neither, 0x1'2345'6001,
     "linux habanalabs mmu_v1.c hl_mmu_v1_map, curr_pte of a new hop"},
    {gaudi1, 5, 3, link, 0xab'cdef'0000, 0, neither, 0xab'cdef'0001,
     "linux habanalabs mmu_v1.c hl_mmu_v1_map, curr_pte of a new hop"},
    {gaudi1, 5, 4, leaf, 0x12'3456'7000, 0x1000, both, 0x12'3456'7801,
     "linux habanalabs mmu_v1.c hl_mmu_v1_map, final PTE (is_huge false)"},
    {gaudi1, 5, 3, leaf, 0x12'3460'0000, 0x20'0000, both, 0x12'3460'0801,
     "linux habanalabs mmu_v1.c hl_mmu_v1_map, final PTE (is_huge true: one hop less)"},
    {gaudi1, 5, 4, nothing, 0, 0, neither, 0x12'3456'7001,
     "linux habanalabs mmu_v1.c hl_mmu_v1_get_tlb_info: no last hop was found"},
    {gaudi2_pmmu_4k, 6, 0, link, 0x7f'1234'5000, 0, neither, 0x7f'1234'5001,
     "linux habanalabs mmu_v2_hr.c _hl_mmu_v2_hr_map, curr_pte of a new hop"},
    {gaudi2_pmmu_4k, 6, 4, link, 0x7f'1234'5000, 0, neither, 0x7f'1234'5001,
     "linux habanalabs mmu_v2_hr.c _hl_mmu_v2_hr_map, curr_pte of a new hop"},
    {gaudi2_pmmu_4k, 6, 5, leaf, 0x12'3456'7000, 0x1000, both, 0x12'3456'7801,
     "linux habanalabs gaudi2.c pmmu.page_size PAGE_SIZE_4KB, HOP5_SHIFT_4K 12"},
    {gaudi2_pmmu_4k, 6, 4, leaf, 0x12'3460'0000, 0x20'0000, both, 0x12'3460'0801,
     "linux habanalabs gaudi2.c pmmu_huge.page_size PAGE_SIZE_2MB, HOP4_SHIFT_4K 21"},
    {gaudi2_pmmu_64k, 6, 0, link, 0x7f'1234'5000, 0, neither, 0x7f'1234'5001,
     "linux habanalabs mmu_v2_hr.c _hl_mmu_v2_hr_map, curr_pte of a new hop"},
    {gaudi2_pmmu_64k, 6, 5, leaf, 0x12'3457'0000, 0x1'0000, both, 0x12'3457'0801,
     "linux habanalabs gaudi2.c pmmu.page_size PAGE_SIZE_64KB, HOP5_SHIFT_64K 16"},
    {gaudi2_pmmu_64k, 6, 4, leaf, 0x12'3400'0000, 0x100'0000, both, 0x12'3400'0801,
     "linux habanalabs gaudi2.c pmmu_huge.page_size PAGE_SIZE_16MB, HOP4_SHIFT_64K 24"},
    // With 6 stacks of memory: the word holds the scrambled address (golden_scrambles), bus_address
    // is the plain one.
    {gaudi2_hmmu, 5, 0, link, 0x7f'1234'5000, 0, neither, 0x7f'1234'5001,
     "linux habanalabs mmu_v2_hr.c _hl_mmu_v2_hr_map, curr_pte of a new hop"},
    {gaudi2_hmmu, 5, 3, leaf, 0x1001'0000'3000'0000, 0x3000'0000, both, 0x1001'0000'4000'0801,
     "linux habanalabs gaudi2.c dmmu.page_size PAGE_SIZE_1GB: hl_mmu_v2_get_last_hop gives "
     "hop 3; dram_page_size 16 * 6 * SZ_8M"},
    {gaudi2_hmmu, 5, 4, leaf, 0x1001'0000'0900'0000, 0x300'0000, both, 0x1001'0000'0c00'0801,
     "linux habanalabs mmu_v2_0.h DHOP4_SHIFT 26; gaudi2.c above gaudi2_mmu_scramble_addr, PA2"},

    // linux drivers/iommu/generic_pt/fmt/x86_64.h: P 1, RW 2, U 4, A 0x20, D 0x40, PS 0x80.
    {x86_64, 4, 0, link, 0x1'2345'6000, 0, neither, 0x1'2345'6027,
     "linux generic_pt x86_64.h x86_64_pt_install_table: P|RW|U|A"},
    {x86_64, 5, 0, link, 0x1'2345'6000, 0, neither, 0x1'2345'6027,
     "linux generic_pt x86_64.h x86_64_pt_install_table: P|RW|U|A"},
    {x86_64, 4, 3, leaf, 0x12'3456'7000, 0x1000, both, 0x12'3456'7067,
     "linux generic_pt x86_64.h x86_64_pt_iommu_set_prot: P|RW|U|A|D"},
    {x86_64, 4, 3, leaf, 0x12'3456'7000, 0x1000, read, 0x12'3456'7025,
     "linux generic_pt x86_64.h x86_64_pt_iommu_set_prot: P|U|A"},
    {x86_64, 4, 2, leaf, 0x12'3460'0000, 0x20'0000, both, 0x12'3460'00e7,
     "linux generic_pt x86_64.h x86_64_pt_install_leaf_entry: |PS above level 0"},
    {x86_64, 4, 1, leaf, 0x12'4000'0000, 0x4000'0000, read, 0x12'4000'00a5,
     "linux generic_pt x86_64.h x86_64_pt_install_leaf_entry: |PS above level 0"},
    {x86_64, 5, 2, leaf, 0x12'4000'0000, 0x4000'0000, both, 0x12'4000'00e7,
     "linux generic_pt x86_64.h x86_64_pt_install_leaf_entry: |PS above level 0"},

    // linux drivers/iommu/io-pgtable-arm.c: type table and page 3, block 1, AF 0x400, SH_IS 0x300,
    // nG 0x800, AP_UNPRIV 0x40, AP_RDONLY 0x80, attribute index 1 (ARM_LPAE_MAIR_ATTR_IDX_CACHE) in
    // bits 2-4, for IOMMU_CACHE.
    {aarch64_4k, 4, 0, link, 0x1'2345'6000, 0, neither, 0x1'2345'6003,
     "linux io-pgtable-arm.c ARM_LPAE_PTE_TYPE_TABLE"},
    {aarch64_4k, 4, 3, leaf, 0x12'3456'7000, 0x1000, both, 0x12'3456'7f47,
     "linux io-pgtable-arm.c arm_lpae_prot_to_pte, ARM_64_LPAE_S1"},
    {aarch64_4k, 4, 3, leaf, 0x12'3456'7000, 0x1000, read, 0x12'3456'7fc7,
     "linux io-pgtable-arm.c arm_lpae_prot_to_pte: AP_RDONLY"},
    {aarch64_4k, 4, 3, leaf, 0x12'3456'7000, 0x1000, both, 0x60'0012'3456'7f47,
     "linux io-pgtable-arm.c arm_lpae_prot_to_pte: IOMMU_NOEXEC, ARM_LPAE_PTE_XN"},
    {aarch64_4k, 4, 2, leaf, 0x12'3460'0000, 0x20'0000, both, 0x12'3460'0f45,
     "linux io-pgtable-arm.c ARM_LPAE_PTE_TYPE_BLOCK"},
    {aarch64_4k, 4, 1, leaf, 0x12'4000'0000, 0x4000'0000, both, 0x12'4000'0f45,
     "linux io-pgtable-arm.c ARM_LPAE_PTE_TYPE_BLOCK"},
    {aarch64_4k, 4, 3, leaf, 0x12'3457'0000, 0x1'0000, both, 0x10'0012'3457'0f47,
     "linux arch/arm64 pgtable-hwdef.h PTE_CONT bit 52, Kconfig ARM64_CONT_PTE_SHIFT 4: first "
     "of 16"},
    {aarch64_4k, 4, 2, leaf, 0x12'3420'0000, 0x200'0000, both, 0x10'0012'3420'0f45,
     "linux arch/arm64 Kconfig ARM64_CONT_PMD_SHIFT 4: second of 16"},
    {aarch64_16k, 4, 0, link, 0x1'2345'4000, 0, neither, 0x1'2345'4003,
     "linux io-pgtable-arm.c ARM_LPAE_PTE_TYPE_TABLE"},
    {aarch64_16k, 4, 3, leaf, 0x12'3456'4000, 0x4000, both, 0x12'3456'4f47,
     "linux io-pgtable-arm.c arm_lpae_prot_to_pte, ARM_64_LPAE_S1"},
    {aarch64_16k, 4, 2, leaf, 0x12'3400'0000, 0x200'0000, read, 0x12'3400'0fc5,
     "linux io-pgtable-arm.c ARM_LPAE_PTE_TYPE_BLOCK, AP_RDONLY"},
    {aarch64_16k, 4, 3, leaf, 0x12'3440'0000, 0x20'0000, both, 0x10'0012'3440'0f47,
     "linux arch/arm64 Kconfig ARM64_CONT_PTE_SHIFT 7: first of 128"},
    {aarch64_16k, 4, 2, leaf, 0x12'4000'0000, 0x4000'0000, both, 0x10'0012'4000'0f45,
     "linux arch/arm64 Kconfig ARM64_CONT_PMD_SHIFT 5: first of 32"},
    {aarch64_64k, 3, 0, link, 0x1'2345'0000, 0, neither, 0x1'2345'0003,
     "linux io-pgtable-arm.c ARM_LPAE_PTE_TYPE_TABLE"},
    {aarch64_64k, 3, 2, leaf, 0x12'3457'0000, 0x1'0000, both, 0x12'3457'0f47,
     "linux io-pgtable-arm.c arm_lpae_prot_to_pte, ARM_64_LPAE_S1"},
    {aarch64_64k, 3, 1, leaf, 0x12'2000'0000, 0x2000'0000, both, 0x12'2000'0f45,
     "linux io-pgtable-arm.c ARM_LPAE_PTE_TYPE_BLOCK"},
    {aarch64_64k, 3, 2, leaf, 0x12'3460'0000, 0x20'0000, both, 0x10'0012'3460'0f47,
     "linux arch/arm64 Kconfig ARM64_CONT_PTE_SHIFT 5: first of 32"},
    {aarch64_64k, 3, 1, leaf, 0x14'0000'0000, 0x4'0000'0000, both, 0x10'0014'0000'0f45,
     "linux arch/arm64 Kconfig ARM64_CONT_PMD_SHIFT 5: first of 32"},

    // linux drivers/iommu/generic_pt/fmt/riscv.h: V 1, R 2, W 4, X 8, U 0x10, A 0x40, D 0x80, PPN
    // from bit 10, N bit 63.
    {riscv, 3, 0, link, 0x8123'4000, 0, neither, 0x2048'd001,
     "linux generic_pt riscv.h riscvpt_install_table"},
    {riscv, 5, 0, link, 0x8123'4000, 0, neither, 0x2048'd001,
     "linux generic_pt riscv.h riscvpt_install_table"},
    {riscv, 3, 2, leaf, 0x12'3456'7000, 0x1000, both, 0x4'8d15'9cd7,
     "linux generic_pt riscv.h riscvpt_iommu_set_prot: A|U|W|R|D, IOMMU_NOEXEC"},
    {riscv, 3, 2, leaf, 0x12'3456'7000, 0x1000, read, 0x4'8d15'9c53,
     "linux generic_pt riscv.h riscvpt_iommu_set_prot: A|U|R, IOMMU_NOEXEC"},
    {riscv, 4, 3, leaf, 0x12'3456'7000, 0x1000, both, 0x4'8d15'9cdf,
     "linux generic_pt riscv.h riscvpt_iommu_set_prot: A|U|W|R|D|X"},
    {riscv, 3, 2, leaf, 0x12'3457'0000, 0x1'0000, both, 0x8000'0004'8d15'e0d7,
     "linux generic_pt riscv.h riscvpt_install_leaf_entry: RISCVPT_N|RISCVPT_PPN64_64K_SZ, "
     "same in all 16"},
    {riscv, 3, 1, leaf, 0x12'3460'0000, 0x20'0000, both, 0x4'8d18'00d7,
     "linux generic_pt riscv.h riscvpt_install_leaf_entry"},
    {riscv, 3, 0, leaf, 0x12'4000'0000, 0x4000'0000, read, 0x4'9000'0053,
     "linux generic_pt riscv.h riscvpt_can_have_leaf: every level"},
    {riscv, 4, 0, leaf, 0x180'0000'0000, 0x80'0000'0000, both, 0x60'0000'00d7,
     "linux generic_pt riscv.h riscvpt_can_have_leaf: every level"},

    // linux drivers/iommu/generic_pt/fmt/vtdss.h: R 1, W 2, PS 0x80.
    {vtd_second_stage, 4, 0, link, 0x1'2345'6000, 0, neither, 0x1'2345'6003,
     "linux generic_pt vtdss.h vtdss_pt_install_table"},
    {vtd_second_stage, 4, 3, leaf, 0x12'3456'7000, 0x1000, both, 0x12'3456'7003,
     "linux generic_pt vtdss.h vtdss_pt_iommu_set_prot"},
    {vtd_second_stage, 4, 3, leaf, 0x12'3456'7000, 0x1000, read, 0x12'3456'7001,
     "linux generic_pt vtdss.h vtdss_pt_iommu_set_prot"},
    {vtd_second_stage, 4, 3, leaf, 0x12'3456'7000, 0x1000, write, 0x12'3456'7002,
     "linux generic_pt vtdss.h vtdss_pt_iommu_set_prot"},
    {vtd_second_stage, 4, 2, leaf, 0x12'3460'0000, 0x20'0000, both, 0x12'3460'0083,
     "linux generic_pt vtdss.h vtdss_pt_install_leaf_entry: |PS above level 0"},
    {vtd_second_stage, 3, 0, leaf, 0x12'4000'0000, 0x4000'0000, both, 0x12'4000'0083,
     "linux generic_pt vtdss.h vtdss_pt_install_leaf_entry: |PS above level 0"},
    {vtd_second_stage, 5, 2, leaf, 0x12'4000'0000, 0x4000'0000, read, 0x12'4000'0081,
     "linux generic_pt vtdss.h vtdss_pt_install_leaf_entry: |PS above level 0"},

    // linux drivers/iommu/generic_pt/fmt/amdv1.h: PR 1, next level in bits 9-11, IR bit 61, IW bit
    // 62.
    {amd_iommu_v1, 4, 0, link, 0x1'2345'6000, 0, neither, 0x6000'0001'2345'6601,
     "linux generic_pt amdv1.h amdv1pt_install_table: next level is the level's number, 3 at "
     "the top of 4"},
    {amd_iommu_v1, 4, 2, link, 0x1'2345'6000, 0, neither, 0x6000'0001'2345'6201,
     "linux generic_pt amdv1.h amdv1pt_install_table"},
    {amd_iommu_v1, 4, 3, leaf, 0x12'3456'7000, 0x1000, both, 0x6000'0012'3456'7001,
     "linux generic_pt amdv1.h amdv1pt_install_leaf_entry: AMDV1PT_FMT_NL_DEFAULT"},
    {amd_iommu_v1, 4, 3, leaf, 0x12'3456'7000, 0x1000, read, 0x2000'0012'3456'7001,
     "linux generic_pt amdv1.h amdv1pt_iommu_set_prot: IR"},
    {amd_iommu_v1, 4, 3, leaf, 0x12'3456'7000, 0x1000, write, 0x4000'0012'3456'7001,
     "linux generic_pt amdv1.h amdv1pt_iommu_set_prot: IW"},
    {amd_iommu_v1, 4, 3, leaf, 0x12'3456'6000, 0x2000, both, 0x6000'0012'3456'6e01,
     "linux generic_pt amdv1.h amdv1pt_install_leaf_entry: NL_SIZE, (1 << (13 - 12 - 1)) - 1 = 0"},
    {amd_iommu_v1, 4, 3, leaf, 0x12'3457'0000, 0x1'0000, both, 0x6000'0012'3457'7e01,
     "linux generic_pt amdv1.h amdv1pt_install_leaf_entry: NL_SIZE, (1 << (16 - 12 - 1)) - 1 = 7"},
    {amd_iommu_v1, 4, 2, leaf, 0x12'3460'0000, 0x20'0000, both, 0x6000'0012'3460'0001,
     "linux generic_pt amdv1.h amdv1pt_install_leaf_entry: AMDV1PT_FMT_NL_DEFAULT"},
    {amd_iommu_v1, 4, 2, leaf, 0x12'3440'0000, 0x40'0000, both, 0x6000'0012'345f'fe01,
     "linux generic_pt amdv1.h amdv1pt_install_leaf_entry: NL_SIZE, (1 << (22 - 12 - 1)) - 1 "
     "= 0x1ff"},
    {amd_iommu_v1, 4, 1, leaf, 0x12'4000'0000, 0x4000'0000, both, 0x6000'0012'4000'0001,
     "linux generic_pt amdv1.h amdv1pt_install_leaf_entry: AMDV1PT_FMT_NL_DEFAULT"},
    {amd_iommu_v1, 4, 0, nothing, 0, 0, neither, 0x6000'0080'0000'0001,
     "linux generic_pt amdv1.h amdv1pt_possible_sizes: & ~SZ_512G"},

    // linux drivers/iommu/rockchip-iommu.c
    {rockchip_v1, 2, 0, link, 0x2345'6000, 0, neither, 0x2345'6001,
     "linux rockchip-iommu.c rk_mk_dte"},
    {rockchip_v1, 2, 1, leaf, 0x3456'7000, 0x1000, both, 0x3456'7007,
     "linux rockchip-iommu.c rk_mk_pte"},
    {rockchip_v1, 2, 1, leaf, 0x3456'7000, 0x1000, read, 0x3456'7003,
     "linux rockchip-iommu.c rk_mk_pte"},
    {rockchip_v1, 2, 1, leaf, 0x3456'7000, 0x1000, write, 0x3456'7005,
     "linux rockchip-iommu.c rk_mk_pte"},
    {rockchip_v1, 2, 1, nothing, 0, 0, neither, 0x3456'7006,
     "linux rockchip-iommu.c rk_mk_pte_invalid: all but the valid bit stays"},
    {rockchip_v2, 2, 0, link, 0x12'3456'7000, 0, neither, 0x3456'7211,
     "linux rockchip-iommu.c rk_mk_dte_v2: address bits 35-32 in 11-8, 39-36 in 7-4"},
    {rockchip_v2, 2, 1, leaf, 0xab'3456'7000, 0x1000, both, 0x3456'7ba7,
     "linux rockchip-iommu.c rk_mk_pte_v2"},
    {rockchip_v2, 2, 1, leaf, 0xab'3456'7000, 0x1000, read, 0x3456'7ba3,
     "linux rockchip-iommu.c rk_mk_pte_v2: RK_PTE_PAGE_READABLE, bit 1"},
    {rockchip_v2, 2, 1, leaf, 0xab'3456'7000, 0x1000, write, 0x3456'7ba5,
     "linux rockchip-iommu.c rk_mk_pte_v2: RK_PTE_PAGE_WRITABLE, bit 2"},

    // linux drivers/accel/ivpu/ivpu_mmu_context.c: ENTRY_VALID 3, AF 0x400, USER 0x40, NG 0x800, RO
    // 0x80, CONT bit 52.
    {intel_npu, 4, 0, link, 0x1'2345'6000, 0, neither, 0x1'2345'6003,
     "linux ivpu_mmu_context.c ivpu_mmu_ensure_pud: IVPU_MMU_ENTRY_VALID"},
    {intel_npu, 4, 3, leaf, 0x12'3456'7000, 0x1000, both, 0x12'3456'7c43,
     "linux ivpu_mmu_context.c IVPU_MMU_ENTRY_MAPPED"},
    {intel_npu, 4, 3, leaf, 0x12'3456'7000, 0x1000, both, 0x12'3456'7c47,
     "linux ivpu_mmu_context.c ivpu_mmu_context_map_sgt: llc_coherent"},
    {intel_npu, 4, 3, leaf, 0x12'3456'7000, 0x1000, read, 0x12'3456'7cc3,
     "linux ivpu_mmu_context.c IVPU_MMU_ENTRY_FLAG_RO, bit 7"},
    {intel_npu, 4, 3, leaf, 0x12'3457'0000, 0x1'0000, both, 0x10'0012'3457'0c43,
     "linux ivpu_mmu_context.c ivpu_mmu_context_map_cont_64k: first of 16"},
    {intel_npu, 4, 3, leaf, 0x12'3457'f000, 0x1'0000, both, 0x10'0012'3457'fc43,
     "linux ivpu_mmu_context.c ivpu_mmu_context_map_cont_64k: last of 16"},
    {intel_npu, 4, 3, nothing, 0, 0, neither, 0xdead'b000,
     "linux ivpu_mmu_context.c IVPU_MMU_ENTRY_INVALID"},

    // uvm hwref/hopper/gh100/dev_mmu.h NV_MMU_VER3_*; the words are those of uvm_page_tree_test.c
    // where it has them.
    {nvidia_hopper, 7, 0, link, 0x9'9999'9999'9000, 0, neither, 0x9'9999'9999'900c,
     "uvm uvm_page_tree_test.c entry_test_hopper: system memory, ATS off"},
    {nvidia_hopper, 7, 0, link, 0xbb'bbbb'b000, 0, neither, 0xbb'bbbb'b00a,
     "uvm uvm_page_tree_test.c entry_test_hopper: video memory, ATS off"},
    {nvidia_hopper, 7, 4, link, 0x9'9999'9999'9900, 0, neither, 0x9'9999'9999'990c,
     "uvm uvm_page_tree_test.c entry_test_hopper: dual PDE, big half"},
    {nvidia_hopper, 7, 4, link, 0x9'9999'9999'9000, 0, neither, 0x9'9999'9999'900c,
     "uvm uvm_page_tree_test.c entry_test_hopper: dual PDE, small half", 1},
    {nvidia_hopper, 7, 6, leaf, 0x9'9999'9999'9000, 0x1000, both, 0x9'9999'9999'9645,
     "uvm uvm_page_tree_test.c entry_test_hopper: read, write, no atomics, cached"},
    {nvidia_hopper, 7, 6, leaf, 0x9'9999'9999'9000, 0x1000, both, 0x9'9999'9999'9605,
     "uvm uvm_page_tree_test.c entry_test_hopper: with atomics"},
    {nvidia_hopper, 7, 6, leaf, 0x9'9999'9999'9000, 0x1000, read, 0x9'9999'9999'9665,
     "uvm uvm_page_tree_test.c entry_test_hopper: read only"},
    {nvidia_hopper, 7, 6, leaf, 0xbb'bbbb'b000, 0x1000, read, 0xbb'bbbb'b661,
     "uvm uvm_page_tree_test.c entry_test_hopper: local video memory"},
    {nvidia_hopper, 7, 5, leaf, 0x9'9999'9999'0000, 0x1'0000, both, 0x9'9999'9999'0605,
     "uvm uvm_hopper_mmu.c make_pte_hopper, index_bits_hopper: 5 bits at depth 5"},
    {nvidia_hopper, 7, 4, leaf, 0x9'9999'9980'0000, 0x20'0000, both, 0x9'9999'9980'0605,
     "uvm uvm_hopper_mmu.c page_table_depth_hopper: 2M at depth 4"},
    {nvidia_hopper, 7, 3, leaf, 0x9'9999'a000'0000, 0x2000'0000, both, 0x9'9999'a000'0605,
     "uvm uvm_hopper_mmu.c page_table_depth_hopper: 512M at depth 3"},
    {nvidia_hopper, 7, 5, nothing, 0, 0, neither, 0x18,
     "uvm uvm_hopper_mmu.c unmapped_pte_hopper: no 4 KiB page below either"},
    {nvidia_hopper, 7, 6, nothing, 0, 0, neither, 0x8,
     "uvm uvm_page_tree_test.c entry_test_hopper: sparse"},
  });
}();
// clang-format on

/// An address of Gaudi2's own memory as programs know it, and as its HMMU walks and stores it.
struct GoldenScramble {
  unsigned stacks;  ///< of memory that work: 6, or 5
  std::uint64_t plain;
  std::uint64_t scrambled;
  const char* source;
};

// clang-format off
inline constexpr auto golden_scrambles = std::to_array<GoldenScramble>({
    // linux drivers/accel/habanalabs/gaudi2/gaudi2.c gaudi2_mmu_scramble_addr, with DRAM_PHYS_BASE
    // 0x1001'0000'0000'0000, VA_HBM_SPACE_END 0x1002'0000'0000'0000, and of gaudi2_masks.h
    // GAUDI2_HBM_MMU_SCRM_MEM_SIZE 8 MiB, _DIV_SHIFT 26, and a mask of 48 bits.
    {6, 0x1001'0000'9c00'0000, 0x1001'0000'd000'0000,
     "the comment above it: VA1 -> SVA1"},
    {6, 0x1001'0000'9f00'0000, 0x1001'0000'd400'0000,
     "the comment above it: VA2 -> SVA2"},
    {6, 0x1001'0000'0300'0000, 0x1001'0000'0400'0000,
     "the comment above it: PA1 is page 1"},
    {6, 0x1001'0000'0900'0000, 0x1001'0000'0c00'0000,
     "the comment above it: PA2 is page 3"},
    {6, 0x1001'0000'05ff'ffff, 0x1001'0000'06ff'ffff,
     "n * 48 MiB + r -> n * 64 MiB + r"},
    {5, 0x1001'0000'2800'0000, 0x1001'0000'4000'0000,
     "divisor 5 * SZ_8M: page 16"},
    {6, 0x1000'ffff'fd00'0000, 0x1000'ffff'fd00'0000,
     "SRAM_BASE_ADDR is outside the range"},
    {6, 0x1002'0000'0000'0000, 0x1002'0000'0000'0000,
     "the range's end is outside"},
    {6, 0x7f'1234'5000, 0x7f'1234'5000,
     "host memory is outside"},
});
// clang-format on

}  // namespace accelmm::test
