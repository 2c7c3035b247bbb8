// SPDX-License-Identifier: Apache-2.0
#include "unit/mm/failing_new.hpp"

#include <accelmm/negotiation.hpp>

#include <utility>
#include <vector>

#include <gtest/gtest.h>

namespace accelmm::test {
namespace {

using Sources = std::vector<SourceDescription>;
using Indices = std::vector<std::size_t>;

// As a Debian 12 has them.
SourceDescription udmabuf() {
  return {.heap = "udmabuf",
          .largest = 64_MiB,
          .can = {Use::cpu_map, Use::pin, Use::vmap, Use::attach, Use::charged}};
}
SourceDescription system_heap() {
  return {.heap = "system", .can = {Use::cpu_map, Use::vmap, Use::attach}};
}
SourceDescription cma() {
  return {.heap = "cma",
          .contiguity = Contiguity::contiguous,
          .address_bits = 32,
          .largest = 16_MiB,
          .can = {Use::cpu_map, Use::vmap, Use::attach}};
}
SourceDescription memfd() {
  return {.heap = "memfd", .can = {Use::cpu_map, Use::pin, Use::charged}};
}
Participant asking(const char* name, Constraints constraints) {
  return {name, std::move(constraints)};
}
Participant sized(std::uint64_t bytes) {
  Constraints wanted;
  wanted.min_size = ByteCount(bytes);
  return asking("producer", wanted);
}

Resolution resolved(const std::vector<Participant>& participants, const Sources& sources) {
  const auto agreement = negotiate(participants);
  EXPECT_TRUE(agreement);
  auto found = resolve(*agreement, participants, sources);
  EXPECT_TRUE(found);
  return found ? *std::move(found) : Resolution{};
}
std::string reason(const Participant& participant, const SourceDescription& source) {
  const auto found = resolved({sized(1 << 20), participant}, {source});
  if (found.refused.size() != 1) return "serves";
  EXPECT_EQ(1U, found.refused.front().participant);
  return found.refused.front().reason;
}

TEST(SourceChoice, ChargedMemoryComesFirstThenFewerPiecesThenTheFirstInTheList) {
  auto second = system_heap();
  second.heap = "other";
  EXPECT_EQ((Indices{3, 1, 0, 2}),
            resolved({sized(1 << 20)}, {system_heap(), cma(), second, udmabuf()}).ranked);
}

TEST(SourceChoice, EachRefusalNamesWhoWantsWhatAndWhatTheSourceGives) {
  Constraints wanted;
  wanted.contiguity = Contiguity::contiguous;
  EXPECT_EQ("camera wants contiguous memory; udmabuf gives scattered pages",
            reason(asking("camera", wanted), udmabuf()));
  EXPECT_EQ("serves", reason(asking("camera", wanted), cma()));
  wanted = {};
  wanted.address_bits = 32;
  EXPECT_EQ("camera wants addresses of 32 bits; udmabuf gives up to 64",
            reason(asking("camera", wanted), udmabuf()));
  EXPECT_EQ("serves", reason(asking("camera", wanted), cma()));
  wanted = {};
  wanted.heaps = {"cma"};
  EXPECT_EQ("npu wants another heap; udmabuf gives its own",
            reason(asking("npu", wanted), udmabuf()));
  wanted = {};
  wanted.needs = {Use::pin};
  EXPECT_EQ("nic wants memory that can be pinned by address; system gives none",
            reason(asking("nic", wanted), system_heap()));
  wanted.needs = {Use::attach};
  EXPECT_EQ("camera wants dma-bufs; memfd gives none", reason(asking("camera", wanted), memfd()));
  wanted.needs = {Use::charged};
  EXPECT_EQ("host wants memory that is charged to a cgroup; system gives none",
            reason(asking("host", wanted), system_heap()));
  wanted = {};
  wanted.domains = {CoherenceDomain::inaccessible};
  EXPECT_EQ("vault wants another coherence domain; udmabuf gives its own",
            reason(asking("vault", wanted), udmabuf()));
  wanted = {};
  wanted.base_alignment = Alignment(8192);
  EXPECT_EQ("npu wants addresses aligned to 8192 bytes; udmabuf gives to 4096",
            reason(asking("npu", wanted), udmabuf()));
  wanted = {};
  wanted.max_segments = 255;
  EXPECT_EQ("nic wants at most 255 segments; udmabuf gives up to 256",
            reason(asking("nic", wanted), udmabuf()));
  wanted.max_segments = 256;
  EXPECT_EQ("serves", reason(asking("nic", wanted), udmabuf()));
}

TEST(SourceChoice, SegmentsAreCutWhereADeviceTakesOnlyShortOnes) {
  Constraints wanted;
  wanted.largest_segment = 64_KiB;
  wanted.max_segments = 16;
  EXPECT_EQ("serves", reason(asking("nic", wanted), cma())) << "1 MiB is 16 times 64 KiB";
  wanted.max_segments = 17;
  wanted.largest_segment = ByteCount(65535);
  EXPECT_EQ("serves", reason(asking("nic", wanted), cma()));
}

TEST(SourceChoice, SizesAreRoundedUpToWhatTheSourceGivesOut) {
  Constraints wanted;
  wanted.max_size = ByteCount(6000);
  EXPECT_EQ("small wants at most 6000 bytes; udmabuf gives 8192",
            resolved({sized(5000), asking("small", wanted)}, {udmabuf()}).refused.front().reason);
}

TEST(SourceChoice, ASourceThatIsTooSmallNamesWhoNeedsTheMost) {
  const auto found = resolved({sized(10), sized(65 << 20), sized(20)}, {udmabuf()});
  ASSERT_EQ(1U, found.refused.size());
  EXPECT_EQ(1U, found.refused.front().participant);
  EXPECT_EQ("producer wants 68157440 bytes; udmabuf gives at most 67108864",
            found.refused.front().reason);
}

TEST(SourceChoice, NobodyNeedsNoMemory) {
  EXPECT_EQ(Errc::invalid_argument, resolve(Agreement{}, {}, Sources{udmabuf()}).error().code);
}

TEST(SourceChoice, AFailedAllocationIsAnErrorAndLeaksNothing) {
  Constraints wanted;
  wanted.contiguity = Contiguity::contiguous;
  const std::vector<Participant> participants = {sized(1 << 20), asking("camera", wanted)};
  const auto agreement = negotiate(participants);
  const Sources sources = {udmabuf(), cma()};
  const auto before = heap.live;
  for (std::int64_t k = 0;; ++k) {
    FailingNew failing(k);
    const auto found = resolve(*agreement, participants, sources);
    if (!failing.happened()) break;
    ASSERT_FALSE(found) << k;
    EXPECT_EQ(Errc::no_memory, found.error().code);
  }
  EXPECT_EQ(before, heap.live);
}

}  // namespace
}  // namespace accelmm::test
