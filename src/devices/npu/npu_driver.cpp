// SPDX-License-Identifier: Apache-2.0
#include "npu_driver.hpp"

#include <accelmm/mmu/address_space.hpp>
#include <accelmm/mmu/npu1.hpp>
#include <accelmm/sim/npu_uapi.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <new>
#include <optional>
#include <utility>

namespace accelmm::sim {
namespace {

// Address 0 and its neighbourhood stay unmapped, so that a forgotten address faults.
constexpr Range<DeviceAddr> session_addresses{DeviceAddr(std::uint64_t{2} << 20),
                                              DeviceAddr(mmu::Geometry<mmu::Npu1>::va_end)};

/// Ends when the last of several commands has, with the first error. Each of them holds it.
///
/// Threads  the model's, one after the other.
class AllMoved {
 public:
  explicit AllMoved(Completion done) : done_(std::move(done)) {}
  AllMoved(const AllMoved&) = delete;
  AllMoved& operator=(const AllMoved&) = delete;
  ~AllMoved() { done_(result_); }
  void note(const Result<void>& result) {
    if (result_ && !result) result_ = result;
  }

 private:
  Completion done_;
  Result<void> result_;
};

/// An entry that the test hook took out of a table.
struct DroppedEntry {
  BusAddr address;
  std::array<std::byte, 8> was;
};

class NpuDriver final : public Driver, private MmuHardware, private CopyEngine {
 public:
  explicit NpuDriver(const NpuOptions& options) : options_(options) {}

  void probe(Device& device, Completion done) override {
    auto model = NpuModel::create(device.bus(), options_.model);
    if (!model) return done(fail(model.error()));
    device_ = &device;
    model_ = std::move(*model);
    done({});
  }
  void remove(Device& /*device*/) noexcept override { model_.reset(); }
  void stop(Session& session, Completion done) override {
    model_->cancel(session.asid(), std::move(done));
  }
  void ioctls(IoctlTable& table) override {
    table.add(ACCELMM_IOCTL_NPU_COPY, *this, &NpuDriver::copy,
              {{offsetof(accelmm_npu_copy, reserved), sizeof(accelmm_npu_copy::reserved)}});
    table.add(ACCELMM_IOCTL_NPU_CONVOLVE, *this, &NpuDriver::convolve,
              {{offsetof(accelmm_npu_convolve, reserved), sizeof(accelmm_npu_convolve::reserved)}});
  }
  Result<std::size_t> info(std::uint32_t topic, std::span<std::byte> into) override;
  MmuHardware* mmu() override { return this; }
  CopyEngine* copy_engine() override { return this; }

 private:
  void bind(std::uint32_t asid, BusAddr root, Completion done) override {
    done(model_->set_root(asid, root));
  }
  void unbind(std::uint32_t asid, Completion done) override {
    model_->clear_root(asid);
    done({});  // what the TLB still holds goes with the invalidation that follows
  }
  [[nodiscard]] mmu::InvalidationPolicy invalidation_policy() const override {
    using Cached = mmu::InvalidationPolicy::NegativeEntries;
    mmu::InvalidationPolicy policy;
    if (options_.model.negative_entries == NpuModelOptions::NegativeEntries::cached)
      policy.negative_entries = Cached::cached;
    return policy;
  }
  void invalidate(const mmu::Invalidation& invalidation, Completion done) override {
    model_->invalidate(invalidation.asid, invalidation.range, std::move(done));
  }

  void copy(std::span<const MemoryCopy> copies, Completion done) override;
  Result<void> copy(Session& session, accelmm_npu_copy& args);
  Result<void> convolve(Session& session, accelmm_npu_convolve& args);
  Result<void> submit(Session& session, std::variant<NpuCopy, NpuConvolve> work,
                      accelmm_point& point);
  [[nodiscard]] std::optional<DroppedEntry> drop_entry_of(const NpuCommand& command);

  NpuOptions options_;
  Device* device_ = nullptr;
  std::unique_ptr<NpuModel> model_;
  std::uint64_t submitted_ = 0;
};

Result<void> NpuDriver::copy(Session& session, accelmm_npu_copy& args) {
  if (args.flags != 0) return fail(Errc::invalid_argument, "unknown flag");
  return submit(
      session,
      NpuCopy{DeviceAddr(args.source), DeviceAddr(args.destination), ByteCount(args.length)},
      args.point);
}

Result<void> NpuDriver::convolve(Session& session, accelmm_npu_convolve& args) {
  constexpr std::uint32_t known = ACCELMM_NPU_ABSOLUTE | ACCELMM_NPU_ACCUMULATE;
  if ((args.flags & ~known) != 0) return fail(Errc::invalid_argument, "unknown flag");
  NpuConvolve work{
      .source = DeviceAddr(args.source),
      .destination = DeviceAddr(args.destination),
      .source_stride = ByteCount(args.source_stride),
      .destination_stride = ByteCount(args.destination_stride),
      .width = args.width,
      .height = args.height,
      .kernel = {},
      .shift = args.shift,
      .bias = args.bias,
      .sum = (args.flags & ACCELMM_NPU_ABSOLUTE) != 0 ? NpuSum::absolute : NpuSum::as_is,
      .onto = (args.flags & ACCELMM_NPU_ACCUMULATE) != 0 ? NpuDestination::add
                                                         : NpuDestination::replace};
  std::copy_n(args.kernel, work.kernel.size(), work.kernel.begin());
  return submit(session, work, args.point);
}

void NpuDriver::copy(std::span<const MemoryCopy> copies, Completion done) {
  std::shared_ptr<AllMoved> all;
  try {
    all = std::make_shared<AllMoved>(std::move(done));
  } catch (const std::bad_alloc&) {
    return done(fail(Errc::no_memory, "no memory for a copy"));
  }
  for (const MemoryCopy& copy : copies)
    model_->submit({0, NpuMove{copy.from, copy.to, copy.length},
                    [device = device_, all](const NpuJobResult& result) {
                      device->add_busy_ns(static_cast<std::uint64_t>(result.busy.count()));
                      all->note(result.status);
                    }});
}

Result<void> NpuDriver::submit(Session& session, std::variant<NpuCopy, NpuConvolve> work,
                               accelmm_point& point) {
  NpuCommand command{session.asid(),
                     std::visit([](const auto& w) { return decltype(NpuCommand::work)(w); }, work),
                     nullptr};
  if (auto valid = model_->check(command); !valid) return valid;
  std::optional<DroppedEntry> dropped;
  if (++submitted_ == options_.drop_entry) dropped = drop_entry_of(command);
  const std::uint64_t value = session.jobs()->next();
  point = {ACCELMM_TIMELINE_JOBS, 0, value};
  command.done = [device = device_, jobs = session.jobs(), value,
                  dropped](const NpuJobResult& result) {
    // Put back before anyone can see the job's end and unmap what it used.
    if (dropped) (void)device->bus().write(dropped->address, dropped->was);
    device->add_busy_ns(static_cast<std::uint64_t>(result.busy.count()));
    if (result.fault)
      jobs->fail(value, {result.fault->address, result.fault->access, result.fault->asid, 0,
                         result.fault->level});
    else if (!result.status)
      jobs->fail(value, result.status.error().code);
    else
      jobs->reach(value);
  };
  model_->submit(std::move(command));
  return {};
}

std::optional<DroppedEntry> NpuDriver::drop_entry_of(const NpuCommand& command) {
  const auto* const copy = std::get_if<NpuCopy>(&command.work);
  const DeviceAddr source =
      copy != nullptr ? copy->source : std::get<NpuConvolve>(command.work).source;
  const auto entry = model_->find_entry(command.asid, source);
  if (!entry) return std::nullopt;
  DroppedEntry dropped{*entry, {}};
  constexpr std::array<std::byte, 8> empty{};
  if (!device_->bus().read(*entry, dropped.was) || !device_->bus().write(*entry, empty))
    return std::nullopt;
  model_->invalidate(command.asid, {source, source + ByteCount(1)},
                     Completion([](Result<void>) {}));
  return dropped;
}

Result<std::size_t> NpuDriver::info(std::uint32_t topic, std::span<std::byte> into) {
  if (topic != ACCELMM_INFO_NPU) return Driver::info(topic, into);
  const NpuStatistics now = model_->statistics();
  const accelmm_info_npu info{.jobs = now.jobs,
                              .faults = now.faults,
                              .canceled = now.canceled,
                              .tlb_hits = now.tlb_hits,
                              .tlb_misses = now.tlb_misses,
                              .table_reads = now.table_reads,
                              .bytes_read = now.bytes_read,
                              .bytes_written = now.bytes_written,
                              .busy_ns = static_cast<std::uint64_t>(now.busy.count())};
  std::memcpy(into.data(), &info, std::min(into.size(), sizeof info));
  return sizeof info;
}

}  // namespace

DeviceDescription npu_description(const NpuOptions& options) {
  const std::uint64_t shared = options.memory.value() - options.private_memory.value();
  return {.driver_name = "npu",
          .driver_version = 1 << 16,
          .memory = DeviceMemoryDescription{.size = options.memory,
                                            .private_size = options.private_memory,
                                            .pressure = {.low = ByteCount(shared / 8),
                                                         .critical = ByteCount(shared / 32),
                                                         .relief = ByteCount(shared / 64)}},
          .mmu = MmuDescription{"NPU1", mmu::make_address_space<mmu::Npu1>, session_addresses,
                                NpuModel::address_spaces},
          .compute_sessions = options.compute_sessions,
          .permissions = {},
          .session_quota = {}};
}

Result<std::unique_ptr<Driver>> make_npu_driver(const NpuOptions& options) try {
  return std::make_unique<NpuDriver>(options);
} catch (const std::bad_alloc&) {
  return fail(Errc::no_memory, "no memory for a driver");
}

}  // namespace accelmm::sim
