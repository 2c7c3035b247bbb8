// SPDX-License-Identifier: Apache-2.0
#include "client/error_text.hpp"

#include <accelmm/client.hpp>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <set>
#include <string>
#include <utility>

#include <gtest/gtest.h>

namespace accelmm {
namespace {

TEST(ErrorText, EachErrnoHasOneTextAndNoTextServesTwo) {
  std::set<Errc> codes;
  std::set<std::string> texts;
  for (const ErrorText& entry : error_texts()) {
    EXPECT_TRUE(codes.insert(entry.code).second) << entry.name;
    EXPECT_TRUE(texts.insert(entry.text).second) << entry.name;
    EXPECT_STREQ(entry.text, error_text(entry.code));
  }
  EXPECT_GE(codes.size(), 20u);
}

TEST(ErrorText, NamesAreThoseOfTheSystemAndSorted) {
  std::string previous;
  for (const ErrorText& entry : error_texts()) {
    EXPECT_STREQ(::strerrorname_np(std::to_underlying(entry.code)), entry.name);
    EXPECT_LT(previous, entry.name);
    previous = entry.name;
  }
}

TEST(ErrorText, EveryErrorThatAccelmmMakesHasAText) {
  for (const Errc code : {Errc::not_permitted,
                          Errc::no_entry,
                          Errc::io_error,
                          Errc::too_big,
                          Errc::try_again,
                          Errc::no_memory,
                          Errc::fault,
                          Errc::busy,
                          Errc::exists,
                          Errc::no_device,
                          Errc::invalid_argument,
                          Errc::too_many_files,
                          Errc::unknown_ioctl,
                          Errc::overflow,
                          Errc::protocol_error,
                          Errc::not_supported,
                          Errc::address_in_use,
                          Errc::timed_out,
                          Errc::canceled,
                          Errc::over_quota}) {
    const auto texts = error_texts();
    const bool found =
        std::ranges::any_of(texts, [code](const ErrorText& entry) { return entry.code == code; });
    EXPECT_TRUE(found) << std::to_underlying(code);
  }
}

TEST(ErrorText, AnythingElseHasAGeneralText) {
  EXPECT_STREQ("success", error_text(Errc{}));
  EXPECT_STREQ(error_text(static_cast<Errc>(4095)), error_text(static_cast<Errc>(-1)));
  EXPECT_NE(nullptr, error_text(static_cast<Errc>(INT32_MAX)));
}

// A row of docs/errors.md: | `EBUSY` | text |
TEST(ErrorText, TheDocumentationSaysTheSame) {
  std::ifstream file(ACCELMM_ERRORS_PAGE);
  ASSERT_TRUE(file) << ACCELMM_ERRORS_PAGE << " is not there";
  std::set<std::string> rows;
  for (std::string line; std::getline(file, line);)
    if (line.starts_with("| `E")) rows.insert(line);
  ASSERT_FALSE(rows.empty());
  for (const ErrorText& entry : error_texts()) {
    const std::string begin = std::string("| `") + entry.name + "` | " + entry.text + " |";
    const bool found =
        std::ranges::any_of(rows, [&](const std::string& row) { return row.starts_with(begin); });
    EXPECT_TRUE(found) << begin;
  }
  EXPECT_EQ(error_texts().size(), rows.size());
}

}  // namespace
}  // namespace accelmm
