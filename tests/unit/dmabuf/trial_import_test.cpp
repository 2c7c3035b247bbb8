// SPDX-License-Identifier: Apache-2.0
#include "unit/mm/failing_new.hpp"

#include <accelmm/trial_import.hpp>

#include <utility>
#include <vector>

#include <drm_fourcc.h>
#include <fcntl.h>
#include <gtest/gtest.h>

namespace accelmm::test {
namespace {

constexpr ImageSize size = {640, 480};

// A device whose answers the test sets; buffers are named by the open file's own descriptor.
class FakeDevice final : public SharingDevice {
 public:
  explicit FakeDevice(std::string name) : name_(std::move(name)) {
    wanted.needs = {Use::attach};
    wanted.min_size = ByteCount(5000);
  }
  [[nodiscard]] const std::string& name() const override { return name_; }
  Result<Constraints> constraints(const ImageSize& asked) override {
    EXPECT_EQ(size, asked);
    if (broken) return fail(Errc::io_error, "no answer");
    return wanted;
  }
  Result<void> try_import(FdView buffer, const Agreement& agreement) override {
    EXPECT_TRUE(buffer.valid());
    sizes.push_back(agreement.size.value());
    return answers.empty() ? Result<void>() : *std::exchange(next, next + 1);
  }
  // Answers to one trial after the other.
  void answer(std::vector<Result<void>> all) {
    answers = std::move(all);
    next = answers.begin();
  }

  Constraints wanted;
  bool broken = false;
  std::vector<std::uint64_t> sizes;

 private:
  std::string name_;
  std::vector<Result<void>> answers;
  std::vector<Result<void>>::iterator next;
};

class TrialImport : public ::testing::Test {
 protected:
  BufferSource source(const char* heap, Contiguity contiguity = Contiguity::scattered) {
    return {
        .description = {.heap = heap, .contiguity = contiguity, .can = {Use::attach, Use::cpu_map}},
        .allocate = [this](ByteCount bytes) -> Result<UniqueFd> {
          allocated.push_back(bytes.value());
          if (empty) return fail(Errc::no_memory, "the heap is empty");
          return UniqueFd(::open("/dev/null", O_RDWR | O_CLOEXEC));
        }};
  }
  std::expected<Settlement, Refusal> settled() {
    const std::vector<SharingDevice*> devices = {&camera, &display};
    return settle({.devices = devices, .participants = others, .sources = sources, .image = size},
                  trials);
  }

  FakeDevice camera{"camera"};
  FakeDevice display{"display"};
  std::vector<Participant> others;
  std::vector<BufferSource> sources = {source("udmabuf"), source("system")};
  TrialImports trials;
  std::vector<std::uint64_t> allocated;
  bool empty = false;
};

TEST_F(TrialImport, TheFirstSourceThatAllTakeIsChosen) {
  const auto found = settled();
  ASSERT_TRUE(found) << found.error().text;
  EXPECT_EQ(0U, found->source);
  EXPECT_EQ(ByteCount(8192), found->agreement.size) << "whole pages";
  EXPECT_EQ(std::vector<std::uint64_t>{8192}, allocated) << "one buffer for both";
  EXPECT_TRUE(found->refused.empty());
}

TEST_F(TrialImport, ASourceThatADeviceRefusesGivesWayToTheNext) {
  display.answer({fail(Errc::no_device, "driver imports nothing"), {}});
  const auto found = settled();
  ASSERT_TRUE(found) << found.error().text;
  EXPECT_EQ(1U, found->source);
  EXPECT_EQ(
      std::vector<std::string>{
          "display refused a buffer of udmabuf: driver imports nothing (No such device)"},
      found->refused);
}

TEST_F(TrialImport, WhereNoSourceServesTheErrorNamesEachRefusal) {
  camera.answer(
      {fail(Errc::fault, "it wants contiguous memory, and the buffer's pages are scattered"),
       fail(Errc::fault, "it wants contiguous memory, and the buffer's pages are scattered")});
  sources.push_back(source("memfd"));
  sources.back().description.can = {Use::cpu_map};
  const auto found = settled();
  ASSERT_FALSE(found);
  EXPECT_EQ(Errc::not_supported, found.error().code);
  EXPECT_EQ(
      "no memory serves all: camera wants dma-bufs; memfd gives none / camera refused a buffer of "
      "udmabuf: it wants "
      "contiguous memory, and the buffer's pages are scattered (Bad address) / camera refused a "
      "buffer of system: it "
      "wants contiguous memory, and the buffer's pages are scattered (Bad address)",
      found.error().text);
}

TEST_F(TrialImport, ParticipantsThatDisagreeAreNotTried) {
  Constraints wanted;
  wanted.max_size = ByteCount(4096);
  others.push_back({"npu", wanted});
  const auto found = settled();
  ASSERT_FALSE(found);
  EXPECT_EQ(Errc::not_supported, found.error().code);
  EXPECT_EQ("size: camera wants at least 5000 bytes; npu wants at most 4096 bytes",
            found.error().text);
  EXPECT_TRUE(allocated.empty());
}

TEST_F(TrialImport, AVerdictIsRememberedAndNoBufferIsMadeForIt) {
  display.answer({fail(Errc::no_device, "driver imports nothing"), {}});
  ASSERT_TRUE(settled());
  EXPECT_EQ(4U, trials.statistics().asked);
  const auto made = allocated.size();
  const auto again = settled();
  ASSERT_TRUE(again);
  EXPECT_EQ(1U, again->source);
  EXPECT_EQ(made, allocated.size());
  EXPECT_EQ(4U, trials.statistics().asked);
  EXPECT_EQ(4U, trials.statistics().remembered);
}

TEST_F(TrialImport, AnotherSizeClassOrFormatIsAskedAgain) {
  ASSERT_TRUE(settled());
  camera.wanted.min_size = ByteCount(8192);  // the same class as 5000 in pages
  ASSERT_TRUE(settled());
  EXPECT_EQ(2U, trials.statistics().asked);
  camera.wanted.min_size = ByteCount(8193);
  ASSERT_TRUE(settled());
  EXPECT_EQ(4U, trials.statistics().asked);
  camera.wanted.images.emplace();
  camera.wanted.images->emplace(FormatPattern{DRM_FORMAT_NV12, 0}, ImageConstraints{});
  ASSERT_TRUE(settled());
  EXPECT_EQ(6U, trials.statistics().asked);
}

TEST_F(TrialImport, WhatMayPassIsNotRemembered) {
  for (const int passing : {ENOMEM, EMFILE, ENFILE, EBUSY, EAGAIN, EINTR, ENOSPC}) {
    TrialImports fresh;
    FakeDevice device("device");
    device.answer({fail_errno(passing, "not now"), {}});
    const auto buffer = sources.front().allocate(ByteCount(4096));
    Agreement agreement;
    agreement.size = ByteCount(4096);
    EXPECT_FALSE(fresh.try_import(device, sources.front().description, buffer->view(), agreement));
    EXPECT_TRUE(fresh.try_import(device, sources.front().description, buffer->view(), agreement))
        << passing;
    EXPECT_EQ(2U, fresh.statistics().asked) << passing;
  }
}

TEST_F(TrialImport, ASourceWithoutMemoryIsPassedOver) {
  empty = true;
  const auto found = settled();
  ASSERT_FALSE(found);
  EXPECT_EQ(
      "no memory serves all: udmabuf gave no buffer: the heap is empty (Cannot allocate memory) / "
      "system gave no "
      "buffer: the heap is empty (Cannot allocate memory)",
      found.error().text);
}

TEST_F(TrialImport, ADeviceThatDoesNotAnswerIsNamed) {
  display.broken = true;
  const auto found = settled();
  ASSERT_FALSE(found);
  EXPECT_EQ(Errc::io_error, found.error().code);
  EXPECT_EQ("display cannot say what it needs: no answer (Input/output error)", found.error().text);
}

TEST_F(TrialImport, AFailedAllocationIsAnErrorAndLeaksNothing) {
  camera.sizes.reserve(8);
  display.sizes.reserve(8);
  allocated.reserve(1000);  // what the fixture keeps is no leak
  ASSERT_TRUE(settled());
  for (std::int64_t k = 0;; ++k) {
    trials = {};
    camera.sizes.clear();
    display.sizes.clear();
    const std::vector<SharingDevice*> devices = {&camera, &display};
    const Round round = {
        .devices = devices, .participants = others, .sources = sources, .image = size};
    const auto before = heap.live;
    {
      TrialImports fresh;
      FailingNew failing(k);
      const auto found = settle(round, fresh);
      if (!failing.happened()) break;
      ASSERT_FALSE(found) << k;
      EXPECT_EQ(Errc::no_memory, found.error().code) << k;
    }
    EXPECT_EQ(before, heap.live) << k;
  }
}

}  // namespace
}  // namespace accelmm::test
