// SPDX-License-Identifier: Apache-2.0
#include "npu_model_engine.hpp"
#include "npu_model_mmu.hpp"

#include <accelmm/check.hpp>
#include <accelmm/sim/npu_model.hpp>

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <list>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>
#include <utility>

// Theory: two queues, one thread. Commands wait in one; what must not wait for them, invalidations
// and cancellations, in the other. The thread serves the second one between commands and between
// the bursts of a running command, so that "no access uses it any more" is simply "it was served".
// A cancellation of the running command is left at the head of its queue while the command stops,
// and served after it has ended: commands of one address space so end in their order.

namespace accelmm::sim {
namespace {

using Clock = std::chrono::steady_clock;

/// Whether an ASID has a root register.
bool exists(std::uint32_t asid) {
  return asid >= 1 && asid <= NpuModel::address_spaces;
}

}  // namespace

class NpuModel::State {
 public:
  State(BusPort& bus, NpuModelOptions options)
      : options_(options), mmu_(bus, options), engine_(mmu_, [this] { return between_bursts(); }) {}
  ~State() { stop(); }
  State(const State&) = delete;
  State& operator=(const State&) = delete;

  /// May throw std::system_error.
  void start() {
    thread_ = std::thread([this] { serve(); });
  }

  [[nodiscard]] NpuMmu& mmu() { return mmu_; }
  [[nodiscard]] Result<void> check(const NpuCommand& command) const;
  void submit(NpuCommand command);
  void invalidate(std::uint32_t asid, Range<DeviceAddr> range, Completion done);
  void cancel(std::uint32_t asid, Completion done);
  [[nodiscard]] NpuStatistics statistics() const;

 private:
  struct Queued {
    NpuCommand command;
    std::uint64_t number = 0;  ///< order of submission among commands and requests
  };
  struct Request {
    enum class Kind : std::uint8_t { invalidate, cancel } kind;
    std::uint32_t asid;
    Range<DeviceAddr> range;
    Completion done;
    std::uint64_t number = 0;
  };

  void stop();
  void serve();
  void run(Queued& queued);
  void finish(NpuCommand& command, Result<void> status, std::optional<NpuFault> fault,
              std::chrono::nanoseconds busy);
  [[nodiscard]] NpuEngine::Verdict between_bursts();
  void serve_requests();
  void add(std::list<Request> request);
  void cancel_waiting(std::uint32_t asid, std::uint64_t before);

  const NpuModelOptions options_;
  NpuMmu mmu_;
  NpuEngine engine_;

  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::list<Queued> commands_;
  std::list<Request> requests_;
  std::array<std::uint32_t, address_spaces + 1> queued_{};  // commands by ASID, the running one too
  std::uint64_t last_number_ = 0;
  bool stopping_ = false;
  std::atomic<bool> attention_{false};  // a request came, or stopping_

  // The model's thread only.
  const Queued* running_ = nullptr;
  bool stop_running_ = false;

  std::atomic<std::uint64_t> jobs_{0};
  std::atomic<std::uint64_t> faults_{0};
  std::atomic<std::uint64_t> canceled_{0};
  std::atomic<std::int64_t> busy_ns_{0};
  std::thread thread_;
};

Result<void> NpuModel::State::check(const NpuCommand& command) const {
  const bool move = std::holds_alternative<NpuMove>(command.work);
  if (move ? command.asid != 0 : !exists(command.asid))
    return fail(Errc::invalid_argument, "no such address space");
  if (auto valid =
          std::visit([](const auto& work) { return NpuEngine::check(work); }, command.work);
      !valid)
    return valid;
  const std::scoped_lock lock(mutex_);
  if (!move && queued_[command.asid] >= max_queued)
    return fail(Errc::over_quota, "too many jobs wait");
  return {};
}

void NpuModel::State::submit(NpuCommand command) {
  if (auto valid = check(command); !valid) return finish(command, valid, {}, {});
  std::list<Queued> queued;
  try {
    queued.emplace_back();
  } catch (const std::bad_alloc&) {
    return finish(command, fail(Errc::no_memory, "no memory for a job"), {}, {});
  }
  queued.front().command = std::move(command);
  {
    const std::scoped_lock lock(mutex_);
    queued.front().number = ++last_number_;
    ++queued_[queued.front().command.asid];
    commands_.splice(commands_.end(), queued);
  }
  wake_.notify_one();
}

void NpuModel::State::invalidate(std::uint32_t asid, Range<DeviceAddr> range, Completion done) {
  try {
    std::list<Request> request;
    request.push_back({Request::Kind::invalidate, asid, range, Completion(nullptr)});
    request.front().done = std::move(done);
    add(std::move(request));
  } catch (const std::bad_alloc&) {
    done(fail(Errc::no_memory, "no memory for an invalidation"));
  }
}

void NpuModel::State::cancel(std::uint32_t asid, Completion done) {
  try {
    std::list<Request> request;
    request.push_back({Request::Kind::cancel, asid, {}, Completion(nullptr)});
    request.front().done = std::move(done);
    add(std::move(request));
  } catch (const std::bad_alloc&) {
    done(fail(Errc::no_memory, "no memory for a cancellation"));
  }
}

void NpuModel::State::add(std::list<Request> request) {
  {
    const std::scoped_lock lock(mutex_);
    request.front().number = ++last_number_;
    requests_.splice(requests_.end(), request);
    attention_.store(true, std::memory_order_relaxed);
  }
  wake_.notify_one();
}

void NpuModel::State::stop() {
  if (!thread_.joinable()) return;
  {
    const std::scoped_lock lock(mutex_);
    stopping_ = true;
    attention_.store(true, std::memory_order_relaxed);
  }
  wake_.notify_one();
  thread_.join();
}

void NpuModel::State::serve() {
  std::unique_lock lock(mutex_);
  for (;;) {
    wake_.wait(lock, [this] { return stopping_ || !requests_.empty() || !commands_.empty(); });
    if (stopping_) break;
    std::list<Queued> next;
    if (requests_.empty()) next.splice(next.end(), commands_, commands_.begin());
    lock.unlock();
    if (next.empty())
      serve_requests();
    else
      run(next.front());
    lock.lock();
  }
  lock.unlock();
  // Nothing runs any more: callbacks may still submit, until the queues stay empty.
  for (;;) {
    lock.lock();
    std::list<Queued> commands = std::exchange(commands_, {});
    std::list<Request> requests = std::exchange(requests_, {});
    lock.unlock();
    if (commands.empty() && requests.empty()) return;
    for (Queued& queued : commands)
      finish(queued.command, fail(Errc::canceled, "NPU was switched off"), {}, {});
  }
}

void NpuModel::State::run(Queued& queued) {
  running_ = &queued;
  stop_running_ = false;
  const auto begin = Clock::now();
  const auto progress =
      std::visit([&](const auto& work) { return engine_.execute(queued.command.asid, work); },
                 queued.command.work);
  const auto busy = Clock::now() - begin;
  running_ = nullptr;
  {
    const std::scoped_lock lock(mutex_);
    --queued_[queued.command.asid];
  }
  if (progress)
    finish(queued.command, {}, {}, busy);
  else if (progress.error().fault)
    finish(queued.command, fail(Errc::fault, "NPU could not reach an address"),
           progress.error().fault, busy);
  else
    finish(queued.command, fail(Errc::canceled, "job was stopped"), {}, busy);
}

void NpuModel::State::finish(NpuCommand& command, Result<void> status,
                             std::optional<NpuFault> fault, std::chrono::nanoseconds busy) {
  jobs_.fetch_add(1, std::memory_order_relaxed);
  if (fault) faults_.fetch_add(1, std::memory_order_relaxed);
  if (!status && status.error().code == Errc::canceled)
    canceled_.fetch_add(1, std::memory_order_relaxed);
  busy_ns_.fetch_add(busy.count(), std::memory_order_relaxed);
  if (command.done) command.done({status, fault, busy});
  command.done = nullptr;
}

NpuEngine::Verdict NpuModel::State::between_bursts() {
  if (options_.delay_per_burst.count() > 0) {
    std::unique_lock lock(mutex_);
    wake_.wait_for(lock, options_.delay_per_burst,
                   [this] { return stopping_ || !requests_.empty(); });
  }
  if (attention_.load(std::memory_order_relaxed)) serve_requests();
  return stop_running_ ? NpuEngine::Verdict::stop : NpuEngine::Verdict::go_on;
}

void NpuModel::State::serve_requests() {
  for (;;) {
    std::list<Request> next;
    {
      const std::scoped_lock lock(mutex_);
      if (stopping_) stop_running_ = true;
      if (stopping_ || requests_.empty()) {
        attention_.store(stopping_, std::memory_order_relaxed);
        return;
      }
      const Request& front = requests_.front();
      // Commands are taken only while no request waits: the running one is older than this.
      if (running_ != nullptr && front.kind == Request::Kind::cancel &&
          front.asid == running_->command.asid) {
        stop_running_ = true;
        return;
      }
      next.splice(next.end(), requests_, requests_.begin());
    }
    Request& request = next.front();
    if (request.kind == Request::Kind::invalidate)
      mmu_.invalidate(request.asid, request.range);
    else
      cancel_waiting(request.asid, request.number);
    request.done({});
  }
}

void NpuModel::State::cancel_waiting(std::uint32_t asid, std::uint64_t before) {
  std::list<Queued> canceled;
  {
    const std::scoped_lock lock(mutex_);
    for (auto at = commands_.begin(); at != commands_.end();) {
      const auto next = std::next(at);
      if (at->command.asid == asid && at->number < before) {
        canceled.splice(canceled.end(), commands_, at);
        --queued_[asid];
      }
      at = next;
    }
  }
  for (Queued& queued : canceled)
    finish(queued.command, fail(Errc::canceled, "job was stopped"), {}, {});
}

NpuStatistics NpuModel::State::statistics() const {
  const NpuMmu::Counters& mmu = mmu_.counters();
  return {.jobs = jobs_.load(std::memory_order_relaxed),
          .faults = faults_.load(std::memory_order_relaxed),
          .canceled = canceled_.load(std::memory_order_relaxed),
          .tlb_hits = mmu.tlb_hits.load(std::memory_order_relaxed),
          .tlb_misses = mmu.tlb_misses.load(std::memory_order_relaxed),
          .table_reads = mmu.table_reads.load(std::memory_order_relaxed),
          .bytes_read = mmu.bytes_read.load(std::memory_order_relaxed),
          .bytes_written = mmu.bytes_written.load(std::memory_order_relaxed),
          .busy = std::chrono::nanoseconds(busy_ns_.load(std::memory_order_relaxed))};
}

NpuModel::NpuModel(std::unique_ptr<State> state) : state_(std::move(state)) {}
NpuModel::~NpuModel() = default;

Result<std::unique_ptr<NpuModel>> NpuModel::create(BusPort& bus, NpuModelOptions options) {
  if (options.tlb_entries == 0) return fail(Errc::invalid_argument, "TLB has no entries");
  try {
    auto state = std::make_unique<State>(bus, options);
    state->start();
    return std::unique_ptr<NpuModel>(new NpuModel(std::move(state)));
  } catch (const std::bad_alloc&) {
    return fail(Errc::no_memory, "no memory for an NPU");
  } catch (const std::system_error&) {
    return fail(Errc::try_again, "no thread for an NPU");
  }
}

Result<void> NpuModel::set_root(std::uint32_t asid, BusAddr root) {
  if (!exists(asid)) return fail(Errc::invalid_argument, "no such address space");
  if (root.value() % NpuWalker::page_size != 0)
    return fail(Errc::invalid_argument, "root table is not aligned to 4096");
  state_->mmu().set_root(asid, root);
  return {};
}

void NpuModel::clear_root(std::uint32_t asid) {
  state_->mmu().clear_root(asid);
}

void NpuModel::invalidate(std::uint32_t asid, Range<DeviceAddr> range, Completion done) {
  state_->invalidate(asid, range, std::move(done));
}

Result<void> NpuModel::check(const NpuCommand& command) const {
  return state_->check(command);
}

void NpuModel::submit(NpuCommand command) {
  state_->submit(std::move(command));
}

void NpuModel::cancel(std::uint32_t asid, Completion done) {
  state_->cancel(asid, std::move(done));
}

Result<BusAddr> NpuModel::find_entry(std::uint32_t asid, DeviceAddr address) const {
  return state_->mmu().find_entry(asid, address);
}

NpuStatistics NpuModel::statistics() const {
  return state_->statistics();
}

}  // namespace accelmm::sim
