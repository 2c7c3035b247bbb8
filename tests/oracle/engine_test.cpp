// SPDX-License-Identifier: Apache-2.0
//
// Tables that the engine writes, walked by hardware that others emulate: the CPUs of Unicorn and QEMU,
// and QEMU's IOMMUs. Each is asked 10 000 times, or a tenth of ACCELMM_STEPS if that is more.
#include "oracle/amd_iommu_oracle.hpp"
#include "oracle/contiguous_groups.hpp"
#include "oracle/engine_judge.hpp"
#include "oracle/riscv_oracle.hpp"
#include "oracle/unicorn_aarch64.hpp"
#include "oracle/unicorn_riscv.hpp"
#include "oracle/vtd_oracle.hpp"
#include "oracle/x86_oracle.hpp"

#include <accelmm/mmu/aarch64.hpp>
#include <accelmm/mmu/amd_iommu.hpp>
#include <accelmm/mmu/riscv.hpp>
#include <accelmm/mmu/vtd.hpp>
#include <accelmm/mmu/x86_64.hpp>

#include <algorithm>
#include <cstdint>
#include <memory>

#include <gtest/gtest.h>

namespace accelmm::test {
namespace {

std::uint64_t to_be_asked() {
  return std::max<std::uint64_t>(10'000, number_from_environment("ACCELMM_STEPS", 100'000) / 10);
}

template <class F, class Made>
void judge(const char* name, const Made& made, typename EngineJudge<F>::Extension extension) {
  if (!made && made.error().code == Errc::no_entry) GTEST_SKIP() << made.error().what;
  ASSERT_TRUE(made.has_value()) << made.error().what;
  Dice dice(name);
  EngineJudge<F> engine(**made, extension, dice);
  const Speed speed(name);
  engine.run(to_be_asked());
  speed.print(engine.asked());
  for (int i = 0; i < 3; ++i) engine.plant_wrong_bit();
}

template <class F>
void judge_by_qemu_x86(unsigned levels) {
  judge<F>("engine/x86_64", X86Oracle::create({.levels = levels}), EngineJudge<F>::Extension::sign);
}
TEST(EngineX86, FourLevelsMeanToQemuWhatWasMapped) {
  judge_by_qemu_x86<mmu::X86_64<4>>(4);
}
TEST(EngineX86, FiveLevelsMeanToQemuWhatWasMapped) {
  judge_by_qemu_x86<mmu::X86_64<5>>(5);
}

template <unsigned granule_lg2, unsigned bits>
void judge_by_unicorn_arm() {
  using F = mmu::AArch64<granule_lg2, bits>;
  judge<F>("engine/aarch64",
           make_unicorn_aarch64({.granule_shift = granule_lg2, .address_bits = bits}),
           EngineJudge<F>::Extension::zero);
}
TEST(EngineAArch64, GranulesOf4KiBMeanToUnicornWhatWasMapped) {
  judge_by_unicorn_arm<12, 48>();
}
TEST(EngineAArch64, GranulesOf16KiBMeanToUnicornWhatWasMapped) {
  judge_by_unicorn_arm<14, 47>();
}
TEST(EngineAArch64, GranulesOf64KiBMeanToUnicornWhatWasMapped) {
  judge_by_unicorn_arm<16, 42>();
}

template <unsigned bits>
void judge_by_unicorn_riscv(unsigned levels) {
  using F = mmu::RiscV<bits, mmu::Svnapot::no>;
  judge<F>("engine/riscv", make_unicorn_riscv(levels), EngineJudge<F>::Extension::sign);
}
TEST(EngineRiscV, Sv39MeansToUnicornWhatWasMapped) {
  judge_by_unicorn_riscv<39>(3);
}
TEST(EngineRiscV, Sv48MeansToUnicornWhatWasMapped) {
  judge_by_unicorn_riscv<48>(4);
}
TEST(EngineRiscV, Sv57MeansToUnicornWhatWasMapped) {
  judge_by_unicorn_riscv<57>(5);
}

template <unsigned bits>
void judge_by_qemu_riscv(unsigned levels) {
  using F = mmu::RiscV<bits, mmu::Svnapot::yes>;
  judge<F>("engine/riscv-svnapot", RiscvOracle::create({.levels = levels}),
           EngineJudge<F>::Extension::sign);
}
TEST(EngineRiscV, Sv39WithSvnapotMeansToQemuWhatWasMapped) {
  judge_by_qemu_riscv<39>(3);
}
TEST(EngineRiscV, Sv48WithSvnapotMeansToQemuWhatWasMapped) {
  judge_by_qemu_riscv<48>(4);
}
TEST(EngineRiscV, Sv57WithSvnapotMeansToQemuWhatWasMapped) {
  judge_by_qemu_riscv<57>(5);
}

template <unsigned levels>
void judge_by_qemu_vtd() {
  using F = mmu::VtdSecondStage<levels>;
  judge<F>("engine/vtd", VtdOracle::create({.levels = levels}), EngineJudge<F>::Extension::zero);
}
TEST(EngineVtd, ThreeLevelsMeanToQemuWhatWasMapped) {
  judge_by_qemu_vtd<3>();
}
TEST(EngineVtd, FourLevelsMeanToQemuWhatWasMapped) {
  judge_by_qemu_vtd<4>();
}

template <unsigned levels>
void judge_by_qemu_amd() {
  using F = mmu::AmdIommuV1<levels>;
  judge<F>("engine/amd-iommu", AmdIommuOracle::create({.levels = levels}),
           EngineJudge<F>::Extension::zero);
}
TEST(EngineAmdIommu, ThreeLevelsMeanToQemuWhatWasMapped) {
  judge_by_qemu_amd<3>();
}
TEST(EngineAmdIommu, FourLevelsMeanToQemuWhatWasMapped) {
  judge_by_qemu_amd<4>();
}

}  // namespace
}  // namespace accelmm::test
