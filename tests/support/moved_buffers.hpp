// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "support/plain_host.hpp"

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

namespace accelmm::test {

inline constexpr std::uint64_t unit = std::uint64_t{1} << 20;  // the native page here

/// A device of 15 native pages of 1 MiB.
inline DeviceDescription movable_description() {
  DeviceDescription description = plain_description();
  description.memory->native_page = ByteCount(unit);
  return description;
}

/// A session of buffers in device memory, each mapped and filled with words of its own, that are
/// read as the device reads them: through the page tables' bytes.
class MappedBuffers {
 public:
  struct Buffer {
    std::uint64_t handle;
    std::uint64_t address;
    std::uint64_t size;
    std::uint64_t word;
  };

  explicit MappedBuffers(PlainHost& host) : client(host), host_(host) {
    client.say_hello();
    accelmm_info info{};
    info.topic = ACCELMM_INFO_SESSION;
    if (client.ioctl(ACCELMM_IOCTL_INFO, info) != 0) std::abort();
    accelmm_info_session session{};
    std::memcpy(&session, info.data, sizeof session);
    asid = session.asid;
  }

  /// Allocates, maps and fills a buffer. The status of what failed.
  std::int32_t add(std::uint64_t size, std::uint32_t flags = 0) {
    accelmm_alloc alloc{};
    alloc.size = size;
    alloc.domain = ACCELMM_DOMAIN_DEVICE;
    alloc.flags = flags;
    if (const auto status = client.ioctl(ACCELMM_IOCTL_ALLOC, alloc); status != 0) return status;
    accelmm_map_device map{};
    map.handle = alloc.handle;
    map.length = alloc.size;
    map.access = ACCELMM_ACCESS_READ | ACCELMM_ACCESS_WRITE;
    if (const auto status = client.ioctl(ACCELMM_IOCTL_MAP_DEVICE, map); status != 0) {
      accelmm_free args{alloc.handle};
      if (client.ioctl(ACCELMM_IOCTL_FREE, args) != 0) std::abort();
      return status;
    }
    buffers.push_back({alloc.handle, map.address, alloc.size, ++last_word_ << 32 | asid});
    fill(buffers.back());
    return 0;
  }
  std::int32_t remove(std::size_t which) {
    const Buffer buffer = buffers[which];
    accelmm_free args{buffer.handle};
    accelmm_unmap_device unmap{};
    unmap.address = buffer.address;
    const std::int32_t freed = client.ioctl(ACCELMM_IOCTL_FREE, args);
    if (freed != 0) return freed;
    buffers.erase(buffers.begin() + static_cast<std::ptrdiff_t>(which));
    return client.ioctl(ACCELMM_IOCTL_UNMAP_DEVICE, unmap);
  }
  void remove_every_second() {
    for (std::size_t i = 0; i < buffers.size(); ++i) EXPECT_EQ(0, remove(i));
  }

  /// Whether each buffer holds its own words, all of them, and leads to them with its address.
  [[nodiscard]] testing::AssertionResult are_whole() const {
    for (const Buffer& buffer : buffers)
      for (std::uint64_t offset = 0; offset < buffer.size; offset += 4096) {
        const auto at = translate(buffer.address + offset);
        if (!at) return testing::AssertionFailure() << "not mapped at offset " << offset;
        const std::uint64_t word = read(*at);
        if (word != buffer.word + offset)
          return testing::AssertionFailure() << std::hex << word << " instead of " << buffer.word
                                             << " + " << offset << " at " << *at;
      }
    return testing::AssertionSuccess();
  }
  /// Where a device address leads, by the words of the tables.
  [[nodiscard]] std::optional<std::uint64_t> translate(std::uint64_t address) const {
    std::uint64_t table = host_.driver->roots.at(asid).value();
    for (const unsigned shift : {48U, 39U, 30U, 21U, 12U}) {
      const std::uint64_t entry = read(table + ((address >> shift) & 511) * 8);
      if ((entry & 1) == 0) return std::nullopt;
      const std::uint64_t target = entry & ~std::uint64_t{0xfff};
      if ((entry & 0x800) != 0) return target + (address & ((std::uint64_t{1} << shift) - 1));
      table = target;
    }
    return std::nullopt;
  }

  RawClient client;
  std::vector<Buffer> buffers;
  std::uint32_t asid = 0;

 private:
  [[nodiscard]] std::uint64_t read(std::uint64_t bus) const {
    std::uint64_t word = 0;
    if (!host_.driver->device->bus().read(BusAddr(bus),
                                          std::as_writable_bytes(std::span(&word, 1))))
      std::abort();
    return word;
  }
  void fill(const Buffer& buffer) const {
    for (std::uint64_t offset = 0; offset < buffer.size; offset += 4096) {
      const std::uint64_t at = translate(buffer.address + offset).value();
      EXPECT_EQ(0U, read(at)) << "new memory is not zero";
      const std::uint64_t word = buffer.word + offset;
      if (!host_.driver->device->bus().write(BusAddr(at), std::as_bytes(std::span(&word, 1))))
        std::abort();
    }
  }

  PlainHost& host_;
  std::uint64_t last_word_ = 0;
};

/// Asks a control node to make room.
inline std::int32_t defragment(RawClient& control, std::uint64_t budget, std::uint64_t run,
                               accelmm_defragment* outcome = nullptr) {
  accelmm_defragment args{};
  args.budget = budget;
  args.run = run;
  const std::int32_t status = control.ioctl(ACCELMM_IOCTL_DEFRAGMENT, args);
  if (outcome != nullptr) *outcome = args;
  return status;
}

}  // namespace accelmm::test
