// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/driver.hpp>

#include <cstddef>
#include <functional>
#include <memory>
#include <mutex>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

namespace accelmm::test {

/// What a recording driver was asked for, in order; shared with the test.
///
/// Threads   any.
class DriverRecord {
 public:
  struct Step {
    std::string what;
    std::size_t measured;
    bool operator==(const Step&) const = default;
  };

  /// Asked at each step, in the runtime's thread and before the inner driver.
  using Measure = std::function<std::size_t(const std::string& what)>;
  explicit DriverRecord(Measure measure) : measure_(std::move(measure)) { steps_.reserve(room); }

  void add(std::string what) {
    const std::size_t measured = measure_(what);
    const std::lock_guard lock(mutex_);
    steps_.push_back({std::move(what), measured});
  }
  /// The steps since the last call of this.
  /// Tells the measure that the framework's code runs again (`enter`), or the driver's (`leave`).
  void enter_framework() { (void)measure_("enter framework"); }
  void leave_framework() { (void)measure_("leave framework"); }
  [[nodiscard]] std::vector<Step> take() {
    const std::lock_guard lock(mutex_);
    std::vector<Step> taken;
    taken.reserve(room);
    steps_.swap(taken);
    return taken;
  }
  /// Steps of this name fail from now on; none if it is empty.
  void refuse(std::string what) {
    const std::lock_guard lock(mutex_);
    refused_ = std::move(what);
  }
  [[nodiscard]] bool refuses(const std::string& what) {
    const std::lock_guard lock(mutex_);
    return what == refused_;
  }

 private:
  static constexpr std::size_t room = 4096;  // steps that need no memory of their own
  Measure measure_;
  std::mutex mutex_;
  std::vector<Step> steps_;
  std::string refused_;
};

inline std::ostream& operator<<(std::ostream& out, const DriverRecord::Step& step) {
  return out << step.what << " (" << step.measured << ")";
}

/// Another driver, with a record of what the framework asks of it.
class RecordingDriver final : public Driver, private MmuHardware {
 public:
  RecordingDriver(std::unique_ptr<Driver> inner, std::shared_ptr<DriverRecord> record)
      : inner_(std::move(inner)), record_(std::move(record)) {}

  void probe(Device& device, Completion done) override { inner_->probe(device, std::move(done)); }
  void remove(Device& device) noexcept override {
    inner_->remove(device);
    record_->add("remove");
  }
  void open(Session& session, Completion done) override {
    record_->add("open " + std::to_string(session.asid()));
    inner_->open(session, std::move(done));
  }
  void stop(Session& session, Completion done) override {
    forward("stop", std::move(done),
            [&, this](Completion then) { inner_->stop(session, std::move(then)); });
  }
  void close(Session& session) noexcept override {
    inner_->close(session);
    record_->add("close");
  }
  Result<std::size_t> info(std::uint32_t topic, std::span<std::byte> into) override {
    return inner_->info(topic, into);
  }
  void ioctls(IoctlTable& table) override { inner_->ioctls(table); }
  MmuHardware* mmu() override { return this; }

 private:
  void bind(std::uint32_t asid, BusAddr root, Completion done) override {
    inner_->mmu()->bind(asid, root, std::move(done));
  }
  void unbind(std::uint32_t asid, Completion done) override {
    forward("unbind", std::move(done),
            [=, this](Completion then) { inner_->mmu()->unbind(asid, std::move(then)); });
  }
  void invalidate(const mmu::Invalidation& invalidation, Completion done) override {
    const bool closing = invalidation.cause == mmu::Invalidation::Cause::close;
    forward(
        closing ? "invalidate for close" : "invalidate", std::move(done),
        [=, this](Completion then) { inner_->mmu()->invalidate(invalidation, std::move(then)); });
  }
  template <class Call>
  void forward(const char* step, Completion done, Call call) {
    record_->leave_framework();
    record_->add(step);
    if (record_->refuses(step)) return done(fail(Errc::io_error, "the device does not answer"));
    call(Completion([record = record_, done = std::move(done)](Result<void> result) mutable {
      record->enter_framework();
      done(result);
      record->leave_framework();
    }));
    record_->enter_framework();
  }

  std::unique_ptr<Driver> inner_;
  std::shared_ptr<DriverRecord> record_;
};

}  // namespace accelmm::test
