// SPDX-License-Identifier: Apache-2.0
//
// Small objects of one size, one, 4 or 32 at a time, and many live ones of mixed sizes: the peers'
// side of slab-hot-SIZE, slab-bulkN and heap-random-1k-16k.
#include "rows.hpp"
#include "slab_sizes.hpp"
#include "subjects.hpp"
#include "workloads.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include <benchmark/benchmark.h>
#include <boost/pool/pool.hpp>

namespace accelmm::bench {
namespace {

// A malloc has no call for many at once.
class BulkMallocs : public MallocSubject {
 public:
  explicit BulkMallocs(const MallocSubject& subject) : MallocSubject(subject) {}
  template <std::size_t Count>
  [[nodiscard]] bool take_bulk(std::array<Piece, Count>& pieces) {
    bool all = true;
    for (Piece& piece : pieces) all = take(slab_bulk_size, piece) && all;
    return all;
  }
  template <std::size_t Count>
  [[nodiscard]] bool give_bulk(std::array<Piece, Count>& pieces) {
    bool all = true;
    for (Piece piece : pieces) all = give(piece) && all;
    return all;
  }
};

// Boost's pool: a list of free pieces through the pieces themselves. Not ordered, not locked.
class BoostPool {
 public:
  using Piece = void*;
  explicit BoostPool(std::size_t size) : pool_(size) {}
  [[nodiscard]] bool take(std::uint64_t /*size*/, Piece& piece) {
    piece = pool_.malloc();
    return piece != nullptr;
  }
  [[nodiscard]] bool take(std::uint64_t size, std::uint64_t /*alignment*/, Piece& piece) {
    return take(size, piece);
  }
  [[nodiscard]] bool give(Piece piece) {
    pool_.free(piece);
    return true;
  }
  template <std::size_t Count>
  [[nodiscard]] bool take_bulk(std::array<Piece, Count>& pieces) {
    bool all = true;
    for (Piece& piece : pieces) all = take(0, piece) && all;
    return all;
  }
  template <std::size_t Count>
  [[nodiscard]] bool give_bulk(std::array<Piece, Count>& pieces) {
    for (Piece piece : pieces) pool_.free(piece);
    return true;
  }
  [[nodiscard]] static std::uint64_t address(Piece piece) {
    return std::bit_cast<std::uintptr_t>(piece);
  }

 private:
  boost::pool<boost::default_user_allocator_malloc_free> pool_;
};

void add_boost_pool_row(const std::string& work, std::size_t size) {
  add_row(work, "boost-pool", [=](benchmark::State& state) {
    BoostPool pool(size);
    hot_pair(state, pool, {.size = size});
  });
}

template <std::size_t Count>
void add_bulk_rows(const std::string& work) {
  add_malloc_rows(work, [](benchmark::State& state, MallocSubject&& subject) {
    hot_bulk<Count>(state, BulkMallocs(subject));
  });
  add_row(work, "boost-pool", [](benchmark::State& state) {
    BoostPool pool(slab_bulk_size);
    hot_bulk<Count>(state, pool);
  });
}

// 8 192 live pieces of 1 to 16 KiB, all sizes equally likely.
constexpr Mix small_buffers{Mix::Kind::uniform, 1024, 16384};
constexpr Fill live{.pieces = 8192};

const bool registered = [] {
  for (const std::size_t size : slab_sizes) {
    add_malloc_rows(slab_hot(size), [=](benchmark::State& state, MallocSubject&& subject) {
      hot_pair(state, std::move(subject), {.size = size});
    });
    add_boost_pool_row(slab_hot(size), size);
  }
  add_boost_pool_row("page-hot-4k", 4096);
  add_bulk_rows<4>("slab-bulk4");
  add_bulk_rows<4>("slab-bulk4-unchecked");
  add_bulk_rows<32>("slab-bulk32");
  add_bulk_rows<32>("slab-bulk32-unchecked");
  add_malloc_rows("heap-random-1k-16k", [](benchmark::State& state, MallocSubject&& subject) {
    random_replace(state, std::move(subject), small_buffers, live);
  });
  return true;
}();

}  // namespace
}  // namespace accelmm::bench
