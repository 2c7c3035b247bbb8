// SPDX-License-Identifier: Apache-2.0
// A driver: one kind of device, one ioctl of its own. Allocation, mapping, sharing, nodes, sessions
// and what happens when an application dies are the framework's.
//   01_driver DIRECTORY    hosts one device, as DIRECTORY/accel0, until SIGTERM or SIGINT
#include "inverter.h"

#include <accelmm/driver.hpp>
#include <accelmm/mmu/npu1.hpp>
#include <accelmm/runtime.hpp>
#include <accelmm/sim/npu_model.hpp>

#include <csignal>
#include <cstdio>
#include <memory>
#include <utility>

using namespace accelmm;

class InverterDriver final : public Driver, private MmuHardware {
 public:
  // The device appears and disappears: switch the hardware on and off.
  void probe(Device& device, Completion done) override {
    auto hardware = sim::NpuModel::create(device.bus());
    if (!hardware) return done(fail(hardware.error()));
    hardware_ = std::move(*hardware);
    done({});
  }
  void remove(Device& /*device*/) noexcept override { hardware_.reset(); }

  // A session ends, perhaps by the death of its application: its jobs must stop.
  void stop(Session& session, Completion done) override {
    hardware_->cancel(session.asid(), std::move(done));
  }
  void ioctls(IoctlTable& table) override {
    table.add(INVERTER_IOCTL_INVERT, *this, &InverterDriver::invert);
  }
  MmuHardware* mmu() override { return this; }

 private:
  // The device has an MMU: the framework writes the tables, the hardware must be told.
  void bind(std::uint32_t asid, BusAddr root, Completion done) override {
    done(hardware_->set_root(asid, root));
  }
  void unbind(std::uint32_t asid, Completion done) override {
    hardware_->clear_root(asid);
    done({});
  }
  void invalidate(const mmu::Invalidation& invalidation, Completion done) override {
    hardware_->invalidate(invalidation.asid, invalidation.range, std::move(done));
  }

  // The ioctl: a job that ends later, or faults.
  Result<void> invert(Session& session, inverter_invert& args) {
    const sim::NpuConvolve negative{.source = DeviceAddr(args.address),
                                    .destination = DeviceAddr(args.address),
                                    .source_stride = ByteCount(args.width),
                                    .destination_stride = ByteCount(args.width),
                                    .width = args.width,
                                    .height = args.height,
                                    .kernel = {0, 0, 0, 0, -1, 0, 0, 0, 0},
                                    .bias = 255};
    sim::NpuCommand job{session.asid(), negative, nullptr};
    if (auto valid = hardware_->check(job); !valid) return valid;
    args.point = {ACCELMM_TIMELINE_JOBS, 0, session.jobs()->next()};
    job.done = [jobs = session.jobs(), point = args.point.value](const sim::NpuJobResult& result) {
      if (const auto& fault = result.fault)
        jobs->fail(point, {fault->address, fault->access, fault->asid, 0, fault->level});
      else if (!result.status)
        jobs->fail(point, result.status.error().code);
      else
        jobs->reach(point);
    };
    hardware_->submit(std::move(job));
    return {};
  }

  std::unique_ptr<sim::NpuModel> hardware_;
};

namespace {
Runtime* running = nullptr;
}  // namespace

int main(int argc, char** argv) {
  auto runtime = Runtime::create({.directory = argc > 1 ? argv[1] : ""});
  if (!runtime) return std::fprintf(stderr, "no runtime: %s\n", runtime.error().what), 1;
  const DeviceDescription inverter{
      .driver_name = "inverter",
      .memory = DeviceMemoryDescription{.size = 1_GiB, .private_size = 16_MiB},
      .mmu = MmuDescription{"NPU1",
                            mmu::make_address_space<mmu::Npu1>,
                            {DeviceAddr(1 << 21), DeviceAddr(1ULL << 50)},
                            sim::NpuModel::address_spaces}};
  const auto number = (*runtime)->register_device(inverter, std::make_unique<InverterDriver>());
  if (!number) return std::fprintf(stderr, "no device: %s\n", number.error().what), 1;

  running = runtime->get();
  std::signal(SIGTERM, [](int) { running->stop(); });
  std::signal(SIGINT, [](int) { running->stop(); });
  std::printf("ready: accel%u in %s\n", *number, (*runtime)->directory().c_str());
  std::fflush(stdout);
  (*runtime)->run();
}
