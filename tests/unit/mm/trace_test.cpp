// SPDX-License-Identifier: Apache-2.0
#include "support/trace_memory.hpp"

#include <accelmm/trace.hpp>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

namespace accelmm {
namespace {

using test::events_of;
using test::file_of;

TraceEvent allocate(std::uint32_t size) {
  return {.op = TraceOp::allocate, .size = size};
}
TraceEvent end_of(std::uint32_t subject, std::uint32_t size) {
  return {.op = TraceOp::free, .size = size, .subject = subject};
}
TraceEvent split(std::uint32_t subject, std::uint32_t size) {
  return {.op = TraceOp::split, .size = size, .subject = subject};
}

std::string_view flaw_of(const std::vector<TraceEvent>& events, const TraceHeader& header = {}) {
  const auto found = events_of(file_of(header, events));
  return found ? "none" : found.error().what;
}

// The bytes of docs/trace.md, so that the format cannot change unnoticed.
TEST(TraceFormat, LaysAnEventOutAsDescribed) {
  const TraceEvent event{.time = 0x0102030405,
                         .op = TraceOp::allocate,
                         .pool = 0xe,
                         .thread = 0x1234,
                         .size = 0xa0b0c0d0,
                         .subject = 0x11223344,
                         .align_log2 = 21,
                         .lifetime = Lifetime::page_tables,
                         .placement = Placement::top_down,
                         .contents = Contents::zeros,
                         .shape = TraceEvent::Shape::scattered};
  const std::uint8_t expected[] = {0x05, 0x04, 0x03, 0x02, 0x01, 0xe1, 0x34, 0x12,
                                   0x44, 0x33, 0x22, 0x11, 0xd0, 0xc0, 0xb0, 0xa0,
                                   0xd5, 0x0e, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00};
  const auto bytes = trace_format::encode(event);
  for (std::size_t i = 0; i < bytes.size(); ++i)
    EXPECT_EQ(expected[i], std::to_integer<unsigned>(bytes[i])) << i;
  EXPECT_EQ(event, trace_format::decode_event(bytes).value());
}

TEST(TraceFormat, LaysTheHeaderOutAsDescribed) {
  TraceHeader header{.unit = Alignment(256), .tick_ns = 1000, .events = 0x0102, .lost = 3};
  header.pool_sizes[0] = ByteCount(0x1122);
  header.pool_sizes[15] = ByteCount(std::uint64_t{1} << 40);
  const auto bytes = trace_format::encode(header);
  const auto at = [&](std::size_t i) { return std::to_integer<unsigned>(bytes[i]); };
  std::string magic;
  for (std::size_t i = 0; i < 8; ++i) magic += static_cast<char>(at(i));
  EXPECT_EQ("ACCELTRC", magic);
  EXPECT_EQ(1U, at(8));
  EXPECT_EQ(24U, at(12));
  EXPECT_EQ(8U, at(16));
  EXPECT_EQ(0xe8U, at(20));
  EXPECT_EQ(0x03U, at(21));
  EXPECT_EQ(0x02U, at(24));
  EXPECT_EQ(0x01U, at(25));
  EXPECT_EQ(3U, at(32));
  EXPECT_EQ(0x22U, at(64));
  EXPECT_EQ(1U, at(64 + 15 * 8 + 5));
  EXPECT_EQ(header, trace_format::decode_header(bytes).value());
}

TEST(TraceFormat, KeepsTheLatestTimeThatFits) {
  const auto bytes = trace_format::encode(TraceEvent{.time = ~std::uint64_t{0}, .size = 1});
  EXPECT_EQ((std::uint64_t{1} << 40) - 1, trace_format::decode_event(bytes)->time);
}

TEST(TraceReader, GivesTheEventsInOrder) {
  const std::vector<TraceEvent> events = {
      allocate(10),
      {.op = TraceOp::refused, .pool = 3, .size = 7},
      split(0, 4),
      end_of(2, 6),
      {.op = TraceOp::bad_free},
      end_of(0, 4),
  };
  const auto found = events_of(file_of({}, events));
  ASSERT_TRUE(found) << found.error().what;
  EXPECT_EQ(events, *found);
}

TEST(TraceReader, SaysWhereItIsAndWhatIsLive) {
  const auto file = file_of({}, {allocate(10), allocate(1), end_of(0, 10)});
  auto reader = TraceReader::open(file).value();
  EXPECT_EQ(0U, reader.position());
  ASSERT_TRUE(reader.next());
  ASSERT_TRUE(reader.next());
  EXPECT_EQ(2U, reader.position());
  EXPECT_EQ(2U, reader.live());
  ASSERT_TRUE(reader.next());
  EXPECT_EQ(1U, reader.live());
  EXPECT_EQ(std::nullopt, reader.next().value());
  EXPECT_EQ(std::nullopt, reader.next().value());
}

TEST(TraceReader, RefusesEventsThatCannotBe) {
  EXPECT_EQ("the trace frees or splits what is not live", flaw_of({end_of(0, 1)}));
  EXPECT_EQ("the trace frees or splits what is not live",
            flaw_of({allocate(1), end_of(0, 1), end_of(0, 1)}));
  EXPECT_EQ("the trace frees or splits what is not live", flaw_of({allocate(1), end_of(7, 1)}));
  EXPECT_EQ("the trace frees or splits what is not live", flaw_of({allocate(2), split(1, 1)}));
  EXPECT_EQ("the trace frees another size than it allocated", flaw_of({allocate(1), end_of(0, 2)}));
  EXPECT_EQ("the trace frees another size than it allocated",
            flaw_of({allocate(10), split(0, 4), end_of(0, 10)}));
  EXPECT_EQ("the trace splits an allocation behind its end", flaw_of({allocate(10), split(0, 10)}));
  EXPECT_EQ("an event of the trace has size 0", flaw_of({allocate(0)}));
  EXPECT_EQ("an event of the trace has size 0", flaw_of({allocate(3), split(0, 0)}));
  TraceEvent other_pool = end_of(0, 1);
  other_pool.pool = 1;
  EXPECT_EQ("the trace frees or splits what is of another pool",
            flaw_of({allocate(1), other_pool}));
  TraceEvent with_subject = allocate(1);
  with_subject.subject = 1;
  EXPECT_EQ("an event of the trace names an allocation that it is not about",
            flaw_of({with_subject}));
}

TEST(TraceReader, RefusesMoreThanAPoolHolds) {
  TraceHeader header;
  header.pool_sizes[0] = ByteCount(10 * 4096);
  EXPECT_EQ("none", flaw_of({allocate(10)}, header));
  EXPECT_EQ("none", flaw_of({allocate(10), end_of(0, 10), allocate(10)}, header));
  const std::string_view flaw = "more is live in the trace than its pool holds";
  EXPECT_EQ(flaw, flaw_of({allocate(11)}, header));
  EXPECT_EQ(flaw, flaw_of({allocate(10), allocate(1)}, header));
}

TEST(TraceReader, RefusesSizesThatOverflow64Bits) {
  TraceHeader header{.unit = Alignment(std::uint64_t{1} << 31)};
  EXPECT_EQ("none", flaw_of({allocate(1U << 31)}, header));  // 2^62 bytes
  EXPECT_EQ("more is live in the trace than its pool holds",
            flaw_of({allocate(1U << 31), allocate(1)}, header));
  EXPECT_EQ("more is live in the trace than its pool holds",
            flaw_of({allocate(0xffff'ffff)}, header));
}

// Every bit of an event that must be zero, and every op that is none.
TEST(TraceReader, RefusesEventsThatAreNotOfThisVersion) {
  const auto file = file_of({}, {allocate(1)});
  for (unsigned bit = 12; bit < 64; ++bit) {
    auto bad = file;
    bad[192 + 16 + bit / 8] |= static_cast<std::byte>(1U << bit % 8);
    EXPECT_EQ("an event of a trace has a bit set that must be zero",
              std::string_view(events_of(bad).error().what))
        << bit;
  }
  for (const unsigned op : {0U, 6U, 7U, 15U}) {
    auto bad = file;
    bad[192 + 5] = static_cast<std::byte>(op);
    EXPECT_EQ("an event of a trace does what is not known",
              std::string_view(events_of(bad).error().what))
        << op;
  }
  auto bad = file;
  bad[192 + 17] |= std::byte{3};
  EXPECT_EQ("an event of a trace has a placement that is not known",
            std::string_view(events_of(bad).error().what));
}

TEST(TraceReader, RefusesEveryTruncation) {
  const auto file = file_of({}, {allocate(1), allocate(2)});
  for (std::size_t size = 0; size < file.size(); ++size) {
    const auto found = events_of(std::span(file).first(size));
    ASSERT_FALSE(found) << size;
    EXPECT_EQ(size < 192 ? "the trace is shorter than its header"
                         : "the trace does not hold as many events as it says",
              std::string_view(found.error().what));
  }
  auto longer = file;
  longer.insert(longer.end(), 24, std::byte{0});
  EXPECT_FALSE(events_of(longer));
}

TEST(TraceReader, RefusesHeadersThatMakeNoSense) {
  const auto with = [](std::size_t at, unsigned value) {
    auto file = file_of({}, {});
    file[at] = static_cast<std::byte>(value);
    const auto found = TraceReader::open(file);
    return std::string(found ? "none" : found.error().what);
  };
  EXPECT_EQ("none", with(8, 1));
  EXPECT_EQ("this is no trace, or one that was not finished", with(0, 'B'));
  EXPECT_EQ("the trace has a version that is not known", with(8, 2));
  EXPECT_EQ("the trace has events of another size", with(12, 32));
  EXPECT_EQ("the trace has a unit above 2 GiB", with(16, 32));
  EXPECT_EQ("the trace has ticks of 0 ns", with(20, 0));
  EXPECT_EQ("the trace has more events than ids", with(29, 1));
  EXPECT_EQ("the trace does not hold as many events as it says", with(24, 1));
  for (std::size_t at = 40; at < 64; ++at)
    EXPECT_EQ("the header of the trace has a byte that must be zero", with(at, 1)) << at;
}

}  // namespace
}  // namespace accelmm
