// SPDX-License-Identifier: Apache-2.0
//
// What only some machines have: pools of huge pages, transparent huge pages for memory files, a
// second NUMA node. Each test looks for what it needs and is skipped without it; none is in the
// guest "memory" of tools/kernel-test. To have it all on a machine:
//   echo 16 > /proc/sys/vm/nr_hugepages
//   echo advise > /sys/kernel/mm/transparent_hugepage/shmem_enabled
// and hugepagesz=1G hugepages=2 and two nodes from the start of the machine.
#include "base/mapping.hpp"
#include "mm/backing/host_backing.hpp"
#include "mm/backing/huge_pages.hpp"
#include "support/census.hpp"
#include "unit/mm/backing_place.hpp"

#include <algorithm>
#include <cstring>
#include <fstream>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

namespace accelmm {
namespace {

using test::Place;

std::uint64_t read_number(const std::string& path) {
  std::ifstream file(path);
  std::uint64_t number = 0;
  file >> number;
  return number;
}

std::uint64_t free_pages(PageSize pages) {
  const auto kilobytes = largest_page(pages).value() >> 10;
  return read_number("/sys/kernel/mm/hugepages/hugepages-" + std::to_string(kilobytes) +
                     "kB/free_hugepages");
}

std::uint64_t free_on_node(int node, PageSize pages) {
  const auto kilobytes = largest_page(pages).value() >> 10;
  return read_number("/sys/devices/system/node/node" + std::to_string(node) +
                     "/hugepages/hugepages-" + std::to_string(kilobytes) + "kB/free_hugepages");
}

bool has_second_node() {
  return std::ifstream("/sys/devices/system/node/node1/meminfo").good();
}

BackingRequest request_of(PageSize pages) {
  BackingRequest request;
  request.pages = pages;
  request.rule = BackingRule::exact;
  return request;
}

/// A place with its backing, both gone in the right order.
struct Backed {
  Backed(ByteCount size, const BackingRequest& request)
      : place(size, request.pages),
        backing(HostBacking::settle(place.bytes(), request, request.pages, {}, prefaulter)) {}
  [[nodiscard]] BackingReport report() const { return backing->report(place.fd()); }
  void prefault() {
    ASSERT_TRUE(backing->prefault(prefaulter, {}).has_value());
    while (report().prefault == PrefaultState::running) std::this_thread::yield();
  }

  Prefaulter prefaulter{2};
  Place place;
  Result<HostBacking> backing;
};

class Pool : public testing::TestWithParam<PageSize> {
 protected:
  void SetUp() override {
    if (free_pages(GetParam()) < 2)
      GTEST_SKIP() << "fewer than 2 free pages of " << (largest_page(GetParam()).value() >> 20)
                   << " MiB in the kernel's pool";
  }
};
INSTANTIATE_TEST_SUITE_P(HugePages, Pool, testing::Values(PageSize::huge_2m, PageSize::huge_1g),
                         [](const auto& each) {
                           return each.param == PageSize::huge_2m ? "Of2MiB" : "Of1GiB";
                         });

TEST_P(Pool, GivesItsPagesToAPlaceAndTakesThemBack) {
  const std::uint64_t before = free_pages(GetParam());
  const ByteCount page(largest_page(GetParam()).value());
  {
    const Backed backed(page + page, request_of(GetParam()));
    ASSERT_TRUE(backed.backing.has_value()) << backed.backing.error().what;
    EXPECT_EQ(before - 2, free_pages(GetParam()));
    const BackingReport told = backed.report();
    EXPECT_EQ(GetParam(), told.pages);
    EXPECT_EQ(page, told.page_size);
    EXPECT_EQ(page + page, told.populated);
    EXPECT_EQ(PrefaultState::done, told.prefault);
    EXPECT_EQ(page + page, told.prefaulted);
    EXPECT_EQ(64U, told.sample.present);
    if (!told.refused.sample) {
      EXPECT_EQ(64U, told.sample.huge);
    }
    EXPECT_TRUE(std::ranges::all_of(backed.place.bytes().first(4096),
                                    [](std::byte b) { return b == std::byte{0}; }));
    backed.place.bytes().back() = std::byte{1};
  }
  EXPECT_EQ(before, free_pages(GetParam()));
}

TEST_P(Pool, GivesLockedMemoryThatIsInNoCoreDump) {
  BackingRequest request = request_of(GetParam());
  request.lock = MemoryLock::locked;
  request.dumps = CoreDumps::excluded;
  request.rule = BackingRule::best_effort;
  const Backed backed(ByteCount(largest_page(GetParam()).value()), request);
  ASSERT_TRUE(backed.backing.has_value());
  EXPECT_FALSE(backed.report().refused.dumps.has_value());
  if (!backed.report().refused.lock) {
    EXPECT_EQ(backed.place.bytes().size(), backed.report().locked.value());
  }
}

TEST_P(Pool, ThatIsEmptyRefusesThePlaceAndNothingIsLost) {
  const std::uint64_t before = free_pages(GetParam());
  const ByteCount page(largest_page(GetParam()).value());
  const ByteCount size(page.value() * (before + 1));
  const test::Census census = test::take_census();
  {
    const auto memfd = SealedMemfd::create("place-test", size, GetParam());
    ASSERT_TRUE(memfd.has_value());
    auto window = MemoryWindow::create(size, Backdrop::none);
    ASSERT_TRUE(window.has_value());
    const auto placed = window->place({RegionOffset(), size}, memfd->fd(), 0_B, Access::read_write);
    ASSERT_FALSE(placed.has_value()) << "overcommitted huge pages: nr_overcommit_hugepages is set";
    EXPECT_EQ(Errc::no_memory, placed.error().code);
    EXPECT_EQ(0U, window->placements());
    std::byte byte{};
    EXPECT_EQ(Errc::fault, window->read(RegionOffset(), {&byte, 1}).error().code);
  }
  EXPECT_EQ(before, free_pages(GetParam()));
  EXPECT_TRUE(census.matches(test::take_census()));
}

TEST_P(Pool, ClearedOnFreeIsCleared) {
  BackingRequest request = request_of(GetParam());
  request.zero_on_free = ZeroOnFree::yes;
  Backed backed(ByteCount(largest_page(GetParam()).value()), request);
  ASSERT_TRUE(backed.backing.has_value());
  std::memset(backed.place.bytes().data(), 7, backed.place.bytes().size());
  backed.backing->clear(backed.place.fd());
  const std::byte* const first = backed.place.bytes().data();
  EXPECT_EQ(std::byte{0}, *first);
  EXPECT_EQ(0, std::memcmp(first, first + 1, backed.place.bytes().size() - 1));
}

// Why pools are for read-only buffers unless the policy trusts everybody.
TEST_P(Pool, AHoleCannotBePunchedIntoAFileThatIsSealedReadOnly) {
  const ByteCount page(largest_page(GetParam()).value());
  auto memfd = SealedMemfd::create("place-test", page, GetParam());
  ASSERT_TRUE(memfd.has_value());
  auto window = MemoryWindow::create(page, Backdrop::none);
  ASSERT_TRUE(window.has_value());
  ASSERT_TRUE(window->place({RegionOffset(), page}, memfd->fd(), 0_B, Access::read_write));
  Prefaulter prefaulter(1);
  const std::span place(window->data(RegionOffset()), page.value());
  const auto backing =
      HostBacking::settle(place, request_of(GetParam()), GetParam(), {}, prefaulter);
  ASSERT_TRUE(backing.has_value());
  ASSERT_TRUE(memfd->seal(Sealing::fixed_size_read_only).has_value());
  const UniqueFd given = std::move(*memfd->duplicate());
  const UniqueFd reopened(
      ::open(("/proc/self/fd/" + std::to_string(given.get())).c_str(), O_RDWR | O_CLOEXEC));
  for (const int fd : {given.get(), reopened.get()}) {
    EXPECT_EQ(-1, ::fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
                              static_cast<off_t>(page.value())));
  }
  EXPECT_EQ(page, backing->report(memfd->fd()).populated);
}

TEST_P(Pool, AFileOfItIsNoImportOfOurs) {
  const ByteCount page(largest_page(GetParam()).value());
  auto memfd = SealedMemfd::create("place-test", page, GetParam());
  ASSERT_TRUE(memfd.has_value());
  ASSERT_TRUE(memfd->seal(Sealing::fixed_size).has_value());
  EXPECT_EQ(Errc::not_supported, SealedMemfd::adopt(*memfd->duplicate()).error().code);
}

TEST_P(Pool, TakesSizesInItsOwnPagesOnly) {
  const ByteCount size(largest_page(GetParam()).value() + 4096);
  EXPECT_EQ(Errc::invalid_argument,
            SealedMemfd::create("place-test", size, GetParam()).error().code);
}

TEST_P(Pool, OfEachNodeGivesItsOwnPages) {
  if (!has_second_node()) GTEST_SKIP() << "one NUMA node";
  const ByteCount page(largest_page(GetParam()).value());
  for (const int node : {0, 1}) {
    if (free_on_node(node, GetParam()) == 0) GTEST_SKIP() << "no free page on node " << node;
    const std::uint64_t before = free_on_node(node, GetParam());
    BackingRequest request = request_of(GetParam());
    request.nodes = {NodeRule::bind, {std::uint64_t{1} << node}};
    const Backed backed(page, request);
    ASSERT_TRUE(backed.backing.has_value()) << backed.backing.error().what;
    EXPECT_EQ(before - 1, free_on_node(node, GetParam()));
    EXPECT_EQ(NodeSet{std::uint64_t{1} << node}, backed.report().sample.nodes);
  }
}

// The kernel promises a pool's pages without asking on which node they are: the first touch on a
// node without any would be a SIGBUS. Making them at once turns that into an error.
TEST_P(Pool, BoundToANodeWhosePagesAreGoneIsAnErrorAndNoSignal) {
  if (!has_second_node()) GTEST_SKIP() << "one NUMA node";
  if (free_on_node(0, GetParam()) < 2) GTEST_SKIP() << "fewer than 2 free pages on node 0";
  const ByteCount page(largest_page(GetParam()).value());
  BackingRequest request = request_of(GetParam());
  request.nodes = {NodeRule::bind, {2}};
  std::vector<std::unique_ptr<Backed>> taken;
  while (free_on_node(1, GetParam()) > 0) {
    taken.push_back(std::make_unique<Backed>(page, request));
    ASSERT_TRUE(taken.back()->backing.has_value());
  }
  const Backed backed(page, request);
  ASSERT_FALSE(backed.backing.has_value());
  EXPECT_EQ(Errc::no_memory, backed.backing.error().code);
}

class Transparent : public testing::Test {
 protected:
  void SetUp() override {
    if (!check_transparent_pages())
      GTEST_SKIP() << "transparent_hugepage/shmem_enabled gives memory files no huge pages";
  }
};

TEST_F(Transparent, HugePagesAreMadeWhereTheyAreAskedFor) {
  Backed backed(64_MiB, request_of(PageSize::transparent));
  ASSERT_TRUE(backed.backing.has_value());
  backed.prefault();
  const BackingReport told = backed.report();
  EXPECT_EQ(PrefaultState::done, told.prefault);
  EXPECT_EQ(64U, told.sample.present);
  if (told.refused.sample) GTEST_SKIP() << "kernel before 6.7: huge pages cannot be counted";
  EXPECT_GT(told.sample.huge, 32U) << "unless memory is very fragmented";
}

TEST_F(Transparent, HugePagesAreNotMadeForImportableBuffers) {
  BackingRequest request = request_of(PageSize::base);
  request.importable = Importable::needed;
  Backed backed(64_MiB, request);
  ASSERT_TRUE(backed.backing.has_value());
  backed.prefault();
  EXPECT_EQ(64U, backed.report().sample.present);
  EXPECT_EQ(0U, backed.report().sample.huge);
}

class TwoNodes : public testing::Test {
 protected:
  void SetUp() override {
    if (!has_second_node()) GTEST_SKIP() << "one NUMA node";
  }
  // Where the pages of a place end up.
  [[nodiscard]] static NodeSet nodes_with(NodePolicy policy) {
    BackingRequest request = request_of(PageSize::base);
    request.nodes = policy;
    Backed backed(16_MiB, request);
    EXPECT_TRUE(backed.backing.has_value());
    backed.prefault();
    EXPECT_EQ(64U, backed.report().sample.present);
    return backed.report().sample.nodes;
  }
};

TEST_F(TwoNodes, PagesAreOnTheNodeTheyAreBoundTo) {
  EXPECT_EQ(NodeSet{1}, nodes_with({NodeRule::bind, {1}}));
  EXPECT_EQ(NodeSet{2}, nodes_with({NodeRule::bind, {2}}));
}

TEST_F(TwoNodes, PagesAreOnThePreferredNodeWhileItHasRoom) {
  EXPECT_EQ(NodeSet{2}, nodes_with({NodeRule::preferred, {2}}));
}

TEST_F(TwoNodes, InterleavedPagesAreOnBoth) {
  EXPECT_EQ(NodeSet{3}, nodes_with({NodeRule::interleave, {3}}));
}

TEST_F(TwoNodes, WhoTouchesFirstDoesNotMatter) {
  BackingRequest request = request_of(PageSize::base);
  request.nodes = {NodeRule::bind, {2}};
  const Backed backed(16_MiB, request);
  ASSERT_TRUE(backed.backing.has_value());
  // Through another mapping, as an application does.
  const auto mapping = Mapping::create(backed.place.fd(), 0, 16_MiB, PROT_READ | PROT_WRITE);
  ASSERT_TRUE(mapping.has_value());
  std::ranges::fill(mapping->bytes(), std::byte{1});
  for (std::size_t at = 0; at < backed.place.bytes().size(); at += 4096)
    ASSERT_EQ(std::byte{1}, backed.place.bytes()[at]);
  EXPECT_EQ(NodeSet{2}, backed.report().sample.nodes);
}

}  // namespace
}  // namespace accelmm
