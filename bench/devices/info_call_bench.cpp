// SPDX-License-Identifier: Apache-2.0
#include "driver_process.hpp"

#include <accelmm/client.hpp>

#include <array>
#include <cerrno>

#include <benchmark/benchmark.h>
#include <sys/socket.h>
#include <unistd.h>

namespace accelmm::bench {
namespace {

// One INFO call to a device in another process, through the client library.
void info_call(benchmark::State& state) {
  const DriverProcess driver;
  const auto client = driver.connect();
  if (!client) return state.SkipWithError(client.error().what);
  for (auto _ : state) {
    const auto info = client->device_info();
    benchmark::DoNotOptimize(info);
    if (!info) return state.SkipWithError(info.error().what);
  }
}

// The same bytes both ways between two processes that do nothing else.
constexpr std::size_t packet_bytes = sizeof(accelmm_message_header) + sizeof(accelmm_info);

// `flags` of a receive that sleeps are 0; with MSG_DONTWAIT it looks for ever.
template <int flags>
ssize_t receive(int socket, std::array<char, packet_bytes>& packet) {
  ssize_t size = 0;
  do {
    size = recv(socket, packet.data(), packet.size(), flags);
  } while (size < 0 && errno == EAGAIN);
  return size;
}

template <int flags>
void seqpacket_ping_pong(benchmark::State& state) {
  std::array<int, 2> ends{};
  if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends.data()) != 0)
    return state.SkipWithError("no socket");
  const Child peer([&] {
    std::array<char, packet_bytes> packet{};
    close(ends[0]);
    while (receive<flags>(ends[1], packet) > 0)
      if (send(ends[1], packet.data(), packet.size(), MSG_NOSIGNAL) < 0) return;
  });
  std::array<char, packet_bytes> packet{};
  for (auto _ : state) {
    if (send(ends[0], packet.data(), packet.size(), MSG_NOSIGNAL) < 0 ||
        receive<flags>(ends[0], packet) < 0)
      return state.SkipWithError("peer is gone");
  }
  close(ends[0]);
  close(ends[1]);
}

BENCHMARK(info_call)->Name("devices/info-call/ours")->UseRealTime();
BENCHMARK(seqpacket_ping_pong<0>)->Name("devices/info-call/seqpacket-ping-pong")->UseRealTime();
BENCHMARK(seqpacket_ping_pong<MSG_DONTWAIT>)
    ->Name("devices/info-call/seqpacket-busy-poll")
    ->UseRealTime();

}  // namespace
}  // namespace accelmm::bench
