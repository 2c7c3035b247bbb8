// SPDX-License-Identifier: Apache-2.0
//
// The life of a host buffer: made, mapped, a byte of each page written, given back. Pages come to be
// at the first touch, or ahead of it: by the driver process's prefault, or by MAP_POPULATE.
#include "dmabuf/bare_calls.hpp"
#include "driver_process.hpp"

#include <accelmm/client.hpp>

#include <cstddef>
#include <string>

#include <benchmark/benchmark.h>

namespace accelmm::bench {
namespace {

void touch_ours(benchmark::State& state, std::size_t size, PrefaultPages prefault) {
  const DriverProcess driver;
  const auto client = driver.connect();
  if (!client) return state.SkipWithError(client.error().what);
  for (auto _ : state) {
    auto buffer = client->allocate(ByteCount(size), {.backing = {.prefault = prefault}});
    if (!buffer) return state.SkipWithError(buffer.error().what);
    {
      const auto mapping = buffer->map_cpu();
      if (!mapping) return state.SkipWithError(mapping.error().what);
      bare::write_pages(mapping->bytes().data(), size);
    }
    if (!buffer->free()) return state.SkipWithError("not freed");
  }
}

void touch_bare(benchmark::State& state, std::size_t size, int flags) {
  for (auto _ : state) {
    const UniqueFd memory = bare::sealed_memory(size);
    std::byte* const at = bare::map(memory.get(), size, flags);
    if (at == nullptr) return state.SkipWithError("no memory");
    bare::write_pages(at, size);
    munmap(at, size);
  }
}

template <class How>
void add(const std::string& work, const char* who,
         void (*body)(benchmark::State&, std::size_t, How), std::size_t size, How how) {
  benchmark::RegisterBenchmark(("dmabuf/" + work + "/" + who).c_str(), [=](auto& state) {
    body(state, size, how);
  })->UseRealTime();
}

const bool registered = [] {
  for (const bare::Size& size : bare::sizes) {
    const std::string lazy = std::string("first-touch-") + size.name;
    add(lazy, "ours", touch_ours, size.bytes, PrefaultPages::no);
    add(lazy, "bare-calls", touch_bare, size.bytes, 0);
    const std::string eager = std::string("first-touch-prefault-") + size.name;
    add(eager, "ours", touch_ours, size.bytes, PrefaultPages::yes);
    add(eager, "bare-populate", touch_bare, size.bytes, MAP_POPULATE);
    add(eager, "ours-unfaulted", touch_ours, size.bytes, PrefaultPages::no);
  }
  return true;
}();

}  // namespace
}  // namespace accelmm::bench
