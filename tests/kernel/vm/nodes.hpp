// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/fd.hpp>

#include <filesystem>
#include <fstream>
#include <string>

#include <fcntl.h>
#include <linux/videodev2.h>
#include <sys/ioctl.h>
#include <xf86drm.h>

/// The guest's devices, found by what their drivers call themselves.
namespace accelmm::kernel_test {

/// Invalid where there is no such file.
[[nodiscard]] inline UniqueFd opened(const std::string& path, int flags = O_RDWR) {
  return UniqueFd(::open(path.c_str(), flags | O_CLOEXEC));
}

/// The card of a DRM driver: "vgem", "cirrus"; invalid where there is none.
[[nodiscard]] inline UniqueFd drm_card(const std::string& driver) {
  for (int card = 0; card < 16; ++card) {
    UniqueFd fd = opened("/dev/dri/card" + std::to_string(card));
    if (!fd.valid()) {
      continue;
    }
    drmVersionPtr version = drmGetVersion(fd.get());
    const bool found = version != nullptr && driver == version->name;
    drmFreeVersion(version);
    if (found) {
      return fd;
    }
  }
  return {};
}

/// The first video node of a V4L2 driver that has all `capabilities` (V4L2_CAP_*); invalid where
/// there is none.
[[nodiscard]] inline UniqueFd video_node(const std::string& driver, std::uint32_t capabilities) {
  for (int node = 0; node < 64; ++node) {
    UniqueFd fd = opened("/dev/video" + std::to_string(node));
    v4l2_capability found{};
    if (fd.valid() && ::ioctl(fd.get(), VIDIOC_QUERYCAP, &found) == 0 &&
        driver == reinterpret_cast<const char*>(found.driver) &&
        (found.device_caps & capabilities) == capabilities) {
      return fd;
    }
  }
  return {};
}

/// The folder in sysfs of the first PCI device with these ids; empty where there is none.
[[nodiscard]] inline std::filesystem::path pci_device(const std::string& vendor,
                                                      const std::string& device) {
  const auto word = [](const std::filesystem::path& file) {
    std::string text;
    std::ifstream(file) >> text;
    return text;
  };
  for (const auto& entry : std::filesystem::directory_iterator("/sys/bus/pci/devices")) {
    if (word(entry.path() / "vendor") == vendor && word(entry.path() / "device") == device) {
      return entry.path();
    }
  }
  return {};
}

}  // namespace accelmm::kernel_test
