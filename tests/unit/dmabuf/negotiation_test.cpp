// SPDX-License-Identifier: Apache-2.0
#include "unit/mm/failing_new.hpp"

#include <accelmm/negotiation.hpp>

#include <vector>

#include <drm_fourcc.h>
#include <gtest/gtest.h>

namespace accelmm::test {
namespace {

using Images = std::map<FormatPattern, ImageConstraints>;

// What the demands of three real participants look like: 640 x 480, as vivid, an accelerator with
// 4 KiB pages and cirrus say it.
Participant camera() {
  Participant made{"camera", {}};
  made.constraints.needs = {Use::attach};
  made.constraints.counts = {.camping = 2, .min = 2, .max = 32};
  made.constraints.images = Images{
      {{DRM_FORMAT_YUYV, 0},
       {.min_stride = ByteCount(1280), .rows = 480, .min_size = ByteCount(614400), .cost = 0}},
      {{DRM_FORMAT_XRGB8888, 0},
       {.min_stride = ByteCount(2560), .rows = 480, .min_size = ByteCount(1228800), .cost = 1}}};
  return made;
}
Participant npu() {
  Participant made{"npu", {}};
  made.constraints.size_divisor = 4096;
  made.constraints.offset_divisor = 4096;
  made.constraints.counts.dedicated = 1;
  return made;
}
Participant display() {
  Participant made{"display", {}};
  made.constraints.needs = {Use::attach};
  made.constraints.counts = {.camping = 2};
  made.constraints.images =
      Images{{{DRM_FORMAT_RGB565, 0},
              {.min_stride = ByteCount(1280), .max_stride = ByteCount(4088), .rows = 480}},
             {{DRM_FORMAT_XRGB8888, 0},
              {.min_stride = ByteCount(2560),
               .max_stride = ByteCount(4088),
               .stride_divisor = 64,
               .rows = 480}}};
  return made;
}

std::string text_of(const std::vector<Participant>& participants) {
  const auto found = negotiate(participants);
  return found ? "they agree" : found.error().text();
}

TEST(Negotiation, CameraAcceleratorAndDisplayAgreeOnOneAllocation) {
  const auto found = negotiate(std::vector{camera(), npu(), display()});
  ASSERT_TRUE(found) << found.error().text();
  ASSERT_TRUE(found->image);
  EXPECT_EQ((PixelFormat{DRM_FORMAT_XRGB8888, DRM_FORMAT_MOD_LINEAR}), found->image->format);
  EXPECT_EQ(ByteCount(2560), found->image->stride);
  EXPECT_EQ(ByteCount(1228800), found->size);  // 300 pages
  EXPECT_EQ(5U, found->count);                 // 2 + 2 held, 1 against stalls
}

TEST(Negotiation, NobodyAgreesOnOneByteOnce) {
  const auto found = negotiate({});
  ASSERT_TRUE(found);
  EXPECT_EQ(ByteCount(1), found->size);
  EXPECT_EQ(1U, found->count);
  EXPECT_FALSE(found->image);
}

TEST(Negotiation, TheCheapestFormatIsChosenAndThenTheLowest) {
  auto screen = display();
  screen.constraints.images->emplace(FormatPattern{DRM_FORMAT_YUYV, {}},
                                     ImageConstraints{.cost = 7});
  EXPECT_EQ(std::uint32_t{DRM_FORMAT_XRGB8888},
            negotiate(std::vector{camera(), screen})->image->format.fourcc);
  screen.constraints.images->at({DRM_FORMAT_YUYV, {}}).cost = 0;
  EXPECT_EQ(std::uint32_t{DRM_FORMAT_YUYV},
            negotiate(std::vector{camera(), screen})->image->format.fourcc);
}

TEST(Negotiation, PaddingLiesBehindTheImageOfTheAgreedStride) {
  auto gpu = npu();
  gpu.constraints.padding = ByteCount(100);
  gpu.constraints.images = Images{{{}, {.stride_divisor = 4096}}};
  const auto found = negotiate(std::vector{camera(), display(), gpu});
  ASSERT_FALSE(found) << "4096 is beyond the display's strides";
  auto wide = display();
  wide.constraints.images->at({DRM_FORMAT_XRGB8888, 0}).max_stride = ByteCount(4096);
  const auto padded = negotiate(std::vector{camera(), wide, gpu});
  ASSERT_TRUE(padded) << padded.error().text();
  EXPECT_EQ(ByteCount(4096), padded->image->stride);
  EXPECT_EQ(ByteCount(4096 * 480 + 4096), padded->size);  // 100 bytes more, in whole pages
}

TEST(Negotiation, AModifierThatNobodyNamesIsLinear) {
  Participant one{"one", {}};
  one.constraints.images = Images{{{DRM_FORMAT_NV12, {}}, {}}};
  EXPECT_EQ((PixelFormat{DRM_FORMAT_NV12, DRM_FORMAT_MOD_LINEAR}),
            negotiate(std::vector{one})->image->format);
}

// --- explanations: these texts are what a person gets, and they stay as they are ---

TEST(Negotiation, ADisagreementOnFormatsNamesBothLists) {
  auto screen = display();
  screen.constraints.images->erase({DRM_FORMAT_XRGB8888, 0});
  EXPECT_EQ(
      "format: camera wants format XR24 linear or YUYV linear; display wants format RG16 linear",
      text_of({camera(), npu(), screen}));
}

TEST(Negotiation, ADisagreementOfThreeNamesThree) {
  const auto offering = [](const char* name, std::uint64_t one, std::uint64_t other) {
    Participant made{name, {}};
    made.constraints.images = Images{{{DRM_FORMAT_NV12, one}, {}}, {{DRM_FORMAT_NV12, other}, {}}};
    return made;
  };
  EXPECT_EQ(
      "format: a wants format NV12 linear or NV12 of modifier 0x1; b wants format NV12 of modifier "
      "0x1 "
      "or NV12 of modifier 0x2; c wants format NV12 linear or NV12 of modifier 0x2",
      text_of({offering("a", 0, 1), npu(), offering("b", 1, 2), offering("c", 2, 0)}));
}

TEST(Negotiation, ADisagreementOnStridesNamesTheFormatAndBothStrides) {
  auto screen = display();
  screen.constraints.images->at({DRM_FORMAT_XRGB8888, 0}).max_stride = ByteCount(2048);
  screen.constraints.images->at({DRM_FORMAT_XRGB8888, 0}).min_stride = ByteCount(0);
  EXPECT_EQ(
      "layout of the image: camera wants for XR24 linear, strides of at least 2560 bytes, 480 "
      "rows, images "
      "of at least 1228800 bytes; display wants for XR24 linear, strides in multiples of 64 bytes, "
      "strides "
      "of at most 2048 bytes, 480 rows",
      text_of({camera(), npu(), screen}));
}

TEST(Negotiation, StridesContradictEachOtherAlsoWhereNobodyNamesAFormat) {
  Participant one{"one", {}};
  one.constraints.images = Images{{{{}, 0}, {.min_stride = ByteCount(100)}}};
  Participant other{"other", {}};
  other.constraints.images = Images{{{}, {.max_stride = ByteCount(50)}}};
  EXPECT_EQ(
      "layout of the image: one wants for any format linear, strides of at least 100 bytes; other "
      "wants for any "
      "format of any modifier, strides of at most 50 bytes",
      text_of({one, npu(), other}));
}

TEST(Negotiation, ADisagreementOnSizesNamesBothSizes) {
  auto small = npu();
  small.constraints.max_size = ByteCount(4096);
  auto large = camera();
  large.constraints.images = {};
  large.constraints.min_size = ByteCount(4097);
  EXPECT_EQ(
      "size: camera wants at least 4097 bytes; npu wants sizes in multiples of 4096 bytes, at most "
      "4096 bytes",
      text_of({large, small, display()}));
}

TEST(Negotiation, SegmentsAndAddressBitsLimitSizes) {
  auto large = npu();
  large.constraints.min_size = ByteCount(std::uint64_t{1} << 33);
  Participant old{"old", {}};
  old.constraints.address_bits = 32;
  EXPECT_EQ(
      "size: npu wants at least 8589934592 bytes, sizes in multiples of 4096 bytes; old wants "
      "addresses of 32 bits",
      text_of({large, old, camera()}));
}

TEST(Negotiation, ADisagreementOnHeapsNamesBothLists) {
  auto one = npu();
  one.constraints.heaps = {"cma", "system"};
  auto other = display();
  other.constraints.heaps = {"udmabuf"};
  EXPECT_EQ("heap: npu wants heap cma or system; display wants heap udmabuf",
            text_of({one, camera(), other}));
}

TEST(Negotiation, WhoMapsMemoryDisagreesWithWhoKeepsItFromTheCpu) {
  auto secure = npu();
  secure.constraints.domains = {CoherenceDomain::inaccessible};
  Participant process{"viewer", {}};
  process.constraints.needs = {Use::cpu_map};
  EXPECT_EQ(
      "coherence domain: npu wants domain inaccessible; viewer wants memory that the CPU maps",
      text_of({camera(), secure, process}));
}

TEST(Negotiation, ADisagreementOnCountsNamesWhatAddsUp) {
  auto few = npu();
  few.constraints.counts.max = 3;
  EXPECT_EQ(
      "number of buffers: camera wants 2 buffers to camp on, at least 2 buffers, at most 32 "
      "buffers; npu wants 1 of its "
      "own against stalls, at most 3 buffers; display wants 2 buffers to camp on",
      text_of({camera(), few, display()}));
}

TEST(Negotiation, MultiplesThatLeave64BitsNameBothDivisors) {
  auto one = npu();
  one.constraints.size_divisor = std::uint64_t{1} << 63;
  auto other = camera();
  other.constraints.size_divisor = 3;
  EXPECT_EQ(
      "multiples beyond 64 bits: camera wants sizes in multiples of 3 bytes; npu wants sizes in "
      "multiples of "
      "9223372036854775808 bytes, offsets in multiples of 4096 bytes",
      text_of({other, one}));
}

TEST(Negotiation, AlignmentBeyondTheAddressBitsLeavesNoAddress) {
  auto one = npu();
  one.constraints.address_bits = 20;
  auto other = camera();
  other.constraints.base_alignment = Alignment(1 << 20);
  EXPECT_EQ(
      "address: camera wants addresses aligned to 1048576 bytes; npu wants addresses of 20 bits",
      text_of({other, one}));
  other.constraints.base_alignment = Alignment(1 << 19);
  EXPECT_EQ(std::string::npos, text_of({other, one}).find("address:"));
}

TEST(Negotiation, WhoContradictsItselfIsNamedAlone) {
  auto one = npu();
  one.constraints.min_size = ByteCount(2);
  one.constraints.max_size = ByteCount(1);
  EXPECT_EQ("size: npu wants at least 2 bytes, sizes in multiples of 4096 bytes, at most 1 bytes",
            text_of({camera(), one}));
}

TEST(Negotiation, WhereNobodyNamesAFormatAllAreAsked) {
  Participant one{"one", {}};
  one.constraints.images = Images{{{{}, 0}, {}}};
  Participant other{"other", {}};
  other.constraints.images = Images{{{}, {}}};
  EXPECT_EQ(
      "nobody names a pixel format that fits: one wants format any format linear; other wants "
      "format any format "
      "of any modifier",
      text_of({one, npu(), other}));
}

TEST(Negotiation, MalformedConstraintsAreTheirParticipantsFault) {
  auto one = npu();
  one.constraints.address_bits = 65;
  const auto found = negotiate(std::vector{camera(), one});
  ASSERT_FALSE(found);
  EXPECT_EQ(Rule::well_formed, found.error().rule);
  ASSERT_EQ(1U, found.error().demands.size());
  EXPECT_EQ("npu", found.error().demands.front().participant);
}

TEST(Negotiation, AFailedAllocationIsAnAnswerAndLeaksNothing) {
  auto screen = display();
  screen.constraints.images->erase({DRM_FORMAT_XRGB8888, 0});
  for (const auto& participants :
       {std::vector{camera(), npu(), display()}, std::vector{camera(), npu(), screen}}) {
    const auto before = heap.live;
    for (std::int64_t k = 0;; ++k) {
      FailingNew failing(k);
      const bool found = negotiate(participants).has_value();
      if (!failing.happened()) break;
      EXPECT_FALSE(found) << k;
      EXPECT_EQ(before, heap.live) << k;
    }
    EXPECT_EQ(before, heap.live);
  }
}

}  // namespace
}  // namespace accelmm::test
