// SPDX-License-Identifier: Apache-2.0
//
// Memory files that leave a driver process, come into it, and pass between applications, against the
// system calls that a pair of programs would make for the same. The work of rows named after a size
// goes on until each page was read through the descriptor that came; the row -call is the call alone,
// which costs the same whatever the size.
#include "dmabuf/bare_calls.hpp"
#include "driver_process.hpp"

#include <accelmm/client.hpp>

#include <cstddef>
#include <string>
#include <utility>

#include <benchmark/benchmark.h>

namespace accelmm::bench {
namespace {

enum class Read : bool { nothing, all };

bool read_if(Read read, int fd, std::size_t size) {
  return read == Read::nothing || bare::read_through(fd, size);
}

// --- from a driver process, and into one ---

using ExportPacket = bare::Packet<sizeof(accelmm_message_header) + sizeof(accelmm_export)>;
static_assert(sizeof(accelmm_export) >= sizeof(accelmm_import));
constexpr std::byte ask_export{1};
constexpr std::byte ask_import{2};
constexpr std::byte ask_free{3};

/// The other process: says that it is ready, gives its memory out, and maps what others bring until
/// they free it.
void serve(int socket, std::size_t size, bare::Waits waits) {
  const UniqueFd memory = bare::sealed_memory(size);
  std::byte* const own = bare::map(memory.get(), size);
  if (own == nullptr) return;
  bare::write_pages(own, size);
  ExportPacket packet{};
  if (!bare::send_packet(socket, packet)) return;  // ready
  UniqueFd came;
  UniqueFd held;
  std::byte* mapped = nullptr;
  std::size_t mapped_size = 0;
  while (bare::receive_packet(socket, packet, came, waits)) {
    int answer = -1;
    if (packet[0] == ask_export) {
      answer = memory.get();
    } else if (packet[0] == ask_import) {
      struct stat status{};
      if (fstat(came.get(), &status) != 0) return;
      if ((fcntl(came.get(), F_GET_SEALS) & F_SEAL_SHRINK) == 0) return;
      mapped_size = static_cast<std::size_t>(status.st_size);
      mapped = bare::map(came.get(), mapped_size);
      if (mapped == nullptr) return;
      held = std::move(came);
    } else {
      munmap(mapped, mapped_size);
      held.reset();
    }
    if (!bare::send_packet(socket, packet, answer)) return;
  }
}

/// The same process behind a socket, for the bare calls.
class BareDriver {
 public:
  BareDriver(std::size_t size, bare::Waits waits)
      : waits_(waits), ends_(bare::socket_pair()), child_([&] {
          ends_.first.reset();
          serve(ends_.second.get(), size, waits);
        }) {
    ends_.second.reset();
    UniqueFd none;
    static_cast<void>(bare::receive_packet(ends_.first.get(), packet_, none, waits_));
  }
  [[nodiscard]] bool ask(std::byte what, UniqueFd& fd, int with = -1) {
    packet_[0] = what;
    return bare::send_packet(ends_.first.get(), packet_, with) &&
           bare::receive_packet(ends_.first.get(), packet_, fd, waits_);
  }

 private:
  bare::Waits waits_;
  bare::Ends ends_;
  ExportPacket packet_{};
  Child child_;
};

void export_ours(benchmark::State& state, std::size_t size, Read read) {
  const DriverProcess driver;
  const auto client = driver.connect();
  if (!client) return state.SkipWithError(client.error().what);
  const auto buffer = client->allocate(ByteCount(size));
  if (!buffer) return state.SkipWithError(buffer.error().what);
  // Stays, as its maker's does there: the kernel counts a page that nobody else maps at a price.
  const auto mapping = buffer->map_cpu();
  if (!mapping) return state.SkipWithError(mapping.error().what);
  bare::write_pages(mapping->bytes().data(), size);
  for (auto _ : state) {
    const auto view = buffer->export_view();
    if (!view || !read_if(read, view->pieces.front().fd.get(), size))
      return state.SkipWithError("not exported");
  }
}

template <bare::Waits waits>
void export_bare(benchmark::State& state, std::size_t size, Read read) {
  BareDriver driver(size, waits);
  for (auto _ : state) {
    UniqueFd fd;
    if (!driver.ask(ask_export, fd) || !read_if(read, fd.get(), size))
      return state.SkipWithError("not exported");
  }
}

UniqueFd filled_memory(std::size_t size) {
  UniqueFd memory = bare::sealed_memory(size);
  std::byte* const at = bare::map(memory.get(), size);
  if (at == nullptr) return {};
  bare::write_pages(at, size);
  munmap(at, size);
  return memory;
}

Export whole_file(UniqueFd memory, std::size_t size) {
  Export view;
  view.pieces.push_back({std::move(memory), 0, ByteCount(size)});
  return view;
}

void import_ours(benchmark::State& state, std::size_t size, Read read) {
  const DriverProcess driver;
  const auto client = driver.connect();
  if (!client) return state.SkipWithError(client.error().what);
  const Export view = whole_file(filled_memory(size), size);
  for (auto _ : state) {
    auto buffer = client->import_view(view);
    if (!buffer || !read_if(read, view.pieces.front().fd.get(), size) || !buffer->free())
      return state.SkipWithError("not imported");
  }
}

template <bare::Waits waits>
void import_bare(benchmark::State& state, std::size_t size, Read read) {
  BareDriver driver(bare::page, waits);
  const UniqueFd memory = filled_memory(size);
  for (auto _ : state) {
    UniqueFd none;
    if (!driver.ask(ask_import, none, memory.get()) || !read_if(read, memory.get(), size) ||
        !driver.ask(ask_free, none))
      return state.SkipWithError("not imported");
  }
}

// --- between applications, both ends in one thread ---

// send_export()'s packet: a word that marks it, their count, and the pieces.
using PassPacket = bare::Packet<8 + ACCELMM_MAX_PIECES * sizeof(accelmm_piece)>;

void pass_ours(benchmark::State& state, std::size_t size, Read read) {
  const auto [first, second] = bare::socket_pair();
  const Export view = whole_file(filled_memory(size), size);
  for (auto _ : state) {
    if (!send_export(first.view(), view)) return state.SkipWithError("not sent");
    const auto came = receive_export(second.view());
    if (!came || !read_if(read, came->pieces.front().fd.get(), size))
      return state.SkipWithError("not received");
  }
}

void pass_bare(benchmark::State& state, std::size_t size, Read read) {
  const auto [first, second] = bare::socket_pair();
  const UniqueFd memory = filled_memory(size);
  PassPacket packet{};
  for (auto _ : state) {
    UniqueFd came;
    if (!bare::send_packet(first.get(), packet, memory.get()) ||
        !bare::receive_packet(second.get(), packet, came) || !read_if(read, came.get(), size))
      return state.SkipWithError("not passed");
  }
}

using Body = void (*)(benchmark::State&, std::size_t, Read);

void add(const std::string& work, const char* who, Body body, std::size_t size, Read read) {
  benchmark::RegisterBenchmark(("dmabuf/" + work + "/" + who).c_str(), [=](auto& state) {
    body(state, size, read);
  })->UseRealTime();
}

void add_rows(const std::string& work, const char* who, Body body) {
  add(work + "-call", who, body, bare::page, Read::nothing);
  for (const bare::Size& size : bare::sizes)
    add(work + "-" + size.name, who, body, size.bytes, Read::all);
}

const bool registered = [] {
  using enum bare::Waits;
  add_rows("export", "ours", export_ours);
  add_rows("export", "bare-calls", export_bare<asleep>);
  add_rows("export", "bare-busy-poll", export_bare<looking>);
  add_rows("import", "ours", import_ours);
  add_rows("import", "bare-calls", import_bare<asleep>);
  add_rows("import", "bare-busy-poll", import_bare<looking>);
  add_rows("pass", "ours", pass_ours);
  add_rows("pass", "bare-calls", pass_bare);
  return true;
}();

}  // namespace
}  // namespace accelmm::bench
