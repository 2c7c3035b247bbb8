// SPDX-License-Identifier: Apache-2.0
//
// What the kernel says about a dma-buf, and what it is told to call one.
#include "dmabuf/buffer_info.hpp"
#include "dmabuf/buffer_name.hpp"

#include <string>

#include <gtest/gtest.h>

namespace accelmm::dmabuf {
namespace {

TEST(BufferName, WhatFitsStaysAsItIs) {
  EXPECT_EQ("", buffer_name(""));
  EXPECT_EQ(std::string(31, 'x'), buffer_name(std::string(31, 'x')));
}

TEST(BufferName, WhatIsLongerIsCutTo31Bytes) {
  EXPECT_EQ(std::string(31, 'x'), buffer_name(std::string(32, 'x')));
  EXPECT_EQ(std::string(31, 'x'), buffer_name(std::string(1000, 'x')));
}

TEST(BufferName, NoCharacterIsCutInTwo) {
  // Two, three and four bytes long, each beginning at each of the last places.
  for (const std::string character : {"\u00e4", "\u20ac", "\U0001f4a1"}) {
    for (std::size_t before = 27; before <= 31; ++before) {
      const std::string name = buffer_name(std::string(before, 'x') + character + "tail");
      const bool fits = before + character.size() <= 31;
      const std::string expected =
          fits ? std::string(before, 'x') + character +
                     std::string("tail").substr(0, 31 - before - character.size())
               : std::string(before, 'x');
      EXPECT_EQ(expected, name) << before << " bytes before " << character;
    }
  }
}

TEST(BufferName, BytesThatAreNoCharacterLeaveNothingRatherThanTooMuch) {
  EXPECT_EQ("", buffer_name(std::string(40, '\x80')));
}

TEST(BufferName, NothingInItEndsALineOrTheName) {
  EXPECT_EQ("two lines", buffer_name("two\nlines"));
  EXPECT_EQ("before", buffer_name(std::string("before\0after", 12)));
}

// As Linux 6.12 writes it.
constexpr const char* known =
    "pos:\t0\nflags:\t02000002\nmnt_id:\t10\nino:\t7\nsize:\t1048576\ncount:\t2\n"
    "exp_name:\tudmabuf\nname:\tframe 3: left\n";

TEST(BufferInfo, TheKernelsLinesAreRead) {
  const auto info = parse_buffer_info(known);
  ASSERT_TRUE(info.has_value());
  EXPECT_EQ(ByteCount(1048576), info->size);
  EXPECT_EQ(2U, info->holders);
  EXPECT_EQ("udmabuf", info->exporter);
  EXPECT_EQ("frame 3: left", info->name);
}

TEST(BufferInfo, ANameIsNotNeededAndNewLinesArePassedOver) {
  const auto info =
      parse_buffer_info("sized:\t9\ncount:\t1\nexp_name:\tsystem\nsize:\t4096\nnew:\tx");
  ASSERT_TRUE(info.has_value());
  EXPECT_EQ(ByteCount(4096), info->size);
  EXPECT_EQ("", info->name);
}

TEST(BufferInfo, WhatLacksALineOrANumberIsRefused) {
  for (const char* text :
       {"", "size:\t1\ncount:\t1\n", "size:\t1\nexp_name:\tx\n", "count:\t1\nexp_name:\tx\n",
        "size:\t\ncount:\t1\nexp_name:\tx\n", "size:\t-1\ncount:\t1\nexp_name:\tx\n",
        "size:\t1x\ncount:\t1\nexp_name:\tx\n",
        "size:\t99999999999999999999999\ncount:\t1\nexp_name:\tx\n"}) {
    const auto info = parse_buffer_info(text);
    ASSERT_FALSE(info.has_value()) << text;
    EXPECT_EQ(Errc::protocol_error, info.error().code) << text;
  }
}

}  // namespace
}  // namespace accelmm::dmabuf
