// SPDX-License-Identifier: Apache-2.0
//
// Tables that the engine writes, read by the naive walkers, for every format; and the golden words of
// public sources, against what the formats write.
#include "oracle/contiguous_groups.hpp"
#include "oracle/engine_judge.hpp"
#include "oracle/golden_words.hpp"
#include "oracle/naive_walk.hpp"

#include <accelmm/mmu/aarch64.hpp>
#include <accelmm/mmu/amd_iommu.hpp>
#include <accelmm/mmu/gaudi.hpp>
#include <accelmm/mmu/gaudi2_scramble.hpp>
#include <accelmm/mmu/hopper.hpp>
#include <accelmm/mmu/ivpu.hpp>
#include <accelmm/mmu/riscv.hpp>
#include <accelmm/mmu/rockchip.hpp>
#include <accelmm/mmu/vtd.hpp>
#include <accelmm/mmu/x86_64.hpp>

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <optional>
#include <type_traits>
#include <vector>

#include <gtest/gtest.h>

namespace accelmm::test {
namespace {

/// A format of ours, and what the naive walkers call it.
template <class F, Format format, unsigned levels,
          typename EngineJudge<F>::Extension extension = EngineJudge<F>::Extension::zero>
struct Pair {
  using Ours = F;
  static constexpr Format theirs = format;
  static constexpr unsigned hops = levels;
  static constexpr auto extends = extension;
  // Whose public words have attributes that ours never have.
  static constexpr bool has_foreign_bits = format == Format::amd_iommu_v1;
};
template <class F, Format format, unsigned levels>
using Signed = Pair<F, format, levels, EngineJudge<F>::Extension::sign>;

/// A naive walker as an oracle.
class NaiveOracle final : public Oracle {
  struct alignas(64) Line {
    std::byte bytes[64];
  };

 public:
  NaiveOracle(Format format, unsigned levels)
      : format_(format), levels_(levels), lines_((std::size_t{8} << 20) / sizeof(Line)) {}

  [[nodiscard]] std::span<std::byte> memory() override {
    return {lines_.front().bytes, lines_.size() * sizeof(Line)};
  }
  [[nodiscard]] std::uint64_t base() const override { return 0x7654'0000; }
  [[nodiscard]] Read reader() const {
    return [this](std::uint64_t address, unsigned bytes) {
      std::uint64_t word = 0;
      if (address >= base() && address - base() + bytes <= lines_.size() * sizeof(Line))
        std::memcpy(&word, lines_.front().bytes + (address - base()), bytes);
      return word;
    };
  }
  [[nodiscard]] Result<std::vector<std::optional<OracleAnswer>>> translate(
      std::uint64_t root, std::span<const std::uint64_t> addresses, Access wanted) override {
    std::vector<std::optional<OracleAnswer>> answers;
    for (const std::uint64_t address : addresses) {
      const auto found = naive_walk(format_, levels_, reader(), root, address);
      const bool allowed = found && allows(static_cast<Access>(found->allowed), wanted);
      answers.push_back(allowed ? std::optional(OracleAnswer{found->bus_address, found->leaf_size})
                                : std::nullopt);
    }
    return answers;
  }

 private:
  Format format_;
  unsigned levels_;
  std::vector<Line> lines_;
};

template <class P>
class EngineNaive : public testing::Test {};

using Pairs = testing::Types<
    Pair<mmu::Gaudi1, Format::gaudi1, 5>, Pair<mmu::Gaudi2Host4k, Format::gaudi2_pmmu_4k, 6>,
    Pair<mmu::Gaudi2Host64k, Format::gaudi2_pmmu_64k, 6>,
    Pair<mmu::Gaudi2Dram, Format::gaudi2_hmmu, 5>, Signed<mmu::X86_64<4>, Format::x86_64, 4>,
    Signed<mmu::X86_64<5>, Format::x86_64, 5>, Pair<mmu::AArch64<12, 48>, Format::aarch64_4k, 4>,
    Pair<mmu::AArch64<14, 48>, Format::aarch64_16k, 4>,
    Pair<mmu::AArch64<16, 48>, Format::aarch64_64k, 3>,
    Signed<mmu::RiscV<39, mmu::Svnapot::yes>, Format::riscv, 3>,
    Signed<mmu::RiscV<48, mmu::Svnapot::yes>, Format::riscv, 4>,
    Signed<mmu::RiscV<57, mmu::Svnapot::yes>, Format::riscv, 5>,
    Pair<mmu::VtdSecondStage<3>, Format::vtd_second_stage, 3>,
    Pair<mmu::VtdSecondStage<4>, Format::vtd_second_stage, 4>,
    Pair<mmu::VtdSecondStage<5>, Format::vtd_second_stage, 5>,
    Pair<mmu::AmdIommuV1<3>, Format::amd_iommu_v1, 3>,
    Pair<mmu::AmdIommuV1<4>, Format::amd_iommu_v1, 4>,
    Pair<mmu::AmdIommuV1<5>, Format::amd_iommu_v1, 5>,
    Pair<mmu::RockchipV1, Format::rockchip_v1, 2>, Pair<mmu::RockchipV2, Format::rockchip_v2, 2>,
    Pair<mmu::Ivpu, Format::intel_npu, 4>, Pair<mmu::Hopper, Format::nvidia_hopper, 7>>;
TYPED_TEST_SUITE(EngineNaive, Pairs);

TYPED_TEST(EngineNaive, TablesMeanToTheNaiveWalkerWhatWasMapped) {
  NaiveOracle oracle(TypeParam::theirs, TypeParam::hops);
  Dice dice("engine/naive");
  EngineJudge<typename TypeParam::Ours> engine(oracle, TypeParam::extends, dice);
  engine.run(
      std::max<std::uint64_t>(10'000, number_from_environment("ACCELMM_STEPS", 100'000) / 10));
  for (int i = 0; i < 3; ++i) engine.plant_wrong_bit();
}

TYPED_TEST(EngineNaive, GoldenWordsReadAndWriteAsTheSourceSays) {
  using F = typename TypeParam::Ours;
  using Word = typename F::Word;
  std::uint64_t links = 0;
  std::uint64_t leaves = 0;
  for (const GoldenWord& golden : golden_words) {
    if (golden.format != TypeParam::theirs || golden.levels != TypeParam::hops) continue;
    const auto word = static_cast<Word>(golden.word);
    const mmu::EntryKind kind = F::classify(golden.hop, word);
    if (golden.entry == Entry::nothing) {
      EXPECT_NE(kind, mmu::EntryKind::leaf) << golden.source;
    } else if (golden.entry == Entry::link && kind == mmu::EntryKind::table) {
      ++links;
      EXPECT_EQ(F::link_address(golden.hop, word).value(), golden.bus_address) << golden.source;
      EXPECT_EQ(F::make_link(golden.hop, BusAddr(golden.bus_address)), word) << golden.source;
    } else if (golden.entry == Entry::leaf && kind == mmu::EntryKind::leaf) {
      ++leaves;
      BusAddr begin = F::leaf_address(golden.hop, word);
      std::uint64_t size = std::uint64_t{1} << F::leaf_lg2(golden.hop, word);
      if constexpr (std::is_same_v<F, mmu::Gaudi2Dram>) {  // the words say bytes that are scrambled
        const auto scramble = *mmu::Gaudi2Scramble::create(6);
        begin = *scramble.descramble(begin);
        size = size / mmu::Gaudi2Scramble::leaf * scramble.page().value();
      }
      EXPECT_EQ(size, golden.size) << golden.source;
      EXPECT_EQ(begin.value() - begin.value() % size,
                golden.bus_address - golden.bus_address % size)
          << golden.source;
      EXPECT_EQ(static_cast<int>(F::attributes(golden.hop, word).access),
                static_cast<int>(golden.allowed))
          << golden.source;
    }
  }
  // Of the words that others write, classify() refuses those that we never would (an attribute index
  // of Arm, an accessed bit that is left to hardware): what is left must be enough to tell, where the
  // public sources have words of this many levels.
  std::printf("%llu links and %llu leaves agree\n", static_cast<unsigned long long>(links),
              static_cast<unsigned long long>(leaves));
  EXPECT_GE(links + leaves, TypeParam::has_foreign_bits ? 0u : 1u);
}

TEST(EngineContiguous, GroupsKeepTheRuleOfTheArchitecture) {
  const auto judge = [](auto format, Format theirs, unsigned levels, unsigned granule_lg2) {
    using F = decltype(format);
    NaiveOracle oracle(theirs, levels);
    Dice dice("engine/contiguous");
    EngineJudge<F> engine(oracle, EngineJudge<F>::Extension::zero, dice);
    engine.run(4000);
    const auto found = ContiguousJudge::judge(oracle.reader(), engine.root(), granule_lg2,
                                              mmu::Geometry<F>::va_bits);
    EXPECT_EQ(found.wrong, "");
    EXPECT_GT(found.groups, 0u);
  };
  judge(mmu::AArch64<12, 48>(), Format::aarch64_4k, 4, 12);
  judge(mmu::AArch64<14, 48>(), Format::aarch64_16k, 4, 14);
  judge(mmu::AArch64<16, 48>(), Format::aarch64_64k, 3, 16);
  judge(mmu::Ivpu(), Format::intel_npu, 4, 12);
}

// Pages of 48 MiB, one byte after the other in both address spaces, as the device scrambles them.
TEST(EngineGaudi2Dram, PagesOfNoPowerOfTwoLieSideBySide) {
  constexpr std::uint64_t begin = mmu::Gaudi2Scramble::dram_begin;
  const auto scramble = *mmu::Gaudi2Scramble::create(6);
  const std::uint64_t size = scramble.page().value();
  ASSERT_EQ(size, std::uint64_t{48} << 20);
  NaiveOracle oracle(Format::gaudi2_hmmu, 5);
  auto pool = mmu::TablePool::create({.begin = BusAddr(oracle.base()),
                                      .size = ByteCount(oracle.memory().size()),
                                      .cpu_view = oracle.memory().data()});
  auto tree = mmu::PageTable<mmu::Gaudi2Dram, mmu::TablePool>::create(*pool);
  const DeviceAddr va(begin + 5 * size);
  const BusAddr bus(begin + 101 * size);
  for (std::uint64_t page = 0; page < 40; ++page) {
    const mmu::test::Runs runs{
        {*scramble.scramble(bus + ByteCount(page * size)), ByteCount(mmu::Gaudi2Scramble::leaf)}};
    ASSERT_TRUE(
        tree->map(*scramble.scramble(va + ByteCount(page * size)), runs, Access::read_write));
  }
  std::vector<Expectation> expected;
  for (std::uint64_t offset = 0; offset < 40 * size; offset += (size / 3) & ~std::uint64_t{7})
    expected.push_back({va.value() + offset, OracleAnswer{bus.value() + offset, size}});
  expected.push_back({va.value() - 1, std::nullopt});
  expected.push_back({va.value() + 40 * size, std::nullopt});
  EXPECT_TRUE(compare(oracle, tree->root().value(), expected));
  mmu::test::release(tree->detach_all());
}

}  // namespace
}  // namespace accelmm::test
