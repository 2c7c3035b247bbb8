// SPDX-License-Identifier: Apache-2.0
//
// Native pages that are no powers of two, as some accelerators have them: 48 MiB and 768 MiB.
#include "unit/mm/device_heap_fixture.hpp"

#include <vector>

namespace accelmm::test {
namespace {

class OddPages : public testing::TestWithParam<std::uint64_t> {};

TEST_P(OddPages, OneByteCostsAnOwnerOnePageAndTheNextCostNothing) {
  const ByteCount native = ByteCount(GetParam() << 20);
  auto heap =
      DeviceHeap::create({.size = ByteCount(48 * native.value()), .native_page = native}).value();
  const auto account = std::make_shared<Account>(Account::Options{});
  const OwnerId me = heap.add_owner(account).value();
  const OwnerId other = heap.add_owner(account).value();
  std::vector<DeviceHeap::Allocated> pieces;
  for (int i = 0; i < 1000; ++i)
    pieces.push_back(heap.allocate(me, {.size = ByteCount(1)}).value());
  for (int i = 0; i < 100; ++i) pieces.push_back(heap.allocate(me, {.size = 64_KiB}).value());
  EXPECT_EQ(native, account->used());
  const auto theirs = heap.allocate(other, {.size = ByteCount(1)}).value();
  EXPECT_NE(theirs.extent.offset.value() / native.value(),
            pieces[0].extent.offset.value() / native.value());
  const auto large = heap.allocate(me, {.size = native + ByteCount(1)}).value();
  EXPECT_EQ(0U, large.extent.offset.value() % native.value());
  EXPECT_EQ(ByteCount(2 * native.value()), large.extent.length);
  heap.validate();
  for (const auto& piece : pieces) ASSERT_TRUE(heap.free(me, piece.id));
  ASSERT_TRUE(heap.free(me, large.extent));
  ASSERT_TRUE(heap.free(other, theirs.id));
  static_cast<void>(heap.trim());
  EXPECT_EQ(ByteCount(48 * native.value()), heap.statistics().free);
  heap.validate();
}

INSTANTIATE_TEST_SUITE_P(MiB, OddPages, testing::Values(48, 768));

}  // namespace
}  // namespace accelmm::test
