// SPDX-License-Identifier: Apache-2.0
//
// All pages of a host buffer of 256 MiB: made by the driver process's threads, by one thread of it,
// or by the application's touching each. An operation is one page of 4 KiB. Giving them back is not
// timed.
#include <accelmm/client.hpp>
#include <accelmm/runtime.hpp>

#include <cstdlib>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include <benchmark/benchmark.h>

namespace accelmm::bench {
namespace {

constexpr ByteCount size(std::uint64_t{256} << 20);
constexpr std::uint64_t page = 4096;

/// A device that can do nothing: only the host's memory counts.
class MemoryOnlyDriver final : public Driver {
 public:
  void probe(Device&, Completion done) override { done({}); }
  void remove(Device&) noexcept override {}
  void stop(Session&, Completion done) override { done({}); }
};

/// A driver process and an application in one process.
class Host {
 public:
  explicit Host(std::uint32_t threads) {
    std::string folder = std::filesystem::temp_directory_path() / "accelmm-bench-XXXXXX";
    if (mkdtemp(folder.data()) == nullptr) return;
    folder_ = folder;
    auto runtime =
        Runtime::create({.directory = folder, .backing_policy = {.prefault_threads = threads}});
    if (!runtime) return;
    runtime_ = std::move(*runtime);
    DeviceDescription description;
    description.driver_name = "memory-only";
    const auto number =
        runtime_->register_device(description, std::make_unique<MemoryOnlyDriver>());
    if (!number) return;
    auto client = Client::connect(*number, NodeKind::compute, folder);
    if (client) client_.emplace(std::move(*client));
  }
  Host(const Host&) = delete;
  Host& operator=(const Host&) = delete;
  ~Host() {
    client_.reset();
    runtime_.reset();
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
  }
  [[nodiscard]] const Client* client() const { return client_ ? &*client_ : nullptr; }

 private:
  std::filesystem::path folder_;
  std::unique_ptr<Runtime> runtime_;
  std::optional<Client> client_;
};

bool touch_all(const Buffer& buffer) {
  const auto mapping = buffer.map_cpu();
  if (!mapping) return false;
  for (std::size_t at = 0; at < mapping->bytes().size(); at += page)
    mapping->bytes()[at] = std::byte{1};
  return true;
}

bool await_all(const Buffer& buffer) {
  const auto report = buffer.backing(no_deadline);
  return report && report->prefault == PrefaultState::done;
}

void make_pages(benchmark::State& state, std::uint32_t threads, const BackingRequest& request,
                bool (*finish)(const Buffer&)) {
  const Host host(threads);
  if (host.client() == nullptr) return state.SkipWithError("no device");
  for (auto _ : state) {
    auto buffer = host.client()->allocate(size, {.backing = request});
    if (!buffer || !finish(*buffer)) return state.SkipWithError("no pages");
    state.PauseTiming();
    const auto report = buffer->backing();
    if (!report || report->populated != size) return state.SkipWithError("pages are missing");
    if (!buffer->free()) return state.SkipWithError("not freed");
    state.ResumeTiming();
  }
  state.counters["items"] = static_cast<double>(size.value() / page);
}

void add(const std::string& who, std::uint32_t threads, const BackingRequest& request,
         bool (*finish)(const Buffer&)) {
  benchmark::RegisterBenchmark(("mm/backing-prefault/" + who).c_str(), [=](auto& state) {
    make_pages(state, threads, request, finish);
  })->UseRealTime();
}

const bool registered = [] {
  const BackingRequest eager{.prefault = PrefaultPages::yes};
  add("ours", 0, eager, await_all);
  add("ours-one-thread", 1, eager, await_all);
  add("touching", 1, {}, touch_all);
  return true;
}();

}  // namespace
}  // namespace accelmm::bench
