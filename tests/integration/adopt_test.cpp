// SPDX-License-Identifier: Apache-2.0
//
// Memory that an application had before, made a buffer's.
#include "support/failing_calls.hpp"
#include "support/npu_host.hpp"

#include <accelmm/client.hpp>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <span>

#include <gtest/gtest.h>
#include <sys/mman.h>

namespace accelmm {
namespace {

using test::NpuHost;
using test::Path;
using test::value;

constexpr std::size_t page = 4096;
constexpr std::size_t size = 16 * page;

/// Three pieces of anonymous memory, of which tests adopt the middle one.
class OwnMemory {
 public:
  OwnMemory()
      : base_(static_cast<std::byte*>(::mmap(nullptr, 3 * size, PROT_READ | PROT_WRITE,
                                             MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))) {
    EXPECT_NE(MAP_FAILED, static_cast<void*>(base_));
    for (std::size_t i = 0; i < 3 * size; ++i) base_[i] = pattern(i);
  }
  OwnMemory(const OwnMemory&) = delete;
  OwnMemory& operator=(const OwnMemory&) = delete;
  ~OwnMemory() { EXPECT_EQ(0, ::munmap(base_, 3 * size)); }
  [[nodiscard]] std::span<std::byte> middle() const { return {base_ + size, size}; }
  [[nodiscard]] bool is_as_it_was() const {
    for (std::size_t i = 0; i < 3 * size; ++i)
      if (base_[i] != pattern(i)) return false;
    return true;
  }

 private:
  static std::byte pattern(std::size_t i) { return static_cast<std::byte>(i * 7 + i / 4093); }
  std::byte* base_;
};

class AdoptOver : public testing::TestWithParam<Path> {
 protected:
  AdoptOver() { host_.add(); }
  /// Has the device copy all of one buffer to another.
  static void copy_by_device(const Client& client, const Buffer& from, const Buffer& to) {
    const DeviceMapping source = value(from.map_device(Access::read));
    const DeviceMapping target = value(to.map_device());
    accelmm_npu_copy args{};
    args.source = source.address().value();
    args.destination = target.address().value();
    args.length = size;
    value(client.ioctl(ACCELMM_IOCTL_NPU_COPY, args));
    value(client.wait(Point::job(args.point.value)));
  }
  test::FailingSite failing_{nullptr, ENOMEM};
  NpuHost host_{GetParam()};
};
INSTANTIATE_TEST_SUITE_P(Each, AdoptOver, testing::Values(Path::socket, Path::embedded));

TEST_P(AdoptOver, TheDeviceSeesWhatPointersIntoTheMemoryWriteAndTheyWhatItWrites) {
  const Client client = host_.connect();
  const OwnMemory memory;
  std::byte* const pointer = memory.middle().data() + 5000;
  const Buffer adopted = value(client.adopt(memory.middle()));
  EXPECT_TRUE(memory.is_as_it_was());
  EXPECT_EQ(ByteCount(size), adopted.size());
  const Buffer other = value(client.allocate(ByteCount(size)));
  const CpuMapping seen = value(other.map_cpu());

  *pointer = std::byte{0x42};  // after it was adopted
  copy_by_device(client, adopted, other);
  EXPECT_TRUE(std::ranges::equal(memory.middle(), seen.bytes()));

  std::ranges::fill(seen.bytes(), std::byte{0x99});
  copy_by_device(client, other, adopted);
  EXPECT_EQ(std::byte{0x99}, *pointer);
  EXPECT_TRUE(std::ranges::equal(memory.middle(), seen.bytes()));
}

TEST_P(AdoptOver, TheMemoryStaysWhenItsBufferAndItsClientGo) {
  const OwnMemory memory;
  {
    const Client client = host_.connect();
    const Buffer adopted = value(client.adopt(memory.middle()));
  }
  EXPECT_TRUE(memory.is_as_it_was());
  std::ranges::fill(memory.middle(), std::byte{1});
}

TEST_P(AdoptOver, WhatIsNotWholePagesOfTheHostIsRefused) {
  const Client client = host_.connect();
  const OwnMemory memory;
  const auto middle = memory.middle();
  EXPECT_EQ(Errc::invalid_argument, test::code(client.adopt({})));
  EXPECT_EQ(Errc::invalid_argument, test::code(client.adopt(middle.subspan(1, page))));
  EXPECT_EQ(Errc::invalid_argument, test::code(client.adopt(middle.first(page + 1))));
  EXPECT_EQ(Errc::invalid_argument, test::code(client.adopt(middle, {.domain = Domain::device})));
  EXPECT_EQ(Errc::invalid_argument,
            test::code(client.adopt(middle, {.backing = {.pages = PageSize::huge_2m}})));
  EXPECT_EQ(0U, value(client.session_info()).buffers);
  EXPECT_TRUE(memory.is_as_it_was());
}

TEST_P(AdoptOver, MemoryInPlaceIsNotForADeviceWithAnMmuOfItsOwn) {
  const Client client = host_.connect();
  const OwnMemory memory;
  EXPECT_EQ(Errc::not_supported, test::code(client.map_in_place(memory.middle())));
  EXPECT_EQ(0U, value(client.session_info()).mappings);
}

TEST_P(AdoptOver, AFailureLeavesTheMemoryAsItWas) {
  const Client client = host_.connect();
  const OwnMemory memory;
  for (const char* const site : {"memfd_create", "mmap", "mremap"}) {
    const long before = failing_.failures();
    failing_.turn_to(site);
    EXPECT_EQ(Errc::no_memory, test::code(client.adopt(memory.middle()))) << site;
    EXPECT_GT(failing_.failures(), before) << site;
    failing_.turn_to(nullptr);
    EXPECT_TRUE(memory.is_as_it_was());
  }
  EXPECT_EQ(0U, value(client.session_info()).buffers);
  std::ranges::fill(memory.middle(), std::byte{1});  // and is the process's own still
}

}  // namespace
}  // namespace accelmm
