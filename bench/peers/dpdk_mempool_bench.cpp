// SPDX-License-Identifier: Apache-2.0
//
// DPDK's mempool: objects of one size, a cache of 512 of them for each lcore. Its calls are inline
// functions of DPDK's headers, so the workloads are compiled into this file, which alone gets
// DPDK's compiler flags.
#include "mm/rows.hpp"
#include "mm/slab_sizes.hpp"
#include "mm/workloads.hpp"
#include "peers/peer.hpp"

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include <benchmark/benchmark.h>
#include <rte_errno.h>
#include <rte_mempool.h>

namespace accelmm::bench {
namespace {

// A ring of 2^n - 1 objects is the cheapest in memory; DPDK wants 1.5 times the cache at least.
constexpr unsigned objects = 2047;
constexpr unsigned cached = 512;

class Mempool {
 public:
  using Piece = void*;
  explicit Mempool(rte_mempool* pool) : pool_(pool) {}

  [[nodiscard]] bool take(std::uint64_t /*size*/, Piece& piece) {
    return rte_mempool_get(pool_, &piece) == 0;
  }
  [[nodiscard]] bool take(std::uint64_t size, std::uint64_t /*alignment*/, Piece& piece) {
    return take(size, piece);
  }
  [[nodiscard]] bool give(Piece piece) {
    rte_mempool_put(pool_, piece);
    return true;
  }
  template <std::size_t Count>
  [[nodiscard]] bool take_bulk(std::array<Piece, Count>& pieces) {
    return rte_mempool_get_bulk(pool_, pieces.data(), Count) == 0;
  }
  template <std::size_t Count>
  [[nodiscard]] bool give_bulk(std::array<Piece, Count>& pieces) {
    rte_mempool_put_bulk(pool_, pieces.data(), Count);
    return true;
  }
  [[nodiscard]] static std::uint64_t address(Piece piece) {
    return std::bit_cast<std::uintptr_t>(piece);
  }

 private:
  rte_mempool* pool_;
};

template <class Work>
void add_mempool_row(const std::string& work, std::size_t size, Work body) {
  add_row(work, "dpdk-mempool", [=](benchmark::State& state) {
    if (const std::string flaw = start_dpdk(); !flaw.empty())
      return state.SkipWithError(flaw.c_str());
    rte_mempool* const pool =
        rte_mempool_create("bench", objects, static_cast<unsigned>(size), cached, 0, nullptr,
                           nullptr, nullptr, nullptr, SOCKET_ID_ANY, 0);
    if (pool == nullptr) return state.SkipWithError(rte_strerror(rte_errno));
    body(state, Mempool(pool));
    if (rte_mempool_avail_count(pool) != objects) state.SkipWithError("objects are missing");
    rte_mempool_free(pool);
  });
}

const bool registered = [] {
  const auto hot = [](benchmark::State& state, Mempool&& pool) {
    hot_pair(state, std::move(pool), {.size = 0});
  };
  for (const std::size_t size : slab_sizes) add_mempool_row(slab_hot(size), size, hot);
  add_mempool_row("page-hot-4k", 4096, hot);
  for (const char* work : {"slab-bulk4", "slab-bulk4-unchecked"})
    add_mempool_row(work, slab_bulk_size, [](benchmark::State& state, Mempool&& pool) {
      hot_bulk<4>(state, std::move(pool));
    });
  for (const char* work : {"slab-bulk32", "slab-bulk32-unchecked"})
    add_mempool_row(work, slab_bulk_size, [](benchmark::State& state, Mempool&& pool) {
      hot_bulk<32>(state, std::move(pool));
    });
  return true;
}();

}  // namespace
}  // namespace accelmm::bench
