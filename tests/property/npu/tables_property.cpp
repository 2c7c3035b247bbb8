// SPDX-License-Identifier: Apache-2.0
//
// The page tables that the framework writes, judged by the walker of the hardware that reads them:
// after each of many random maps and unmaps, the model's own walk must find what a plain map of
// pages says, permissions included.
#include "devices/npu/npu_walker.hpp"

#include <accelmm/mmu/address_space.hpp>
#include <accelmm/mmu/npu1.hpp>

#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <random>
#include <vector>

#include <gtest/gtest.h>

namespace accelmm {
namespace {

constexpr std::uint64_t page = 4096;
constexpr std::uint64_t big_page = 512 * page;
constexpr std::uint64_t pool_bytes = 8 << 20;

std::uint64_t from_environment(const char* name, std::uint64_t otherwise) {
  const char* given = std::getenv(name);
  return given != nullptr ? std::strtoull(given, nullptr, 0) : otherwise;
}

/// The private memory that holds the tables, as the hardware sees it.
class TableMemory final : public BusPort {
 public:
  TableMemory() : tables_(pool_bytes / page) {}
  [[nodiscard]] std::byte* data() { return tables_.front().bytes.data(); }

  Result<void> read(BusAddr address, std::span<std::byte> into) override {
    if (address < begin || into.size() > pool_bytes ||
        (address - begin).value() > pool_bytes - into.size())
      return fail(Errc::fault, "walker left the tables");
    std::memcpy(into.data(), data() + (address - begin).value(), into.size());
    return {};
  }
  Result<void> write(BusAddr, std::span<const std::byte>) override {
    return fail(Errc::fault, "walkers do not write");
  }

  static constexpr BusAddr begin{page};

 private:
  struct alignas(page) Table {
    std::array<std::byte, page> bytes{};
  };
  std::vector<Table> tables_;
};

class JudgedByTheWalker {
 public:
  explicit JudgedByTheWalker(std::uint64_t seed)
      : random_(seed),
        pool_(*mmu::TablePool::create({TableMemory::begin, ByteCount(pool_bytes), memory_.data()})),
        space_(*mmu::make_address_space<mmu::Npu1>(pool_, range)) {}
  ~JudgedByTheWalker() {
    space_->unmap_all().release(mmu::InvalidationDone::never_shown());
    space_.reset();
    EXPECT_EQ(0U, pool_.tables_in_use());
  }

  void step() {
    const bool worked = random_() % 5 < 3 ? map() : unmap();
    ++steps_;
    if (worked) ++successes_;
    judge();
  }
  void validate() const { space_->validate(); }
  [[nodiscard]] std::uint64_t successes() const { return successes_; }
  [[nodiscard]] std::uint64_t big_leaves_seen() const { return big_leaves_seen_; }

 private:
  struct Page {
    std::uint64_t bus;
    Access access;
  };
  // Few tables and many borders: 1 GiB that begins 8 MiB below a border of the second hop.
  static constexpr Range<DeviceAddr> range{DeviceAddr((std::uint64_t{1} << 39) - (8 << 20)),
                                           DeviceAddr((std::uint64_t{1} << 39) + (1016 << 20))};

  std::vector<Run> random_runs() {
    std::vector<Run> runs;
    const auto count = 1 + random_() % 3;
    for (std::uint64_t i = 0; i < count; ++i) {
      const bool big = random_() % 8 == 0;
      const std::uint64_t bus = big ? random_() % 4096 * big_page : random_() % (1 << 21) * page;
      const std::uint64_t pages = big ? 512 * (1 + random_() % 2) : 1 + random_() % 12;
      runs.push_back({BusAddr(bus), ByteCount(pages * page)});
    }
    return runs;
  }

  bool map() {
    const auto runs = random_runs();
    const auto access = static_cast<Access>(1 + random_() % 3);
    mmu::Placement placement;
    if (random_() % 4 == 0)
      placement = {mmu::Placement::Kind::fixed,
                   range.begin + ByteCount(random_() % (range.size().value() / page) * page)};
    const auto mapped = space_->map(runs, placement, access);
    if (!mapped) return false;
    std::uint64_t va = mapped->range.begin.value();
    starts_.push_back(va);
    for (const Run& run : runs) {
      for (std::uint64_t at = 0; at < run.length.value(); at += page, va += page)
        EXPECT_TRUE(pages_.emplace(va, Page{run.address.value() + at, access}).second);
    }
    EXPECT_EQ(mapped->range.end.value(), va);
    lengths_[mapped->range.begin.value()] = mapped->range.size().value();
    return true;
  }

  bool unmap() {
    if (starts_.empty()) return false;
    const std::size_t chosen = random_() % starts_.size();
    const std::uint64_t start = starts_[chosen];
    starts_[chosen] = starts_.back();
    starts_.pop_back();
    auto gone = space_->unmap(DeviceAddr(start));
    if (!gone) return false;
    std::move(*gone).release(mmu::InvalidationDone::never_shown());
    const auto length = lengths_.extract(start).mapped();
    pages_.erase(pages_.lower_bound(start), pages_.lower_bound(start + length));
    return true;
  }

  // A few pages anywhere, and a few that are mapped.
  void judge() {
    for (int i = 0; i < 4; ++i)
      judge_page(range.begin.value() + random_() % (range.size().value() / page) * page);
    for (int i = 0; i < 4 && !pages_.empty(); ++i) {
      const auto found = pages_.lower_bound(range.begin.value() +
                                            random_() % (range.size().value() / page) * page);
      if (found != pages_.end()) judge_page(found->first);
    }
  }

  void judge_page(std::uint64_t va) {
    const std::uint64_t inside = random_() % page;
    const auto walk = walker_.walk(space_->root(), DeviceAddr(va + inside));
    const auto expected = pages_.find(va);
    if (expected == pages_.end()) {
      ASSERT_FALSE(walk.result) << std::hex << va;
      ASSERT_EQ(sim::NpuFaultKind::not_present, walk.result.error().kind);
      return;
    }
    ASSERT_TRUE(walk.result) << std::hex << va;
    const sim::NpuLeaf& leaf = *walk.result;
    ASSERT_EQ(expected->second.bus + inside, leaf.memory.value() + (va + inside) % leaf.size);
    ASSERT_EQ(allows(expected->second.access, Access::read), leaf.readable);
    ASSERT_EQ(allows(expected->second.access, Access::write), leaf.writable);
    if (leaf.size == big_page) ++big_leaves_seen_;
  }

  std::mt19937_64 random_;
  TableMemory memory_;
  mmu::TablePool pool_;
  std::unique_ptr<mmu::AddressSpace> space_;
  sim::NpuWalker walker_{memory_};
  std::map<std::uint64_t, Page> pages_;
  std::map<std::uint64_t, std::uint64_t> lengths_;
  std::vector<std::uint64_t> starts_;
  std::uint64_t steps_ = 0;
  std::uint64_t successes_ = 0;
  std::uint64_t big_leaves_seen_ = 0;
};

TEST(Tables, MeanToTheWalkerOfTheModelWhatWasMapped) {
  const std::uint64_t seed = from_environment("ACCELMM_SEED", 20221103);
  const std::uint64_t steps = from_environment("ACCELMM_STEPS", 100'000);
  std::fprintf(stderr, "ACCELMM_SEED=%llu ACCELMM_STEPS=%llu\n",
               static_cast<unsigned long long>(seed), static_cast<unsigned long long>(steps));
  JudgedByTheWalker tables(seed);
  for (std::uint64_t i = 0; i < steps && !testing::Test::HasFatalFailure(); ++i) {
    tables.step();
    if (i % 2048 == 0) tables.validate();
  }
  std::fprintf(stderr, "%llu of %llu operations worked; %llu pages seen in leaves of 2 MiB\n",
               static_cast<unsigned long long>(tables.successes()),
               static_cast<unsigned long long>(steps),
               static_cast<unsigned long long>(tables.big_leaves_seen()));
  EXPECT_GE(tables.successes() * 2, steps);
  EXPECT_GT(tables.big_leaves_seen(), steps / 100);
}

}  // namespace
}  // namespace accelmm
