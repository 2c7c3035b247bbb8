// SPDX-License-Identifier: Apache-2.0
#include "mm/slab_central.hpp"

#include "mm/slab_word.hpp"

#include <array>
#include <cstdint>

#include <gtest/gtest.h>

namespace accelmm::mm {
namespace {

// Objects of 1 KiB: 64 a slab, two words.
constexpr unsigned kibibytes = 31;
static_assert(slab_class_size(kibibytes) == 1024);

class SlabCentralTest : public ::testing::Test {
 protected:
  SlabCentralTest() {
    central.start(kibibytes, 1);
    for (std::uint64_t base = 0; base < 3; ++base) {
      records[base] = central.take_record().value();
      central.add(*records[base], base << slab_unit_log2, table);
    }
  }
  static void take_objects(SlabWordRef word, std::uint32_t objects) {
    const Taken taken =
        take_from_held(word.marks(), [&](std::uint32_t free) { return free & objects; });
    ASSERT_EQ(objects, taken.objects);
  }

  SlabTable table{8};
  SlabCentral central;
  std::array<SlabRecord*, 3> records = {};
};

TEST_F(SlabCentralTest, GivesTheWordsOfOneSlabAndTakesThemBack) {
  std::array<SlabWordRef, 10> words;
  ASSERT_EQ(2U, central.take(words));
  EXPECT_EQ(&words[0].record(), &words[1].record());
  std::array<std::uint64_t, 2> held = {words[0].raw(), words[1].raw()};
  central.validate(held, table);
  EXPECT_EQ(64U, central.count().cached);
  SlabsReleased released;
  central.put(std::span(words).first(2), table, released);
  central.validate({}, table);
  EXPECT_EQ(0U, central.count().cached);
}

TEST_F(SlabCentralTest, LetsGoOfASlabThatBecomesEmptyWhileAnotherIs) {
  std::array<SlabWordRef, 2> words;
  ASSERT_EQ(2U, central.take(words));
  SlabsReleased released;
  central.put(words, table, released);
  EXPECT_EQ(1U, released.count);
  EXPECT_EQ(0U, table.entry_at(released.bases[0]));
  EXPECT_EQ(2U, central.count().slabs);
}

TEST_F(SlabCentralTest, KeepsASlabThatIsNotEmptyUntilSomeoneLooks) {
  std::array<SlabWordRef, 2> words;
  ASSERT_EQ(2U, central.take(words));
  take_objects(words[0], 1);
  SlabsReleased released;
  central.put(words, table, released);
  EXPECT_EQ(0U, released.count);
  const std::uint64_t base = words[0].record().base;
  const std::uint64_t entry = table.entry_at(base);
  ASSERT_TRUE(free_in_word(words[0].marks(), words[0].marks().load(), 1, [] { return true; }).done);
  central.look(base, entry + 64, table, released);  // another slab's by now
  EXPECT_EQ(0U, released.count);
  central.look(base, entry, table, released);
  EXPECT_EQ(1U, released.count);
  EXPECT_EQ(base, released.bases[0]);
}

TEST_F(SlabCentralTest, UsesTheRecordOfAReturnedSlabAgain) {
  SlabsReleased released;
  central.release_empty(0, table, released);
  EXPECT_EQ(3U, released.count);
  EXPECT_EQ(0U, central.count().slabs);
  const std::uint64_t metadata = central.count().metadata;
  SlabRecord* record = central.take_record().value();
  EXPECT_TRUE(record == records[0] || record == records[1] || record == records[2]);
  EXPECT_EQ(metadata, central.count().metadata);
}

TEST_F(SlabCentralTest, RecountPutsDamagedListsAndCountsRight) {
  std::array<SlabWordRef, 1> words;
  ASSERT_EQ(1U, central.take(words));
  take_objects(words[0], ~std::uint32_t{0});
  EXPECT_EQ(0U, central.recount());
  records[0]->central_count = 7;
  records[1]->empty = !records[1]->empty;
  records[2]->central[0].fetch_xor(1);
  EXPECT_LE(3U, central.recount());
  EXPECT_EQ(0U, central.recount());
  central.validate({}, table);
  EXPECT_EQ(32U, central.count().live);
}

TEST_F(SlabCentralTest, AWordThatIsPutTwiceStopsTheProgram) {
  std::array<SlabWordRef, 1> words;
  ASSERT_EQ(1U, central.take(words));
  take_objects(words[0], 1);
  SlabsReleased released;
  central.put(words, table, released);
  EXPECT_DEATH(central.put(words, table, released), "before & bit");
}

TEST_F(SlabCentralTest, AnExtentThatASourceGivesTwiceStopsTheProgram) {
  SlabRecord* record = central.take_record().value();
  EXPECT_DEATH(central.add(*record, 0, table), "check failed");
}

}  // namespace
}  // namespace accelmm::mm
