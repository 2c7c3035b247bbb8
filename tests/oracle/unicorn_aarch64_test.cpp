// SPDX-License-Identifier: Apache-2.0
// Unicorn's AArch64 walker, the naive one, and tables whose meaning is known.
#include "oracle/unicorn_aarch64.hpp"

#include "oracle/encodings.hpp"
#include "oracle/naive/aarch64.hpp"
#include "oracle/random_tables.hpp"
#include "property/mm/steps.hpp"

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

using From = Aarch64Machine::From;
constexpr std::uint64_t used_memory = 16ULL << 20;

std::unique_ptr<Oracle> make(unsigned granule_shift, From from, unsigned address_bits = 48) {
  auto oracle = make_unicorn_aarch64(
      {.granule_shift = granule_shift, .address_bits = address_bits, .from = from});
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

// Tables by hand: a page, a block of 2 MiB and one of 1 GiB, each writable and read-only.
TEST(UnicornAarch64, FindsEachLeafSizeAndPermissionOf4KiB) {
  const auto oracle = make(12, From::el0);
  const std::uint64_t root = oracle->base();
  put(*oracle, root + 8 * 1, (root + 0x1000) | 3);  // address bit 39
  put(*oracle, root + 0x1000 + 8 * 0, (root + 0x2000) | 3);
  put(*oracle, root + 0x1000 + 8 * 1, 0x12'4000'0f45);  // 1 GiB
  put(*oracle, root + 0x1000 + 8 * 2, 0x15'8000'0fc5);  // 1 GiB, read-only
  put(*oracle, root + 0x2000 + 8 * 0, (root + 0x3000) | 3);
  put(*oracle, root + 0x2000 + 8 * 3, 0x12'3460'0f45);  // 2 MiB
  put(*oracle, root + 0x2000 + 8 * 4, 0x12'3480'0fc5);  // 2 MiB, read-only
  put(*oracle, root + 0x3000 + 8 * 5, 0xab'cdef'0f47);  // 4 KiB
  put(*oracle, root + 0x3000 + 8 * 6, 0xab'cdef'1fc7);  // 4 KiB, read-only
  put(*oracle, root + 0x3000 + 8 * 7, 0xab'cdef'2f07);  // not for EL0
  put(*oracle, root + 0x3000 + 8 * 8, 0xab'cdef'3b47);  // not accessed yet
  put(*oracle, root + 0x3000 + 8 * 9, 0xab'cdef'4f45);  // no page: bit 1 is clear
  const std::uint64_t at = 1ULL << 39;
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
           Case{at + 0x61'2345, 0x12'3461'2345, 0x12'3461'2345},
           Case{at + 0x9f'ffff, 0x12'349f'ffff, std::nullopt},
           Case{at + 0x7fff'ffff, 0x12'7fff'ffff, 0x12'7fff'ffff},
           Case{at + 0x8123'4567, 0x15'8123'4567, std::nullopt},
           Case{0x5123, std::nullopt, std::nullopt},
           Case{0x5123 | 1ULL << 50, std::nullopt, std::nullopt},
           Case{0xffff'8000'0000'0000, std::nullopt, std::nullopt},
       }) {
    EXPECT_EQ(ask(*oracle, root, each.address, Access::read), each.read)
        << std::hex << each.address;
    EXPECT_EQ(ask(*oracle, root, each.address, Access::write), each.write)
        << std::hex << each.address;
  }
}

TEST(UnicornAarch64, LetsTablesTakePermissionsAway) {
  for (const From from : {From::el0, From::el1}) {
    const auto oracle = make(12, from);
    const std::uint64_t root = oracle->base();
    const auto build = [&](std::uint64_t bits) {
      put(*oracle, root, (root + 0x1000) | 3 | bits);
      put(*oracle, root + 0x1000, 0x4000'0f45);
    };
    build(0);
    EXPECT_EQ(ask(*oracle, root, 0x42, Access::write), 0x4000'0042);
    build(1ULL << 62);
    EXPECT_EQ(ask(*oracle, root, 0x42, Access::read), 0x4000'0042);
    EXPECT_EQ(ask(*oracle, root, 0x42, Access::write), std::nullopt);
    build(1ULL << 61);
    const std::optional<std::uint64_t> expected =
        from == From::el0 ? std::nullopt : std::optional<std::uint64_t>(0x4000'0042);
    EXPECT_EQ(ask(*oracle, root, 0x42, Access::read), expected);
  }
}

TEST(UnicornAarch64, FindsPagesAndBlocksOf16And64KiB) {
  const auto sixteen = make(14, From::el0);
  std::uint64_t root = sixteen->base();
  put(*sixteen, root + 8, (root + 0x4000) | 3);               // address bit 47
  put(*sixteen, root + 0x4000 + 8 * 2, (root + 0x8000) | 3);  // bits 36-46
  put(*sixteen, root + 0x8000 + 8 * 3, 0x12'3400'0f45);       // bits 25-35: 32 MiB
  put(*sixteen, root + 0x8000 + 8 * 4, (root + 0xc000) | 3);
  put(*sixteen, root + 0xc000 + 8 * 5, 0x12'3456'4fc7);  // bits 14-24: 16 KiB, read-only
  std::uint64_t at = 1ULL << 47 | 2ULL << 36;
  EXPECT_EQ(ask(*sixteen, root, at + 0x7ff'ffff, Access::write), 0x12'35ff'ffff);
  EXPECT_EQ(ask(*sixteen, root, at + 0x801'7fff, Access::read), 0x12'3456'7fff);
  EXPECT_EQ(ask(*sixteen, root, at + 0x801'7fff, Access::write), std::nullopt);

  const auto sixty_four = make(16, From::el0, 42);
  root = sixty_four->base();
  put(*sixty_four, root + 8 * 1, 0x12'2000'0fc5);  // bits 29-41: 512 MiB, read-only
  put(*sixty_four, root + 8 * 2, (root + 0x1'0000) | 3);
  put(*sixty_four, root + 0x1'0000 + 8 * 8191, 0x12'3457'0f47);  // bits 16-28: 64 KiB
  EXPECT_EQ(ask(*sixty_four, root, 0x3fff'ffff, Access::read), 0x12'3fff'ffff);
  EXPECT_EQ(ask(*sixty_four, root, 0x3fff'ffff, Access::write), std::nullopt);
  EXPECT_EQ(ask(*sixty_four, root, 0x5fff'1234, Access::write), 0x12'3457'1234);
  EXPECT_EQ(ask(*sixty_four, root, 0x5ffe'1234, Access::write), std::nullopt);
  EXPECT_EQ(ask(*sixty_four, root, 1ULL << 42 | 0x5fff'1234, Access::write), std::nullopt);
}

TEST(UnicornAarch64, FaultsWhereALinkLeadsOutOfItsMemory) {
  const auto oracle = make(12, From::el0);
  put(*oracle, oracle->base(), 0x7f'0000'0003);
  EXPECT_EQ(ask(*oracle, oracle->base(), 0x1000, Access::read), std::nullopt);
}

TEST(UnicornAarch64, RefusesMachinesAndAccessesThatDoNotExist) {
  EXPECT_FALSE(make_unicorn_aarch64({.granule_shift = 13}));
  EXPECT_FALSE(make_unicorn_aarch64({.address_bits = 49}));
  const auto oracle = make(12, From::el0);
  const auto refused = oracle->translate(oracle->base(), {}, Access::read_write);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Errc::invalid_argument);
}

struct Machine {
  unsigned granule_shift;
  From from;
};

class UnicornAarch64Machine : public ::testing::TestWithParam<Machine> {
 protected:
  void SetUp() override {
    oracle = make(GetParam().granule_shift, GetParam().from);
    ASSERT_TRUE(oracle);
  }

  // The naive walker's answer for one access.
  std::optional<std::uint64_t> naive(std::uint64_t root, std::uint64_t address,
                                     Access wanted) const {
    const auto read = [&](std::uint64_t where, unsigned bytes) {
      std::uint64_t word = 0;
      if (where < oracle->base() || where - oracle->base() > oracle->memory().size() - bytes)
        return word;
      std::memcpy(&word, oracle->memory().data() + (where - oracle->base()), bytes);
      return word;
    };
    const auto from =
        GetParam().from == From::el0 ? naive_aarch64::From::el0 : naive_aarch64::From::el1;
    const auto found =
        naive_aarch64::translate(read, root, address, GetParam().granule_shift, 48, from);
    if (!found || (wanted == Access::write && !found->writable)) return std::nullopt;
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

TEST_P(UnicornAarch64Machine, AgreesWithTheNaiveWalkerAndTheListOnRandomTables) {
  const Encoding encoding = aarch64_encoding(GetParam().granule_shift);
  Dice dice("unicorn_aarch64");
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

// Whatever bits of the architecture are wrong, both find the same wrong thing.
TEST_P(UnicornAarch64Machine, AgreesWithTheNaiveWalkerOnWrongTables) {
  const Encoding encoding = aarch64_encoding(GetParam().granule_shift);
  Dice dice("unicorn_aarch64, wrong bits");
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
    std::vector<unsigned> bits = {0, 1, 6, 7, 10};
    if (hop < mapping.kind.hop) bits = {0, 1, 61, 62};
    const std::uint64_t flipped = word ^ 1ULL << bits[dice.roll(bits.size())];
    // A block where a link was maps from where its table is: not aligned to it, which Unicorn
    // does not mind.
    if ((word & 2) != 0 && (flipped & 2) == 0 && hop + 1 < encoding.levels) continue;
    const auto right = naive(tables.root(), address, Access::write);
    tables.write(place, flipped);
    const std::uint64_t addresses[] = {address, address ^ 1, tables.random_address(dice)};
    compare(tables.root(), addresses);
    ASSERT_FALSE(HasFatalFailure()) << "word " << std::hex << word << " as " << flipped;
    if (naive(tables.root(), address, Access::write) != right) ++seen;
    tables.write(place, word);
  }
  EXPECT_GT(seen * 4, rounds) << "many wrong bits must change an answer";
}

TEST_P(UnicornAarch64Machine, SeesEachPlantedWrongBitOfALeaf) {
  const Encoding encoding = aarch64_encoding(GetParam().granule_shift);
  Dice dice("unicorn_aarch64, planted bits");
  const auto memory = oracle->memory().first(used_memory);
  RandomTables tables(encoding, memory, oracle->base());
  tables.fill(dice, 50);
  for (const auto& mapping : tables.mappings()) {
    const std::uint64_t address = mapping.address + dice.roll(mapping.kind.size);
    const auto place = *tables.place_of(mapping.kind.hop, address);
    const std::uint64_t word = tables.read(place, 8);
    std::uint64_t bits = encoding.leaf_address_bits(mapping.kind) | 0x403;
    if (mapping.allowed == Allowed::both) bits |= 0x80;
    if (GetParam().from == From::el0) bits |= 0x40;
    const auto right = ask(*oracle, tables.root(), address, Access::read);
    ASSERT_TRUE(right);
    for (unsigned bit = 0; bit < 64; ++bit) {
      if ((bits >> bit & 1) == 0) continue;
      tables.write(place, word ^ 1ULL << bit);
      const Access wanted = bit == 7 ? Access::write : Access::read;
      ASSERT_NE(ask(*oracle, tables.root(), address, wanted), right) << "bit " << bit;
    }
    tables.write(place, word);
  }
}

INSTANTIATE_TEST_SUITE_P(Each, UnicornAarch64Machine,
                         ::testing::Values(Machine{12, From::el0}, Machine{12, From::el1},
                                           Machine{14, From::el0}, Machine{14, From::el1},
                                           Machine{16, From::el0}, Machine{16, From::el1}),
                         [](const auto& each) {
                           return std::to_string((1U << each.param.granule_shift) / 1024) + "KiB" +
                                  (each.param.from == From::el0 ? "El0" : "El1");
                         });

}  // namespace
}  // namespace accelmm::test
