// SPDX-License-Identifier: Apache-2.0
//
// Threads that map and unmap ranges of their own in one tree at the same time, dense, so that they
// share tables at every hop, while others read; after each round the tree says what a model says.
#include "property/mm/steps.hpp"
#include "property/mmu/interval_model.hpp"
#include "unit/mmu/tables_fixture.hpp"

#include <accelmm/mmu/aarch64.hpp>
#include <accelmm/mmu/hopper.hpp>
#include <accelmm/mmu/npu1.hpp>
#include <accelmm/mmu/page_table.hpp>
#include <accelmm/mmu/x86_64.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

namespace accelmm::mmu {
namespace {

using accelmm::test::Dice;
using accelmm::test::number_from_environment;
using test::IntervalModel;
using test::release;
using test::run;
using test::Runs;
using test::Tables;

struct Nothing {
  void operator()(Range<DeviceAddr>) const {}
};

/// One tree; each thread has every fourth piece of a window around a place where the tables of each
/// hop change. Pieces begin and end anywhere, most of them small.
template <class F>
class ParallelTree {
  using G = Geometry<F>;
  using Tree = PageTable<F, TablePool>;
  static constexpr std::uint64_t page = G::page_size;
  static constexpr unsigned writers = 3;
  static constexpr std::uint64_t window_pages = 4096;
  static constexpr std::uint64_t begin =
      (std::uint64_t{1} << (G::va_bits - 1)) - window_pages / 2 * page;
  // Congruent as far as most leaves ask; the last pages before the window are always mapped.
  static constexpr std::uint64_t bus_begin = 0;
  static constexpr std::uint64_t always_pages = 3;

 public:
  explicit ParallelTree(Dice& dice) : dice_(dice) {
    map(begin - always_pages * page, always_pages * page);
  }
  ~ParallelTree() { release(tree_.detach_all()); }
  ParallelTree(const ParallelTree&) = delete;
  ParallelTree& operator=(const ParallelTree&) = delete;

  void do_round() {
    cut_into_pieces();
    std::atomic<bool> stop{false};
    std::thread reader([&] { read_until(stop); });
    std::vector<std::thread> threads;
    for (unsigned i = 0; i < writers; ++i)
      threads.emplace_back([this, i, seed = dice_.roll(~std::uint64_t{0})] { work(i, seed); });
    for (auto& thread : threads) thread.join();
    stop = true;
    reader.join();
    // Everything that began before has ended: that is when tables may be used again.
    for (Worker& worker : workers_) {
      for (auto& gone : worker.gone) release(std::move(gone));
      worker.gone.clear();
    }
    judge();
  }

 private:
  struct Piece {
    std::uint64_t begin;
    std::uint64_t end;
    bool mapped = false;
  };
  struct Worker {
    std::vector<Piece> pieces;
    std::vector<Detached<TablePool>> gone;
  };

  [[nodiscard]] static std::uint64_t bus_of(std::uint64_t va) {
    return (va - begin) + bus_begin + always_pages * page;
  }
  bool map(std::uint64_t va, std::uint64_t length) {
    return tree_.map(DeviceAddr(va), Runs{run(bus_of(va), length)}, Access::read_write).has_value();
  }

  // What is mapped goes first, so that pieces may lie elsewhere.
  void cut_into_pieces() {
    for (Worker& worker : workers_) {
      for (const Piece& piece : worker.pieces)
        if (piece.mapped) take_away(worker, piece.begin, piece.end);
      for (auto& gone : worker.gone) release(std::move(gone));
      worker = {};
    }
    std::uint64_t at = begin;
    for (unsigned i = 0; at < begin + window_pages * page; ++i) {
      const std::uint64_t most = begin + window_pages * page - at;
      const std::uint64_t pages = 1 + dice_.roll(1 + dice_.roll(dice_.roll(8) == 0 ? 1200 : 12));
      const std::uint64_t length = std::min(most, pages * page);
      workers_[i % writers].pieces.push_back({at, at + length});
      at += length;
    }
  }

  void work(unsigned number, std::uint64_t seed) {
    Worker& worker = workers_[number];
    std::mt19937_64 random(seed);
    for (int i = 0; i < 60; ++i) {
      Piece& piece = worker.pieces[random() % worker.pieces.size()];
      if (!piece.mapped) {
        piece.mapped =
            random() % 4 == 0 ? map_prepared(piece) : map(piece.begin, piece.end - piece.begin);
        if (piece.mapped) expect_mapped(piece);
      } else if (random() % 4 == 0) {
        (void)tree_.split({DeviceAddr(piece.begin), DeviceAddr(piece.end)}, Nothing());
        expect_mapped(piece);
      } else {
        take_away(worker, piece.begin, piece.end);
        piece.mapped = false;
        if (tree_.translate(DeviceAddr(piece.begin)).has_value()) ++wrong_;
      }
    }
  }
  bool map_prepared(const Piece& piece) {
    auto prepared =
        tree_.prepare({DeviceAddr(piece.begin), DeviceAddr(piece.end)}, Access::read_write);
    if (!prepared) return false;
    tree_.commit(std::move(*prepared), Runs{run(bus_of(piece.begin), piece.end - piece.begin)});
    return true;
  }
  void take_away(Worker& worker, std::uint64_t from, std::uint64_t to) {
    auto gone = tree_.unmap({DeviceAddr(from), DeviceAddr(to)});
    if (gone)
      worker.gone.push_back(std::move(*gone));
    else
      ++wrong_;
  }
  void expect_mapped(const Piece& piece) {
    for (const std::uint64_t va : {piece.begin, piece.end - 1}) {
      const auto found = tree_.translate(DeviceAddr(va));
      if (!found || found->address.value() != bus_of(va)) ++wrong_;
    }
  }

  // Leaves that nobody touches, in tables that everybody does.
  void read_until(const std::atomic<bool>& stop) {
    while (!stop) {
      expect_mapped({begin - always_pages * page, begin});
      std::this_thread::yield();
    }
  }

  void judge() {
    ASSERT_EQ(wrong_, 0u);
    tree_.validate();
    tables_.pool().validate();
    ASSERT_EQ(tables_.pool().tables_in_use(), tree_.tables());
    IntervalModel model;
    model.insert(begin - always_pages * page, always_pages * page, 0, {});
    for (const Worker& worker : workers_)
      for (const Piece& piece : worker.pieces)
        if (piece.mapped)
          model.insert(piece.begin, piece.end - piece.begin, bus_of(piece.begin), {});
    std::uint64_t in_leaves = 0;
    tree_.for_each_leaf([&](const Leaf& leaf) {
      in_leaves += leaf.size.value();
      for (const std::uint64_t inside : {std::uint64_t{0}, leaf.size.value() - 1}) {
        const auto meaning = model.at(leaf.va.value() + inside);
        ASSERT_TRUE(meaning.has_value());
        ASSERT_EQ(meaning->bus, leaf.address.value() + inside);
      }
    });
    ASSERT_EQ(in_leaves, model.mapped(0, ~std::uint64_t{0}));
  }

  Dice& dice_;
  Tables tables_{1500, G::largest_table(),
                 F::bus_bits > 32 ? Tables::bus_begin : Tables::low_bus_begin};
  Tree tree_{std::move(*Tree::create(tables_.pool()))};
  std::array<Worker, writers> workers_;
  std::atomic<unsigned> wrong_{0};
};

template <class F>
class ParallelTest : public ::testing::Test {};
using Formats = ::testing::Types<Npu1, X86_64<4>, AArch64<12, 48>, Hopper>;
TYPED_TEST_SUITE(ParallelTest, Formats);

TYPED_TEST(ParallelTest, ThreadsWithRangesApartShareTheTablesOfOneTree) {
  Dice dice("parallel");
  ParallelTree<TypeParam> tree(dice);
  const std::uint64_t rounds =
      std::min<std::uint64_t>(number_from_environment("ACCELMM_STEPS", 20'000) / 500, 200);
  for (std::uint64_t i = 0; i < rounds; ++i) ASSERT_NO_FATAL_FAILURE(tree.do_round());
}

}  // namespace
}  // namespace accelmm::mmu
