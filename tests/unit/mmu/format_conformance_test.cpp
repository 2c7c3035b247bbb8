// SPDX-License-Identifier: Apache-2.0
#include <accelmm/access.hpp>
#include <accelmm/mmu/aarch64.hpp>
#include <accelmm/mmu/amd_iommu.hpp>
#include <accelmm/mmu/format.hpp>
#include <accelmm/mmu/gaudi.hpp>
#include <accelmm/mmu/hopper.hpp>
#include <accelmm/mmu/ivpu.hpp>
#include <accelmm/mmu/npu1.hpp>
#include <accelmm/mmu/riscv.hpp>
#include <accelmm/mmu/rockchip.hpp>
#include <accelmm/mmu/vtd.hpp>
#include <accelmm/mmu/x86_64.hpp>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <random>
#include <type_traits>
#include <vector>

#include <gtest/gtest.h>

// What holds for every format, whatever its bits are. Which bits they are is asked of each alone, in
// format_*_test.cpp. The cases follow those of generic_pt's kunit suite in Linux; where a test here
// has a counterpart, a comment names it.

namespace accelmm::mmu {
namespace {

using Formats = ::testing::Types<
    Npu1, Gaudi1, Gaudi2Host4k, Gaudi2Host64k, Gaudi2Dram, X86_64<4>, X86_64<5>, AArch64<12, 48>,
    AArch64<12, 39>, AArch64<12, 32>, AArch64<14, 48>, AArch64<14, 47>, AArch64<16, 48>,
    AArch64<16, 42>, RiscV<39, Svnapot::no>, RiscV<39, Svnapot::yes>, RiscV<48, Svnapot::yes>,
    RiscV<57, Svnapot::yes>, VtdSecondStage<3>, VtdSecondStage<4>, VtdSecondStage<5>, AmdIommuV1<3>,
    AmdIommuV1<4>, AmdIommuV1<5>, AmdIommuV1<6>, RockchipV1, RockchipV2, Ivpu, Hopper>;

/// Bits that only a device writes and that mean nothing to us: "accessed", where we do not set it.
template <class F>
constexpr typename F::Word device_only = 0;
template <unsigned levels>
constexpr std::uint64_t device_only<VtdSecondStage<levels>> = std::uint64_t{1} << 8;
template <unsigned levels>
constexpr std::uint64_t device_only<AmdIommuV1<levels>> = std::uint64_t{1} << 5;

constexpr Attributes all_attributes[] = {
    {Access::read, MemoryType::write_back},       {Access::write, MemoryType::write_back},
    {Access::read_write, MemoryType::write_back}, {Access::read, MemoryType::write_combined},
    {Access::write, MemoryType::write_combined},  {Access::read_write, MemoryType::write_combined},
    {Access::read, MemoryType::device},           {Access::write, MemoryType::device},
    {Access::read_write, MemoryType::device},
};

/// The leaf as it was written: without what a device may have done to it since.
template <class F>
typename F::Word as_written(typename F::Word word) {
  const auto idle = static_cast<typename F::Word>(word & ~device_only<F>);
  if constexpr (F::has_dirty) return F::clean(idle);
  return idle;
}

template <class F>
class Format : public ::testing::Test {
 protected:
  static constexpr std::uint64_t bus_mask = ~std::uint64_t{0} >> (64 - F::bus_bits);
  // The least alignment of a table: a page, or Arm's granule.
  static constexpr std::uint64_t table_alignment =
      std::max<std::uint64_t>(4096, Geometry<F>::table_bytes(F::hops - 1));

  static std::vector<unsigned> sizes_of(unsigned hop) {
    std::vector<unsigned> result;
    for (unsigned lg2 = 0; lg2 < 64; ++lg2)
      if ((F::leaf_sizes(hop) >> lg2 & 1) != 0) result.push_back(lg2);
    return result;
  }
  static bool links_something(unsigned hop) {
    for (unsigned child = hop + 1; child < F::hops; ++child)
      if (F::parent(child) == hop) return true;
    return false;
  }
  /// Whether `deep` is reached from a table of `hop`.
  static bool is_below(unsigned deep, unsigned hop) {
    while (deep > hop) deep = F::parent(deep);
    return deep == hop;
  }
  BusAddr random_address(unsigned lg2) {
    return BusAddr(random_() & bus_mask & ~((std::uint64_t{1} << lg2) - 1));
  }
  /// 0, the highest and some between.
  std::vector<BusAddr> some_addresses(unsigned lg2) {
    std::vector<BusAddr> result{BusAddr(0), BusAddr(bus_mask & ~((std::uint64_t{1} << lg2) - 1))};
    for (int i = 0; i < 20; ++i) result.push_back(random_address(lg2));
    return result;
  }
  /// Calls visit(hop, lg2, bits, attributes) for all that the format can say.
  template <class Visit>
  static void for_each_leaf(Visit visit) {
    for (unsigned hop = 0; hop < F::hops; ++hop)
      for (const unsigned lg2 : sizes_of(hop))
        for (const Attributes attributes : all_attributes)
          if (const auto bits = F::leaf_bits(attributes)) visit(hop, lg2, *bits, attributes);
  }

  std::mt19937_64 random_{20261127};
};

TYPED_TEST_SUITE(Format, Formats);

// generic_pt: test_table_ptr
TYPED_TEST(Format, LinkGivesBackItsTableAtEveryHop) {
  using F = TypeParam;
  const auto lg2 = static_cast<unsigned>(std::countr_zero(this->table_alignment));
  for (unsigned hop = 0; hop < F::hops; ++hop) {
    if (!this->links_something(hop)) continue;
    for (const BusAddr table : this->some_addresses(lg2)) {
      const auto link = F::make_link(hop, table);
      EXPECT_EQ(F::classify(hop, link), EntryKind::table) << hop << " " << table.value();
      EXPECT_EQ(F::link_address(hop, link), table) << hop;
    }
  }
}

TYPED_TEST(Format, HopsWithoutHopsBelowHoldNoLinks) {
  using F = TypeParam;
  for (unsigned hop = 0; hop < F::hops; ++hop) {
    if (this->links_something(hop)) continue;
    const auto link = F::make_link(hop == 0 ? 0 : F::parent(hop), this->random_address(16));
    EXPECT_NE(F::classify(hop, link), EntryKind::table) << hop;
  }
}

// generic_pt: test_max_va
TYPED_TEST(Format, HighestAddressHasTheLastIndexAtEveryHop) {
  using F = TypeParam;
  using G = Geometry<F>;
  for (unsigned hop = 0; hop < F::hops; ++hop) {
    EXPECT_EQ(G::index(hop, G::va_end - 1), G::entries(hop) - 1) << hop;
    EXPECT_EQ(G::index(hop, 0), 0u) << hop;
  }
}

// generic_pt: test_table_radix
TYPED_TEST(Format, EveryBitOfAnAddressIsDecodedOnce) {
  using F = TypeParam;
  using G = Geometry<F>;
  for (unsigned deepest = 0; deepest < F::hops; ++deepest) {
    if (this->links_something(deepest)) continue;
    for (unsigned bit = F::shift(deepest); bit < G::va_bits; ++bit) {
      unsigned decoded = 0;
      for (unsigned hop = 0; hop <= deepest; ++hop) {
        if (!this->is_below(deepest, hop)) continue;
        const std::uint32_t index = G::index(hop, std::uint64_t{1} << bit);
        if (index != 0) {
          EXPECT_EQ(index, 1u << (bit - F::shift(hop))) << bit << " at hop " << hop;
          ++decoded;
        }
      }
      EXPECT_EQ(decoded, 1u) << bit;
    }
  }
}

// generic_pt: test_entry_possible_sizes
TYPED_TEST(Format, LeafSizesAreOneEntryOrAGroupInsideOneTable) {
  using F = TypeParam;
  using G = Geometry<F>;
  std::uint64_t seen = 0;
  for (unsigned hop = 0; hop < F::hops; ++hop) {
    for (const unsigned lg2 : this->sizes_of(hop)) {
      EXPECT_GE(lg2, F::shift(hop));
      EXPECT_LT(lg2, F::shift(hop) + F::index_bits(hop)) << "a group is never the whole table";
      EXPECT_LT(lg2, F::bus_bits);
      EXPECT_EQ(seen >> lg2 & 1, 0u) << "2^" << lg2 << " at two hops";
      seen |= std::uint64_t{1} << lg2;
    }
  }
  EXPECT_EQ(seen, G::leaf_sizes());
  EXPECT_NE(F::leaf_sizes(G::last_hop), 0u);
}

// generic_pt: test_entry_oa
TYPED_TEST(Format, EveryEntryOfALeafTellsItsAddressAndSize) {
  using F = TypeParam;
  using Word = typename F::Word;
  this->for_each_leaf([this](unsigned hop, unsigned lg2, Word bits, Attributes) {
    const std::uint64_t span = Geometry<F>::span(hop);
    for (const BusAddr base : this->some_addresses(lg2)) {
      const Word first = F::make_leaf(hop, lg2, base, bits);
      for (std::uint64_t i = 0; i < std::uint64_t{1} << (lg2 - F::shift(hop)); ++i) {
        const std::uint64_t counted = F::repeats_group ? 0 : i * span;
        const auto entry = static_cast<Word>(first + F::step(counted));
        ASSERT_EQ(F::classify(hop, entry), EntryKind::leaf) << hop << " 2^" << lg2 << " [" << i;
        ASSERT_EQ(F::leaf_lg2(hop, entry), lg2) << hop << " [" << i;
        ASSERT_EQ(F::leaf_address(hop, entry), BusAddr(base.value() + counted)) << hop;
      }
    }
  });
}

TYPED_TEST(Format, StepMakesTheLeafOfTheMemoryThatFollows) {
  using F = TypeParam;
  using Word = typename F::Word;
  this->for_each_leaf([this](unsigned hop, unsigned lg2, Word bits, Attributes) {
    const std::uint64_t size = std::uint64_t{1} << lg2;
    for (const BusAddr base : this->some_addresses(lg2)) {
      const std::uint64_t next = base.value() + size;
      const std::uint64_t step_mask = ~std::uint64_t{0} >> (64 - F::step_bits);
      if ((next & this->bus_mask) == 0 || (next & step_mask) == 0) continue;
      const auto stepped = static_cast<Word>(F::make_leaf(hop, lg2, base, bits) + F::step(size));
      EXPECT_EQ(stepped, F::make_leaf(hop, lg2, BusAddr(next), bits)) << hop << " 2^" << lg2;
    }
  });
}

// generic_pt: test_attr_from_entry
TYPED_TEST(Format, AttributesAreReadBackFromEveryLeaf) {
  using F = TypeParam;
  using Word = typename F::Word;
  this->for_each_leaf([this](unsigned hop, unsigned lg2, Word bits, Attributes wanted) {
    const Word leaf = F::make_leaf(hop, lg2, this->random_address(lg2), bits);
    EXPECT_EQ(F::attributes(hop, leaf), wanted) << hop << " 2^" << lg2;
    EXPECT_EQ(*F::leaf_bits(F::attributes(hop, leaf)), bits);
  });
}

TYPED_TEST(Format, WhatCannotBeSaidIsRefused) {
  using F = TypeParam;
  EXPECT_TRUE(F::leaf_bits(Access::read_write).has_value()) << "every format can say this";
  for (const Attributes wanted : all_attributes) {
    const auto bits = F::leaf_bits(wanted);
    EXPECT_TRUE(bits.has_value() || bits.error().code == Errc::not_supported);
  }
  for (const unsigned access : {0U, 4U, 7U, 255U})
    EXPECT_EQ(F::leaf_bits(static_cast<Access>(access)).error().code, Errc::invalid_argument);
  EXPECT_FALSE(F::leaf_bits({Access::read_write, static_cast<MemoryType>(3)}).has_value());
  EXPECT_FALSE(F::leaf_bits({Access::read, static_cast<MemoryType>(255)}).has_value());
}

// generic_pt: test_dirty
TYPED_TEST(Format, CleanedLeafIsCleanAndElseTheSame) {
  using F = TypeParam;
  using Word = typename F::Word;
  if constexpr (F::has_dirty) {
    this->for_each_leaf([this](unsigned hop, unsigned lg2, Word bits, Attributes wanted) {
      const BusAddr base = this->random_address(lg2);
      const Word clean = F::clean(F::make_leaf(hop, lg2, base, bits));
      EXPECT_FALSE(F::dirty(clean));
      EXPECT_EQ(F::clean(clean), clean);
      EXPECT_EQ(F::classify(hop, clean), EntryKind::leaf);
      EXPECT_EQ(F::leaf_address(hop, clean), base);
      EXPECT_EQ(F::leaf_lg2(hop, clean), lg2);
      EXPECT_EQ(F::attributes(hop, clean), wanted) << "a clean leaf may still be written";
      if (!allows(wanted.access, Access::write)) {
        EXPECT_EQ(clean, F::make_leaf(hop, lg2, base, bits));
      }
    });
  }
}

// A leaf that was written through stays dirty when it is protected, split or merged.
TYPED_TEST(Format, SoiledLeafIsDirtyAndElseTheSame) {
  using F = TypeParam;
  using Word = typename F::Word;
  if constexpr (F::has_dirty) {
    this->for_each_leaf([this](unsigned hop, unsigned lg2, Word bits, Attributes wanted) {
      const BusAddr base = this->random_address(lg2);
      const Word fresh = F::make_leaf(hop, lg2, base, bits);
      const Word soiled = F::soil(F::clean(fresh));
      EXPECT_TRUE(F::dirty(soiled));
      EXPECT_EQ(F::soil(soiled), soiled);
      EXPECT_EQ(F::soil(fresh), soiled);
      EXPECT_EQ(F::make_leaf(hop, lg2, base, F::soil(bits)), soiled);
      EXPECT_EQ(F::make_leaf(hop, lg2, base, F::clean(bits)), F::clean(soiled));
      EXPECT_EQ(F::classify(hop, soiled), EntryKind::leaf);
      EXPECT_EQ(F::leaf_address(hop, soiled), base);
      EXPECT_EQ(F::leaf_lg2(hop, soiled), lg2);
      EXPECT_EQ(F::attributes(hop, soiled), wanted);
    });
  }
}

TYPED_TEST(Format, LargeLeafIsAlignedToItsSize) {
  using F = TypeParam;
  const auto bits = F::leaf_bits(Access::read_write);
  for (unsigned hop = 0; hop < F::hops; ++hop) {
    if (F::leaf_sizes(hop) == 0) continue;
    const unsigned lg2 = F::shift(hop);
    for (unsigned bit = F::shift(F::hops - 1); bit < lg2; ++bit) {
      const auto leaf = F::make_leaf(hop, lg2, BusAddr(std::uint64_t{1} << bit), *bits);
      EXPECT_EQ(F::classify(hop, leaf), EntryKind::malformed) << hop << " bit " << bit;
    }
  }
}

// What a table in memory says is believed only if it is what we would have written.
TYPED_TEST(Format, AnyWordIsEmptyOrOursOrMalformed) {
  using F = TypeParam;
  using Word = typename F::Word;
  struct Leaf {
    unsigned hop;
    unsigned lg2;
    Word bits;
  };
  std::vector<Leaf> leaves;
  this->for_each_leaf([&](unsigned hop, unsigned lg2, Word bits, Attributes) {
    leaves.push_back({hop, lg2, bits});
  });
  std::size_t of_kind[4] = {};
  for (int i = 0; i < 50'000; ++i) {
    auto hop = static_cast<unsigned>(this->random_() % F::hops);
    auto word = static_cast<Word>(this->random_());
    if (this->random_() % 2 == 0) {
      const Leaf leaf = leaves[this->random_() % leaves.size()];
      word = F::make_leaf(leaf.hop, leaf.lg2, this->random_address(leaf.lg2), leaf.bits);
      if (this->random_() % 2 == 0) hop = leaf.hop;
    } else if (this->random_() % 4 != 0) {
      word = F::make_link(hop, this->random_address(16));
    }
    for (auto flips = this->random_() % 4; flips > 0; --flips)
      word = static_cast<Word>(word ^ Word{1} << (this->random_() % (8 * sizeof(Word))));

    const EntryKind kind = F::classify(hop, word);
    ++of_kind[static_cast<std::size_t>(kind)];
    EXPECT_EQ(kind == EntryKind::empty, word == 0);
    if (kind == EntryKind::leaf) {
      const unsigned lg2 = F::leaf_lg2(hop, word);
      ASSERT_EQ(F::leaf_sizes(hop) >> lg2 & 1, 1u) << std::hex << word;
      const auto bits = F::leaf_bits(F::attributes(hop, word));
      ASSERT_TRUE(bits.has_value()) << std::hex << word;
      ASSERT_EQ(as_written<F>(word),
                as_written<F>(F::make_leaf(hop, lg2, F::leaf_address(hop, word), *bits)))
          << std::hex << word << " at hop " << hop;
      ASSERT_LE(F::leaf_address(hop, word).value(), this->bus_mask);
    } else if (kind == EntryKind::table) {
      ASSERT_TRUE(this->links_something(hop)) << std::hex << word;
      ASSERT_EQ(word & ~device_only<F>, F::make_link(hop, F::link_address(hop, word)))
          << std::hex << word << " at hop " << hop;
    }
  }
  EXPECT_EQ(F::classify(0, 0), EntryKind::empty);
  for (const EntryKind kind : {EntryKind::table, EntryKind::leaf, EntryKind::malformed})
    EXPECT_GT(of_kind[static_cast<std::size_t>(kind)], 1000u) << "the words tried nothing";
}

}  // namespace
}  // namespace accelmm::mmu
