// SPDX-License-Identifier: Apache-2.0
//
// DPDK's malloc and the start of its environment.
#include "peers/peer.hpp"

#include <array>
#include <cstddef>
#include <string>

#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_malloc.h>
#include <rte_mempool.h>
#include <rte_version.h>
#include <sched.h>

namespace accelmm::bench {
namespace {

std::string start_once() {
  // rte_eal_init pins its caller to the CPU of the first lcore. Threads that are made later would
  // inherit that.
  cpu_set_t before;
  CPU_ZERO(&before);
  if (sched_getaffinity(0, sizeof before, &before) != 0) return "no CPU affinity";
  std::size_t cpu = 0;
  while (cpu < CPU_SETSIZE - 1 && !CPU_ISSET(cpu, &before)) ++cpu;
  std::array<std::string, 9> words{
      "accelmm_bench",    "--no-huge",      "-m",          "1024",
      "--no-pci",         "--no-telemetry", "--no-shconf", "--lcores=0@" + std::to_string(cpu),
      "--log-level=error"};
  std::array<char*, words.size()> arguments{};
  for (std::size_t i = 0; i < words.size(); ++i) arguments[i] = words[i].data();
  if (rte_eal_init(static_cast<int>(arguments.size()), arguments.data()) < 0)
    return std::string("rte_eal_init: ") + rte_strerror(rte_errno);
  if (sched_setaffinity(0, sizeof before, &before) != 0) return "cannot restore the CPU affinity";
  return {};
}

}  // namespace

std::string start_dpdk() {
  static const std::string result = start_once();
  return result;
}

std::string dpdk_mempool_object() {
  return object_of(reinterpret_cast<const void*>(&rte_mempool_create)) +
         " (librte_mempool.a, inlined in part) " + rte_version();
}

Peer dpdk_malloc_peer() {
  Peer peer;
  peer.name = "dpdk-malloc";
  peer.allocate = [](std::size_t size) { return rte_malloc(nullptr, size, 0); };
  peer.allocate_aligned = [](std::size_t alignment, std::size_t size) {
    return rte_malloc(nullptr, size, static_cast<unsigned>(alignment));
  };
  peer.free = rte_free;
  peer.start = start_dpdk;
  peer.object =
      object_of(reinterpret_cast<const void*>(&rte_malloc)) + " (librte_eal.a) " + rte_version();
  return peer;
}

}  // namespace accelmm::bench
