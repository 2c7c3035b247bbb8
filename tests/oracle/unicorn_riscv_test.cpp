// SPDX-License-Identifier: Apache-2.0
// Unicorn's RISC-V walker, the naive one, and tables whose meaning is known.
#include "oracle/unicorn_riscv.hpp"

#include "oracle/encodings.hpp"
#include "oracle/naive/riscv.hpp"
#include "oracle/random_tables.hpp"
#include "property/mm/steps.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace accelmm::test {
namespace {

constexpr std::uint64_t used_memory = 16ULL << 20;

std::unique_ptr<Oracle> make(unsigned levels) {
  auto oracle = make_unicorn_riscv(levels);
  EXPECT_TRUE(oracle) << oracle.error().what;
  return oracle ? std::move(*oracle) : nullptr;
}

void put(Oracle& oracle, std::uint64_t bus_address, std::uint64_t word) {
  std::memcpy(oracle.memory().data() + (bus_address - oracle.base()), &word, sizeof word);
}

std::optional<std::uint64_t> ask(Oracle& oracle, std::uint64_t root, std::uint64_t address,
                                 Access wanted) {
  const std::uint64_t addresses[] = {address};
  const auto answers = oracle.translate(root, addresses, wanted);
  EXPECT_TRUE(answers) << answers.error().what;
  if (!answers || !answers->front()) return std::nullopt;
  EXPECT_EQ(answers->front()->leaf_size, 0U);
  return answers->front()->bus_address;
}

/// Encoded without groups, which Unicorn does not know, and without the last bus addresses, where
/// it has its memory.
Encoding encoding_of(unsigned levels) {
  Encoding encoding = riscv_encoding(levels);
  encoding.bus_bits = 55;
  std::erase_if(encoding.leaves, [](const LeafKind& kind) { return kind.size == 64 * kib; });
  return encoding;
}

// Tables by hand: 4 KiB, 2 MiB and 1 GiB, writable and read-only.
TEST(UnicornRiscv, FindsEachLeafSizeAndPermissionOfSv39) {
  const auto oracle = make(3);
  const std::uint64_t root = oracle->base();
  put(*oracle, root + 8 * 1, (root + 0x1000) >> 2 | 1);      // address bit 30
  put(*oracle, root + 8 * 2, 0x12'4000'0000 >> 2 | 0xd7);    // 1 GiB
  put(*oracle, root + 8 * 511, 0x15'8000'0000 >> 2 | 0x53);  // 1 GiB, read-only, the last
  put(*oracle, root + 0x1000 + 8 * 0, (root + 0x2000) >> 2 | 1);
  put(*oracle, root + 0x1000 + 8 * 3, 0x12'3460'0000 >> 2 | 0xd7);   // 2 MiB
  put(*oracle, root + 0x1000 + 8 * 4, 0x12'3480'0000 >> 2 | 0x53);   // 2 MiB, read-only
  put(*oracle, root + 0x1000 + 8 * 5, 0x12'3490'0000 >> 2 | 0xd7);   // 2 MiB, not aligned
  put(*oracle, root + 0x2000 + 8 * 5, 0xab'cdef'0000 >> 2 | 0xd7);   // 4 KiB
  put(*oracle, root + 0x2000 + 8 * 6, 0xab'cdef'1000 >> 2 | 0x53);   // 4 KiB, read-only
  put(*oracle, root + 0x2000 + 8 * 7, 0xab'cdef'2000 >> 2 | 0xc7);   // not for user mode
  put(*oracle, root + 0x2000 + 8 * 8, 0xab'cdef'3000 >> 2 | 0xd5);   // writable, not readable
  put(*oracle, root + 0x2000 + 8 * 9, 0xab'cdef'4000 >> 2 | 0xd6);   // not valid
  put(*oracle, root + 0x2000 + 8 * 10, 0xab'cdef'5000 >> 2 | 0x59);  // executable only
  put(*oracle, root + 0x2000 + 8 * 11, 0xab'cdef'6000 >> 2 | 0x01);  // a link where none can be
  put(*oracle, root + 0x2000 + 8 * 12, 0x1000 >> 2 | 0xd7);          // to the first bus addresses
  const std::uint64_t at = 1ULL << 30;
  struct Case {
    std::uint64_t address;
    std::optional<std::uint64_t> read, write;
  };
  for (const Case& each : {
           Case{at + 0x5123, 0xab'cdef'0123, 0xab'cdef'0123},
           Case{at + 0x6fff, 0xab'cdef'1fff, std::nullopt},
           Case{at + 0x7000, std::nullopt, std::nullopt},
           Case{at + 0x8000, std::nullopt, std::nullopt},
           Case{at + 0x9000, std::nullopt, std::nullopt},
           Case{at + 0xa000, std::nullopt, std::nullopt},
           Case{at + 0xb000, std::nullopt, std::nullopt},
           Case{at + 0xc004, 0x1004, 0x1004},
           Case{at + 0x61'2345, 0x12'3461'2345, 0x12'3461'2345},
           Case{at + 0x9f'ffff, 0x12'349f'ffff, std::nullopt},
           Case{at + 0xa0'0000, std::nullopt, std::nullopt},
           Case{0xbfff'ffff, 0x12'7fff'ffff, 0x12'7fff'ffff},
           Case{0xffff'ffff'c123'4567, 0x15'8123'4567, std::nullopt},
           Case{0xffff'ffff'ffff'ffff, 0x15'bfff'ffff, std::nullopt},
           Case{0x7f'c123'4567, std::nullopt, std::nullopt},
           Case{0x5123, std::nullopt, std::nullopt},
       }) {
    EXPECT_EQ(ask(*oracle, root, each.address, Access::read), each.read)
        << std::hex << each.address;
    EXPECT_EQ(ask(*oracle, root, each.address, Access::write), each.write)
        << std::hex << each.address;
  }
}

TEST(UnicornRiscv, FindsTheLargestLeavesOfSv48AndSv57) {
  const auto four = make(4);
  put(*four, four->base() + 8 * 3, 0x180'0000'0000 >> 2 | 0xd7);
  EXPECT_EQ(ask(*four, four->base(), 0x1ff'ffff'ffff, Access::write), 0x1ff'ffff'ffff);
  const auto five = make(5);
  put(*five, five->base() + 8 * 1, (1ULL << 49) >> 2 | 0x53);
  EXPECT_EQ(ask(*five, five->base(), 0x1'0123'4567'89ab, Access::read), 0x2'0123'4567'89ab);
  EXPECT_EQ(ask(*five, five->base(), 0x1'0123'4567'89ab, Access::write), std::nullopt);
}

TEST(UnicornRiscv, SetsTheAccessedAndDirtyBitsItself) {
  const auto oracle = make(3);
  put(*oracle, oracle->base(), 0x4000'0000 >> 2 | 0x17);
  EXPECT_EQ(ask(*oracle, oracle->base(), 0x42, Access::write), 0x4000'0042);
  std::uint64_t word = 0;
  std::memcpy(&word, oracle->memory().data(), sizeof word);
  EXPECT_EQ(word, 0x4000'0000U >> 2 | 0xd7U);
}

TEST(UnicornRiscv, RefusesALeafThatMapsItsOwnMemory) {
  const auto oracle = make(3);
  put(*oracle, oracle->base(), (oracle->base() & ~0x3fff'ffffULL) >> 2 | 0xd7);
  const std::uint64_t inside[] = {oracle->base() & 0x3fff'ffff};
  const auto refused = oracle->translate(oracle->base(), inside, Access::read);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Errc::not_supported);
}

TEST(UnicornRiscv, RefusesMachinesAndAccessesThatDoNotExist) {
  EXPECT_FALSE(make_unicorn_riscv(2));
  EXPECT_FALSE(make_unicorn_riscv(6));
  const auto oracle = make(3);
  const auto refused = oracle->translate(oracle->base(), {}, Access::read_write);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Errc::invalid_argument);
}

class UnicornRiscvLevels : public ::testing::TestWithParam<unsigned> {
 protected:
  void SetUp() override {
    oracle = make(GetParam());
    ASSERT_TRUE(oracle);
  }

  std::optional<std::uint64_t> naive(std::uint64_t root, std::uint64_t address,
                                     Access wanted) const {
    const auto read = [&](std::uint64_t where, unsigned bytes) {
      std::uint64_t word = 0;
      if (where < oracle->base() || where - oracle->base() > oracle->memory().size() - bytes)
        return word;
      std::memcpy(&word, oracle->memory().data() + (where - oracle->base()), bytes);
      return word;
    };
    const auto found = naive_riscv::translate(read, root, address, GetParam());
    if (!found || (wanted == Access::write ? !found->writable : !found->readable))
      return std::nullopt;
    return found->bus_address;
  }

  void compare(std::uint64_t root, std::span<const std::uint64_t> addresses) {
    for (const Access wanted : {Access::read, Access::write}) {
      const auto answers = oracle->translate(root, addresses, wanted);
      ASSERT_TRUE(answers) << answers.error().what;
      ASSERT_EQ(answers->size(), addresses.size());
      for (std::size_t i = 0; i < addresses.size(); ++i) {
        const auto& answer = (*answers)[i];
        const auto found = answer ? std::optional(answer->bus_address) : std::nullopt;
        ASSERT_EQ(found, naive(root, addresses[i], wanted))
            << "address " << std::hex << addresses[i] << ", access " << static_cast<int>(wanted);
      }
    }
  }

  std::unique_ptr<Oracle> oracle;
};

TEST_P(UnicornRiscvLevels, AgreesWithTheNaiveWalkerAndTheListOnRandomTables) {
  const Encoding encoding = encoding_of(GetParam());
  Dice dice("unicorn_riscv");
  const std::uint64_t steps = number_from_environment("ACCELMM_STEPS", 20'000);
  std::uint64_t mapped = 0;
  for (std::uint64_t step = 0; step < steps;) {
    const auto memory = oracle->memory().first(used_memory);
    std::memset(memory.data(), 0, memory.size());
    RandomTables tables(encoding, memory, oracle->base());
    tables.fill(dice, 300);
    std::vector<std::uint64_t> addresses(10'000);
    for (std::uint64_t& address : addresses) {
      address = tables.random_address(dice);
      if (tables.expected(address)) ++mapped;
    }
    compare(tables.root(), addresses);
    ASSERT_FALSE(HasFatalFailure());
    const auto answers = oracle->translate(tables.root(), addresses, Access::read);
    for (std::size_t i = 0; i < addresses.size(); ++i) {
      const auto expected = tables.expected(addresses[i]);
      ASSERT_EQ((*answers)[i].has_value(), expected.has_value());
      if (!expected) continue;
      ASSERT_EQ((*answers)[i]->bus_address, expected->bus_address);
    }
    step += addresses.size();
  }
  EXPECT_GT(mapped * 2, steps);
}

TEST_P(UnicornRiscvLevels, AgreesWithTheNaiveWalkerOnWrongTables) {
  const Encoding encoding = encoding_of(GetParam());
  Dice dice("unicorn_riscv, wrong bits");
  const auto memory = oracle->memory().first(used_memory);
  RandomTables tables(encoding, memory, oracle->base());
  tables.fill(dice, 300);
  std::uint64_t seen = 0;
  const std::uint64_t rounds = number_from_environment("ACCELMM_STEPS", 20'000) / 20;
  for (std::uint64_t round = 0; round < rounds; ++round) {
    const auto& mapping = tables.mappings()[dice.roll(tables.mappings().size())];
    const std::uint64_t address = mapping.address + dice.roll(mapping.kind.size);
    const auto hop = static_cast<unsigned>(dice.roll(mapping.kind.hop + 1));
    const auto place = *tables.place_of(hop, address);
    const std::uint64_t word = tables.read(place, 8);
    // Of a link only validity: with a permission it would be a leaf that maps the tables.
    std::vector<unsigned> bits = {0};
    if (hop == mapping.kind.hop) {
      bits = {0, 3, 4};
      // Without the last permission a large leaf would be a link to anywhere.
      if (mapping.kind.size == 4 * kib || mapping.allowed == Allowed::both) bits.push_back(1);
      // Bits of the address below the leaf's size.
      if (mapping.kind.size > 4 * kib) bits.push_back(10);
    }
    const auto right = naive(tables.root(), address, Access::read);
    tables.write(place, word ^ 1ULL << bits[dice.roll(bits.size())]);
    const std::uint64_t addresses[] = {address, address ^ 1, tables.random_address(dice)};
    compare(tables.root(), addresses);
    ASSERT_FALSE(HasFatalFailure()) << "word " << std::hex << word;
    if (naive(tables.root(), address, Access::read) != right) ++seen;
    tables.write(place, word);
  }
  EXPECT_GT(seen * 4, rounds) << "many wrong bits must change an answer";
}

TEST_P(UnicornRiscvLevels, SeesEachPlantedWrongBitOfALeaf) {
  const Encoding encoding = encoding_of(GetParam());
  Dice dice("unicorn_riscv, planted bits");
  const auto memory = oracle->memory().first(used_memory);
  RandomTables tables(encoding, memory, oracle->base());
  tables.fill(dice, 50);
  for (const auto& mapping : tables.mappings()) {
    const std::uint64_t address = mapping.address + dice.roll(mapping.kind.size);
    const auto place = *tables.place_of(mapping.kind.hop, address);
    const std::uint64_t word = tables.read(place, 8);
    std::uint64_t bits = encoding.leaf_address_bits(mapping.kind) | 0x11;
    if (mapping.allowed == Allowed::both) bits |= 0x4;
    const auto right = ask(*oracle, tables.root(), address, Access::read);
    ASSERT_TRUE(right);
    for (unsigned bit = 0; bit < 64; ++bit) {
      if ((bits >> bit & 1) == 0) continue;
      tables.write(place, word ^ 1ULL << bit);
      const Access wanted = bit == 2 ? Access::write : Access::read;
      ASSERT_NE(ask(*oracle, tables.root(), address, wanted), right) << "bit " << bit;
    }
    tables.write(place, word);
  }
}

INSTANTIATE_TEST_SUITE_P(Each, UnicornRiscvLevels, ::testing::Values(3U, 4U, 5U),
                         [](const auto& each) {
                           return "Sv" + std::to_string(12 + 9 * each.param);
                         });

}  // namespace
}  // namespace accelmm::test
