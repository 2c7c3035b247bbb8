// SPDX-License-Identifier: Apache-2.0
#include "edu_engine.hpp"

#include <algorithm>
#include <new>
#include <system_error>
#include <utility>

namespace accelmm::edu {
namespace {

using Clock = std::chrono::steady_clock;

// Registers: 4 bytes below 0x80, 8 bytes from there on.
constexpr ByteCount identification(0x00);  // 0xRRrr00ed: version RR.rr
constexpr ByteCount liveness(0x04);        // reads as the complement of what was written
constexpr ByteCount interrupt_status(0x24);
constexpr ByteCount interrupt_acknowledge(0x64);
constexpr ByteCount dma_source(0x80);
constexpr ByteCount dma_destination(0x88);
constexpr ByteCount dma_count(0x90);
constexpr ByteCount dma_command(0x98);

constexpr std::uint64_t command_start = 0x1;  // reads as 1 until the transfer has ended
constexpr std::uint64_t command_to_memory = 0x2;
constexpr std::uint64_t command_interrupt = 0x4;
constexpr std::uint32_t dma_interrupt = 0x100;

constexpr std::uint64_t buffer_address = 0x40000;

// The framework stops a session once; there is one session at a time.
constexpr std::size_t most_cancels = 4;

Result<std::uint32_t> identify(VfioRegion& registers) {
  const auto id = registers.read32(identification);
  if (!id) return id;
  if ((*id & 0xffff) != 0x00ed) return fail(Errc::no_device, "not an edu device");
  constexpr std::uint32_t question = 0x5a5a1234;
  if (auto asked = registers.write32(liveness, question); !asked) return fail(asked.error());
  const auto answer = registers.read32(liveness);
  if (!answer) return answer;
  if (*answer != ~question) return fail(Errc::io_error, "edu device does not answer");
  return *id >> 16;
}

std::uint64_t in_ns(Clock::time_point time) {
  return static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::nanoseconds>(time.time_since_epoch()).count());
}

}  // namespace

EduEngine::EduEngine(VfioDevice& device, const Options& options, VfioRegion registers,
                     VfioInterrupt interrupt, std::uint32_t version)
    : device_(device),
      options_(options),
      registers_(std::move(registers)),
      interrupt_(std::move(interrupt)),
      version_(version) {
  when_idle_.reserve(most_cancels);
}

Result<std::unique_ptr<EduEngine>> EduEngine::create(VfioDevice& device,
                                                     const Options& options) try {
  auto registers = device.region(0);
  if (!registers) return fail(registers.error());
  const auto version = identify(*registers);
  if (!version) return fail(version.error());
  auto interrupt = device.interrupt();
  if (!interrupt) return fail(interrupt.error());
  if (auto on = device.set_bus_master(VfioDevice::BusMaster::on); !on) return fail(on.error());
  std::unique_ptr<EduEngine> engine(
      new EduEngine(device, options, std::move(*registers), std::move(*interrupt), *version));
  engine->thread_ = std::thread([self = engine.get()] { self->work(); });
  return engine;
} catch (const std::bad_alloc&) {
  return fail(Errc::no_memory, "no memory for a DMA engine");
} catch (const std::system_error&) {
  return fail(Errc::try_again, "no thread for a DMA engine");
}

EduEngine::~EduEngine() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) {
    interrupt_.cancel();
    thread_.join();
  }
  (void)device_.set_bus_master(VfioDevice::BusMaster::off);
  for (Job& job : waiting_) job.done(job.point, fail(Errc::canceled, "the device goes away"));
  for (Completion& done : when_idle_) done({});
}

void EduEngine::submit(std::list<Job> jobs) noexcept {
  {
    const std::lock_guard lock(mutex_);
    waiting_.splice(waiting_.end(), jobs);
  }
  changed_.notify_all();
}

void EduEngine::cancel(std::uint64_t session, Completion done) {
  std::list<Job> canceled;
  bool is_running = false;
  {
    const std::lock_guard lock(mutex_);
    for (auto next = waiting_.begin(); next != waiting_.end();) {
      const auto job = next++;
      if (job->session == session) canceled.splice(canceled.end(), waiting_, job);
    }
    is_running = running_ == session;
    if (is_running) when_idle_.push_back(std::move(done));
  }
  for (Job& job : canceled) job.done(job.point, fail(Errc::canceled, "the session ended"));
  if (!is_running) done({});  // NOLINT(bugprone-use-after-move): moved only if it is running
}

EduEngine::Statistics EduEngine::statistics() const {
  const std::lock_guard lock(mutex_);
  return statistics_;
}

void EduEngine::work() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return ending_ || !waiting_.empty(); });
    if (ending_) return;
    Job job = std::move(waiting_.front());
    waiting_.pop_front();
    running_ = job.session;
    lock.unlock();
    const Result<void> result = run(job);
    if (result) note_transfer(job.length);
    job.done(job.point, result);
    lock.lock();
    running_.reset();
    while (!when_idle_.empty()) {
      Completion done = std::move(when_idle_.back());
      when_idle_.pop_back();
      lock.unlock();
      done({});
      lock.lock();
    }
  }
}

void EduEngine::note_transfer(std::uint32_t length) {
  const std::lock_guard lock(mutex_);
  ++statistics_.transfers;
  statistics_.bytes += length;
}

Result<void> EduEngine::run(const Job& job) {
  if (job.unreachable) return fail(Errc::fault, "the session has not mapped this memory");
  if (hangs_) return fail(Errc::io_error, "the device hangs");
  if (auto started = start(job); !started) return started;
  auto ended = await_end();
  if (!ended && ended.error().code != Errc::canceled) recover();
  return ended;
}

Result<void> EduEngine::start(const Job& job) {
  const std::uint64_t inside = buffer_address + job.offset;
  const bool to_memory = job.direction == Direction::to_memory;
  const std::pair<ByteCount, std::uint64_t> program[] = {
      {dma_source, to_memory ? inside : job.memory.value()},
      {dma_destination, to_memory ? job.memory.value() : inside},
      {dma_count, job.length},
      {dma_command, command_start | command_interrupt | (to_memory ? command_to_memory : 0)}};
  for (const auto& [offset, value] : program)
    if (auto written = registers_.write64(offset, value); !written) return written;
  return {};
}

// Interrupts of other causes, or left over from a transfer that was given up, are looked at and
// waited behind.
Result<void> EduEngine::await_end() {
  const std::uint64_t deadline = in_ns(Clock::now() + options_.timeout);
  while (true) {
    if (auto came = interrupt_.wait(deadline); !came) return came;
    const auto ours = take_interrupt();
    if (!ours) return fail(ours.error());
    if (!*ours) continue;
    const auto command = registers_.read64(dma_command);
    if (!command) return fail(command.error());
    if ((*command & command_start) == 0) return {};
  }
}

Result<bool> EduEngine::take_interrupt() {
  const auto status = registers_.read32(interrupt_status);
  if (!status) return fail(status.error());
  if (*status != 0)
    if (auto lowered = registers_.write32(interrupt_acknowledge, *status); !lowered)
      return fail(lowered.error());
  if (auto armed = interrupt_.rearm(); !armed) return fail(armed.error());
  const bool ours = (*status & dma_interrupt) != 0;
  const std::lock_guard lock(mutex_);
  if (*status != 0) ++statistics_.interrupts;
  return ours;
}

// A transfer that does not end must not reach memory later, when that is somebody else's: the device
// is cut off until it says that it has stopped, or for ever.
void EduEngine::recover() {
  {
    const std::lock_guard lock(mutex_);
    ++statistics_.timeouts;
  }
  hangs_ = true;
  if (!device_.set_bus_master(VfioDevice::BusMaster::off)) return;
  const auto deadline = Clock::now() + options_.timeout;
  while (true) {
    const auto command = registers_.read64(dma_command);
    if (!command) return;
    if ((*command & command_start) == 0) break;
    if (Clock::now() > deadline) return;
    std::unique_lock lock(mutex_);
    if (changed_.wait_for(lock, std::chrono::milliseconds(1), [this] { return ending_; })) return;
  }
  if (!take_interrupt()) return;
  if (!device_.set_bus_master(VfioDevice::BusMaster::on)) return;
  hangs_ = false;
}

}  // namespace accelmm::edu
