// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/system.hpp"
#include "kernel/vm/nodes.hpp"

#include <accelmm/pci_address.hpp>
#include <accelmm/vfio_device.hpp>

#include <cerrno>
#include <cstdint>
#include <fstream>
#include <memory>
#include <string>

#include <gtest/gtest.h>

/// The guest's edu device, and what the guest's kernel says about it.
namespace accelmm::kernel_test {

[[nodiscard]] inline PciAddress edu_address() {
  const auto address = PciAddress::parse(pci_device("0x1234", "0x11e8").filename().string());
  EXPECT_TRUE(address.has_value());
  return address.value_or(PciAddress{});
}

/// Opens the device; after a process that had it was killed, as soon as the kernel has let go of it.
[[nodiscard]] inline Result<std::unique_ptr<VfioDevice>> open_edu() {
  for (int tries = 0;; ++tries) {
    auto device = VfioDevice::open(edu_address());
    if (device || device.error().code != Errc::busy || tries == 100) return device;
    ::usleep(20'000);
  }
}

/// What pinned pages there are, in the whole machine, by the kernel's own counters, which each CPU
/// keeps a part of until it is told to add it.
[[nodiscard]] inline std::int64_t pinned_pages() {
  const UniqueFd refresh = opened("/proc/sys/vm/stat_refresh", O_WRONLY);
  EXPECT_EQ(1, ::write(refresh.get(), "1", 1));
  std::ifstream file("/proc/vmstat");
  std::int64_t pinned = 0;
  std::string name;
  for (std::int64_t value = 0; file >> name >> value;) {
    if (name == "nr_foll_pin_acquired") pinned += value;
    if (name == "nr_foll_pin_released") pinned -= value;
  }
  return pinned;
}

/// Lines of the kernel's log from here on.
class KernelLog {
 public:
  KernelLog() : log_(opened("/dev/kmsg", O_RDONLY | O_NONBLOCK)) {
    EXPECT_TRUE(log_.valid());
    EXPECT_GE(::lseek(log_.get(), 0, SEEK_END), 0);
  }
  /// Whether a line that came since holds both words; waits for it a few seconds.
  [[nodiscard]] bool has(const std::string& word, const std::string& other) {
    const std::uint64_t deadline = sys::monotonic_ns() + 5'000'000'000;
    while (sys::monotonic_ns() < deadline) {
      char line[8192];
      const ssize_t size = ::read(log_.get(), line, sizeof line);
      if (size < 0 && errno == EAGAIN) {
        ::usleep(10'000);
        continue;
      }
      if (size <= 0) continue;  // EPIPE: lines were lost
      const std::string text(line, static_cast<std::size_t>(size));
      seen_ += text;
      if (text.find(word) != std::string::npos && text.find(other) != std::string::npos)
        return true;
    }
    return false;
  }
  [[nodiscard]] const std::string& seen() const { return seen_; }

 private:
  UniqueFd log_;
  std::string seen_;
};

}  // namespace accelmm::kernel_test
