// SPDX-License-Identifier: Apache-2.0
//
// The kernel's calls about dma-bufs where it has none: what they say to descriptors that are no such thing, and that each
// has its point of fault injection. tests/kernel/dmabuf has them at work.
#include "base/system_dmabuf.hpp"

#include "base/system.hpp"
#include "support/failing_calls.hpp"
#include "support/temporary_folder.hpp"

#include <array>
#include <fstream>
#include <functional>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>

namespace accelmm {
namespace {

struct Call {
  const char* site;
  std::function<Result<void>(FdView)> make;
};

Result<void> only_error(const auto& result) {
  if (!result) return fail(result.error());
  return {};
}

std::vector<Call> calls() {
  return {
      {"udmabuf_create",
       [](FdView fd) { return only_error(sys::udmabuf_create(fd, {fd, 0, 4096})); }},
      {"udmabuf_create_list",
       [](FdView fd) {
         const std::array<sys::MemfdRange, 2> ranges{{{fd, 0, 4096}, {fd, 4096, 4096}}};
         return only_error(sys::udmabuf_create_list(fd, ranges));
       }},
      {"dma_heap_allocate",
       [](FdView fd) { return only_error(sys::dma_heap_allocate(fd, 4_KiB, Access::read_write)); }},
      {"dma_buf_set_name", [](FdView fd) { return sys::dma_buf_set_name(fd, "name"); }},
      {"dma_buf_sync",
       [](FdView fd) { return sys::dma_buf_sync(fd, Access::read, sys::SyncEdge::start); }},
      {"dma_buf_export_fence",
       [](FdView fd) { return only_error(sys::dma_buf_export_fence(fd, Access::read)); }},
      {"dma_buf_import_fence",
       [](FdView fd) { return sys::dma_buf_import_fence(fd, fd, Access::write); }},
      {"sync_file_merge",
       [](FdView fd) { return only_error(sys::sync_file_merge("name", fd, fd)); }},
      {"sync_file_info", [](FdView fd) { return only_error(sys::sync_file_info(fd)); }},
  };
}

TEST(SystemDmaBuf, WhatIsNoneSaysSo) {
  const UniqueFd memfd = sys::memfd_create("none", 8_KiB).value();
  for (const Call& call : calls()) {
    const auto said = call.make(memfd.view());
    ASSERT_FALSE(said.has_value()) << call.site;
    EXPECT_EQ(Errc::unknown_ioctl, said.error().code) << call.site;
  }
}

TEST(SystemDmaBuf, EachCallPassesItsPoint) {
  const UniqueFd memfd = sys::memfd_create("none", 8_KiB).value();
  for (const Call& call : calls()) {
    const test::FailingSite failing(call.site, EMFILE);
    EXPECT_EQ(Errc::too_many_files, call.make(memfd.view()).error().code) << call.site;
    EXPECT_EQ(1, failing.failures()) << call.site;
  }
}

TEST(SystemFile, AFolderIsListedInOrderWithoutWhatIsHidden) {
  const test::TemporaryFolder folder;
  for (const char* name : {"b", "a", ".hidden", "c"}) std::ofstream(folder.file(name));
  EXPECT_EQ((std::vector<std::string>{"a", "b", "c"}), sys::list_folder(folder.path()).value());
  EXPECT_EQ(Errc::no_entry, sys::list_folder(folder.file("none")).error().code);
  EXPECT_FALSE(sys::list_folder(folder.file("a")).has_value());
}

TEST(SystemTime, AnyOfSeveralDescriptorsEndsAWait) {
  const auto first = sys::pipe().value();
  const auto second = sys::pipe().value();
  std::array<pollfd, 2> entries{
      {{first.reader.get(), POLLIN, 0}, {second.reader.get(), POLLIN, 0}}};
  EXPECT_EQ(0, sys::poll_any(entries, 0).value());
  const std::array<std::byte, 1> byte{};
  ASSERT_TRUE(sys::write(second.writer.view(), byte).has_value());
  EXPECT_EQ(1, sys::poll_any(entries, -1).value());
  EXPECT_EQ(0, entries[0].revents);
  EXPECT_EQ(POLLIN, entries[1].revents);
}

}  // namespace
}  // namespace accelmm
