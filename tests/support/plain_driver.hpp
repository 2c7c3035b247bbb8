// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/driver.hpp>
#include <accelmm/mmu/npu1.hpp>

#include <array>
#include <cstdlib>
#include <functional>
#include <map>
#include <memory>
#include <utility>
#include <vector>

namespace accelmm::test {

struct plain_job {
  __u64 value;
  __u32 reserved;
  __u32 fails;
  struct accelmm_point point;
};
#define PLAIN_IOCTL_JOB ACCELMM_IOWR(0x40, struct accelmm::test::plain_job)
#define PLAIN_IOCTL_LATER ACCELMM_IOWR(0x41, struct accelmm::test::plain_job)

/// A driver whose hardware is always there and never does anything: every operation ends at once,
/// in the loop's thread, except calls of PLAIN_IOCTL_LATER, which end when the test says so.
class PlainDriver final : public Driver, public MmuHardware, public CopyEngine {
 public:
  void probe(Device& of, Completion done) override {
    device = &of;
    copied.reserve(64);  // so that copying needs no memory
    done({});
  }
  void remove(Device&) noexcept override {}
  void stop(Session&, Completion done) override {
    end_later();
    done({});
  }
  void ioctls(IoctlTable& table) override {
    const std::vector<IoctlTable::Reserved> reserved{
        {offsetof(plain_job, reserved), sizeof(plain_job::reserved)}};
    table.add(PLAIN_IOCTL_JOB, *this, &PlainDriver::job, reserved);
    table.add(PLAIN_IOCTL_LATER, reserved,
              [this](IoctlCall&, Completion done) { later_.push_back(std::move(done)); });
  }
  MmuHardware* mmu() override { return has_mmu ? this : nullptr; }
  void pressure(Pressure level, ByteCount available) noexcept override {
    pressures.push_back({level, available});
  }
  void bind(std::uint32_t asid, BusAddr root, Completion done) override {
    roots[asid] = root;
    done({});
  }
  void unbind(std::uint32_t, Completion done) override { done({}); }
  void invalidate(const mmu::Invalidation& invalidation, Completion done) override {
    if (invalidation.cause == mmu::Invalidation::Cause::move && on_invalidate)
      return on_invalidate(std::move(done));
    done({});
  }
  CopyEngine* copy_engine() override { return has_engine ? this : nullptr; }
  void copy(std::span<const MemoryCopy> copies, Completion done) override {
    for (const MemoryCopy& copy : copies)
      if (copied.size() < copied.capacity()) copied.push_back(copy);
    if (on_copy) return on_copy(copies, std::move(done));
    copy_all(copies);
    done({});
  }
  void copy_all(std::span<const MemoryCopy> copies) const {
    std::array<std::byte, 4096> page;
    for (const MemoryCopy& copy : copies)
      for (ByteCount done; done < copy.length; done += ByteCount(page.size()))
        if (!device->bus().read(copy.from + done, page) ||
            !device->bus().write(copy.to + done, page))
          std::abort();
  }

  bool has_mmu = true;
  bool has_engine = true;
  Device* device = nullptr;
  std::map<std::uint32_t, BusAddr> roots;
  std::vector<MemoryCopy> copied;
  // What the test does instead of copying, or of invalidating after a move.
  std::function<void(std::span<const MemoryCopy>, Completion)> on_copy;
  std::function<void(Completion)> on_invalidate;
  std::vector<std::pair<Pressure, ByteCount>> pressures;

  void end_later() {
    for (Completion& done : std::exchange(later_, {})) done({});
  }

 private:
  Result<void> job(Session& session, plain_job& args) {
    args.point = {ACCELMM_TIMELINE_JOBS, 0, session.jobs()->next()};
    if (args.fails != 0)
      session.jobs()->fail(args.point.value, Errc::io_error);
    else if (args.value % 2 == 0)
      session.jobs()->reach(args.point.value);  // the others are reached by a later one
    return {};
  }

  std::vector<Completion> later_;
};

inline DeviceDescription plain_description() {
  DeviceDescription description;
  description.driver_name = "plain";
  description.memory = DeviceMemoryDescription{16_MiB, 1_MiB};
  description.mmu = MmuDescription{.format_name = "npu1",
                                   .make_address_space = &mmu::make_address_space<mmu::Npu1>,
                                   .va = {DeviceAddr(0x200000), DeviceAddr(std::uint64_t{1} << 40)},
                                   .address_spaces = 8};
  return description;
}

}  // namespace accelmm::test
