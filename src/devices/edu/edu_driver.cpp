// SPDX-License-Identifier: Apache-2.0
#include "edu_driver.hpp"

#include "edu_engine.hpp"

#include <accelmm/sim/edu_uapi.h>

#include <algorithm>
#include <cstring>
#include <list>
#include <new>
#include <optional>
#include <utility>

namespace accelmm::edu {
namespace {

class EduDriver final : public Driver {
 public:
  EduDriver(std::unique_ptr<VfioDevice> device, const EduOptions& options)
      : hardware_(std::move(device)), options_(options) {}

  void probe(Device& device, Completion done) override {
    auto engine = EduEngine::create(*hardware_, {options_.timeout});
    if (!engine) return done(fail(engine.error()));
    device_ = &device;
    engine_ = std::move(*engine);
    done({});
  }
  void remove(Device& /*device*/) noexcept override { engine_.reset(); }
  void stop(Session& session, Completion done) override {
    engine_->cancel(session.id(), std::move(done));
  }
  void ioctls(IoctlTable& table) override {
    table.add(ACCELMM_IOCTL_EDU_COPY_IN, *this, &EduDriver::copy_in);
    table.add(ACCELMM_IOCTL_EDU_COPY_OUT, *this, &EduDriver::copy_out);
  }
  Result<std::size_t> info(std::uint32_t topic, std::span<std::byte> into) override;

 private:
  Result<void> copy_in(Session& session, accelmm_edu_copy& args) {
    return copy(session, args, EduEngine::Direction::to_device);
  }
  Result<void> copy_out(Session& session, accelmm_edu_copy& args) {
    return copy(session, args, EduEngine::Direction::to_memory);
  }
  Result<void> copy(Session& session, accelmm_edu_copy& args, EduEngine::Direction direction);

  std::unique_ptr<VfioDevice> hardware_;
  const EduOptions options_;
  Device* device_ = nullptr;
  std::unique_ptr<EduEngine> engine_;
};

// The device says nothing of an access that the IOMMU refused, and interrupts as if all had gone
// well. So what is not mapped is looked for here, and a job with it fails in its turn.
Result<void> EduDriver::copy(Session& session, accelmm_edu_copy& args,
                             EduEngine::Direction direction) {
  if (args.length == 0 || args.offset >= ACCELMM_EDU_BUFFER_SIZE ||
      args.length > ACCELMM_EDU_BUFFER_SIZE - args.offset)
    return fail(Errc::invalid_argument, "range is empty or leaves the device's buffer");
  const auto memory = make_range(DeviceAddr(args.address), ByteCount(args.length));
  if (!memory) return fail(memory.error());
  const Access access = direction == EduEngine::Direction::to_device ? Access::read : Access::write;
  const bool reachable = session.reaches(*memory, access);
  const Fault fault{.address = memory->begin, .access = access, .asid = 0, .engine = 0, .level = 0};
  std::list<EduEngine::Job> job;
  job.push_back({.session = session.id(),
                 .direction = direction,
                 .memory = memory->begin,
                 .offset = args.offset,
                 .length = args.length,
                 .unreachable = reachable ? std::nullopt : std::optional(memory->begin),
                 .done = [jobs = session.jobs(), fault](std::uint64_t point, Result<void> result) {
                   if (result)
                     jobs->reach(point);
                   else if (result.error().code == Errc::fault)
                     jobs->fail(point, fault);
                   else
                     jobs->fail(point, result.error().code);
                 }});
  // Nothing can fail from here on: a point that is given out must end.
  job.front().point = session.jobs()->next();
  args.point = {ACCELMM_TIMELINE_JOBS, 0, job.front().point};
  engine_->submit(std::move(job));
  return {};
}

Result<std::size_t> EduDriver::info(std::uint32_t topic, std::span<std::byte> into) {
  if (topic != ACCELMM_INFO_EDU) return Driver::info(topic, into);
  const EduEngine::Statistics now = engine_->statistics();
  const accelmm_info_edu info{.transfers = now.transfers,
                              .bytes = now.bytes,
                              .interrupts = now.interrupts,
                              .timeouts = now.timeouts,
                              .version = engine_->version(),
                              .interrupt = static_cast<__u32>(engine_->interrupt_kind())};
  std::memcpy(into.data(), &info, std::min(into.size(), sizeof info));
  return sizeof info;
}

}  // namespace

DeviceDescription edu_description(const VfioDevice& device, const EduOptions& options) {
  DeviceDescription description;
  description.driver_name = "edu";
  description.driver_version = 1 << 16;
  description.make_bus = device.bus_factory(options.address_bits);
  description.compute_sessions = ComputeSessions::one;
  return description;
}

Result<std::unique_ptr<Driver>> make_edu_driver(std::unique_ptr<VfioDevice> device,
                                                const EduOptions& options) try {
  return std::make_unique<EduDriver>(std::move(device), options);
} catch (const std::bad_alloc&) {
  return fail(Errc::no_memory, "no memory for a driver");
}

}  // namespace accelmm::edu
