// SPDX-License-Identifier: Apache-2.0
//
// What a device needs of the memory that its sessions import, as its driver says when it registers it.
#include "mm/backing/sealed_memfd.hpp"
#include "support/plain_host.hpp"

#include <cerrno>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

namespace accelmm::test {
namespace {

DeviceDescription needing(const ImportNeeds& needs) {
  DeviceDescription description = plain_description();
  description.import_needs = needs;
  return description;
}

std::vector<UniqueFd> memory(Sealing sealing = Sealing::fixed_size) {
  auto file = SealedMemfd::create("memory", 64_KiB).value();
  EXPECT_TRUE(file.seal(sealing));
  std::vector<UniqueFd> fds;
  fds.push_back(file.duplicate().value());
  return fds;
}

/// The status of an import of a part of 64 KiB.
std::int32_t import(RawClient& client, ByteCount offset, ByteCount length,
                    std::vector<UniqueFd> fds = memory()) {
  accelmm_import args{};
  args.count = 1;
  args.pieces[0] = {.fd = 0, .reserved = 0, .offset = offset.value(), .length = length.value()};
  return client.ioctl(ACCELMM_IOCTL_IMPORT, args, std::move(fds));
}

TEST(ImportNeeds, OfAnAlignmentRefuseWhatBeginsOrEndsBetween) {
  PlainHost host(needing({.alignment = Alignment(16384)}));
  RawClient client(host);
  client.say_hello();
  EXPECT_EQ(0, import(client, 0_B, 64_KiB));
  EXPECT_EQ(0, import(client, 16_KiB, 32_KiB));
  EXPECT_EQ(-EOPNOTSUPP, import(client, 4_KiB, 16_KiB));
  EXPECT_EQ(-EOPNOTSUPP, import(client, 0_B, 4_KiB));
}

TEST(ImportNeeds, OfWritingRefuseWhatIsReadOnly) {
  PlainHost host(needing({.access = Access::read_write}));
  RawClient client(host);
  client.say_hello();
  EXPECT_EQ(0, import(client, 0_B, 64_KiB));
  EXPECT_EQ(-EPERM, import(client, 0_B, 64_KiB, memory(Sealing::fixed_size_read_only)));
}

TEST(ImportNeeds, ThatNobodyCanVouchForRefuseAllButOnePage) {
  PlainHost host(needing({.most_segments = 1}));
  RawClient client(host);
  client.say_hello();
  EXPECT_EQ(0, import(client, 0_B, 4_KiB));
  EXPECT_EQ(-EOPNOTSUPP, import(client, 0_B, 8_KiB));
}

TEST(ImportNeeds, AreNoneUnlessADriverSaysSo) {
  PlainHost host;
  RawClient client(host);
  client.say_hello();
  EXPECT_EQ(0, import(client, 4_KiB, 4_KiB, memory(Sealing::fixed_size_read_only)));
}

}  // namespace
}  // namespace accelmm::test
