// SPDX-License-Identifier: Apache-2.0
//
// A driver process that has no room for the descriptors of an import.
#include "support/census.hpp"
#include "support/descriptor_room.hpp"
#include "support/driver_process.hpp"
#include "support/npu_host.hpp"
#include "support/temporary_folder.hpp"

#include <accelmm/client.hpp>

#include <algorithm>
#include <cstddef>

#include <gtest/gtest.h>

namespace accelmm {
namespace {

using test::DescriptorRoom;
using test::DriverProcess;
using test::value;

// More than an import has descriptors.
constexpr int too_much_room = 20;

class DriverWithoutRoom : public testing::Test {
 protected:
  test::TemporaryFolder here_folder;
  test::TemporaryFolder there_folder;
  DriverProcess here{here_folder.path()};
  DriverProcess there{there_folder.path()};
  Client from = value(Client::connect(here.number(), NodeKind::compute, here_folder.path()));
  Client to = value(Client::connect(there.number(), NodeKind::compute, there_folder.path()));
};

TEST_F(DriverWithoutRoom, RefusesTheImportAndKeepsTheSession) {
  const Buffer buffer = value(from.allocate(64_KiB));
  std::ranges::fill(value(buffer.map_cpu()).bytes(), std::byte{0x3c});
  const Export view = value(buffer.export_view());
  const Buffer kept = value(to.allocate(64_KiB));
  const CpuMapping kept_bytes = value(kept.map_cpu());
  std::ranges::fill(kept_bytes.bytes(), std::byte{0x5a});
  ASSERT_TRUE(to.import_view(view));
  const std::size_t fds = there.holdings().fds;
  const std::uint64_t used = value(to.usage()).host_used;

  int failures = 0;
  for (int more = 0; more < too_much_room; ++more) {
    Result<Buffer> taken = fail(Errc::busy, "not tried");
    {
      const DescriptorRoom room(there.pid(), more);
      taken = to.import_view(view);
      // The session serves on, without any room too.
      EXPECT_EQ(used + (taken ? 65536 : 0), value(to.usage()).host_used) << more;
    }
    if (taken) break;
    ++failures;
    EXPECT_EQ(Errc::too_many_files, taken.error().code) << more << ": " << taken.error().what;
    EXPECT_EQ(fds, there.holdings().fds) << more;
  }
  EXPECT_GE(failures, 1);
  EXPECT_LT(failures, too_much_room);
  const Buffer taken = value(to.import_view(view));
  EXPECT_EQ(std::byte{0x3c}, value(taken.map_cpu()).bytes().back());
  EXPECT_EQ(std::byte{0x5a}, kept_bytes.bytes().back());
}

}  // namespace
}  // namespace accelmm
