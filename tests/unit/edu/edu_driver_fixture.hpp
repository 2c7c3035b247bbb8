// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "bus/vfio_kernel.hpp"
#include "devices/edu/edu_driver.hpp"
#include "support/fake_edu.hpp"
#include "support/temporary_folder.hpp"

#include <accelmm/client.hpp>
#include <accelmm/runtime.hpp>
#include <accelmm/sim/edu_uapi.h>

#include <cstdint>
#include <cstring>
#include <memory>
#include <utility>

#include <gtest/gtest.h>

namespace accelmm::edu {

/// A driver process with one edu device, and an application of it.
class EduDriverTest : public testing::Test {
 protected:
  Result<std::uint32_t> start(EduOptions options = {}) {
    if (!runtime_) {
      auto made = Runtime::create({.directory = folder_.path(), .host_window = 64_MiB});
      if (!made) return fail(made.error());
      runtime_ = std::move(*made);
    }
    auto device = VfioDevice::open({.domain = 0, .bus = 0, .device = 3, .function = 0}, kernel_);
    if (!device) return fail(device.error());
    const DeviceDescription description = edu_description(**device, options);
    auto driver = make_edu_driver(std::move(*device), options);
    if (!driver) return fail(driver.error());
    return runtime_->register_device(description, std::move(*driver));
  }
  Client connect() {
    auto channel = runtime_->connect(0, NodeKind::compute);
    EXPECT_TRUE(channel.has_value());
    auto client = Client::connect(std::move(*channel));
    EXPECT_TRUE(client.has_value());
    return std::move(*client);
  }
  static Result<void> copy(const Client& client, std::uint32_t command, std::uint64_t address,
                           std::uint32_t offset, std::uint32_t length) {
    accelmm_edu_copy args{};
    args.address = address;
    args.offset = offset;
    args.length = length;
    if (auto sent = client.ioctl(command, args); !sent) return sent;
    return client.wait(Point::job(args.point.value));
  }
  static accelmm_info_edu info(const Client& client) {
    const auto bytes = client.driver_info(0);
    EXPECT_TRUE(bytes.has_value());
    accelmm_info_edu told{};
    EXPECT_EQ(sizeof told, bytes->size());
    std::memcpy(&told, bytes->data(), sizeof told);
    return told;
  }

  test::TemporaryFolder folder_;
  test::FakeVfio kernel_;
  test::FakeEdu hardware_{kernel_};
  std::unique_ptr<Runtime> runtime_;
};

}  // namespace accelmm::edu
