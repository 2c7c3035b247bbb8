// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "dmabuf/dma_heap.hpp"
#include "dmabuf/drm_device.hpp"
#include "dmabuf/udmabuf_exporter.hpp"

#include <fstream>
#include <memory>
#include <stdexcept>
#include <string>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

/// What the guest has for tests of sharing. Nothing here may be missing.
namespace accelmm::dmabuf::guest {

inline std::shared_ptr<UdmabufExporter> udmabuf(HugeImportable huge = HugeImportable::refused) {
  return std::shared_ptr<UdmabufExporter>(UdmabufExporter::open({.huge_pages = huge}).value());
}

inline std::shared_ptr<DmaHeap> system_heap() {
  return DmaHeap::open("system", {.largest = ByteCount(64U << 20), .total = ByteCount(128U << 20)})
      .value();
}

/// The device of a DRM driver: "vgem", "cirrus". Without it the test ends.
inline std::shared_ptr<DrmDevice> drm(const std::string& driver) {
  std::string seen = "no DRM device of " + driver;
  const std::vector<std::string> nodes = drm_nodes().value();
  for (const std::string& node : nodes) {
    if (node.find("card") == std::string::npos) continue;
    auto device =
        DrmDevice::open(node, {.largest = ByteCount(64U << 20), .total = ByteCount(128U << 20)});
    if (device && (*device)->name() == driver) return *device;
    seen += "; " + node + ": " + (device ? (*device)->name() : device.error().what);
    if (!device) seen += " " + std::to_string(static_cast<int>(device.error().code));
  }
  throw std::runtime_error(seen);
}

inline UniqueFd memfd(ByteCount size, int seals = F_SEAL_SHRINK | F_SEAL_GROW,
                      unsigned flags = MFD_ALLOW_SEALING) {
  UniqueFd fd(::memfd_create("raw", MFD_CLOEXEC | flags));
  EXPECT_EQ(0, ::ftruncate(fd.get(), static_cast<off_t>(size.value())));
  if (seals != 0) {
    EXPECT_EQ(0, ::fcntl(fd.get(), F_ADD_SEALS, seals));
  }
  return fd;
}

/// A parameter of the udmabuf module, changed while this lives.
class Parameter {
 public:
  Parameter(const std::string& name, const std::string& value)
      : path_("/sys/module/udmabuf/parameters/" + name) {
    std::ifstream(path_) >> before_;
    std::ofstream(path_) << value;
  }
  Parameter(const Parameter&) = delete;
  Parameter& operator=(const Parameter&) = delete;
  ~Parameter() { std::ofstream(path_) << before_; }

 private:
  std::string path_;
  std::string before_;
};

}  // namespace accelmm::dmabuf::guest
