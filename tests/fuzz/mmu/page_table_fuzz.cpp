// SPDX-License-Identifier: Apache-2.0
//
// Bytes as operations on a tree of page tables: the first byte picks the format, then an opcode byte
// and its arguments each. What the tree refuses is judged and passed over; the run ends with the
// input. The window lies around a place where the tables of each hop change.
#include "fuzz/mmu/input.hpp"
#include "property/mmu/judged_tree.hpp"

#include <accelmm/mmu/aarch64.hpp>
#include <accelmm/mmu/amd_iommu.hpp>
#include <accelmm/mmu/hopper.hpp>
#include <accelmm/mmu/npu1.hpp>
#include <accelmm/mmu/riscv.hpp>
#include <accelmm/mmu/rockchip.hpp>
#include <accelmm/mmu/x86_64.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace {

using accelmm::Access;
using accelmm::DeviceAddr;
using namespace accelmm::mmu;
using test::Input;
using test::JudgedTree;
using test::run;
using test::Runs;

template <PteFormat F>
class FuzzedTree {
  static constexpr std::uint64_t page = Geometry<F>::page_size;
  static constexpr std::uint64_t window_pages = 8192;
  static constexpr std::uint64_t begin =
      (std::uint64_t{1} << (Geometry<F>::va_bits - 1)) - window_pages / 2 * page;

 public:
  explicit FuzzedTree(Input& input)
      : input_(input),
        tree_(24 + static_cast<std::uint32_t>(input.byte()),
              {DeviceAddr(begin), DeviceAddr(begin + window_pages * page)}) {}

  void run_all() {
    for (int steps = 0; !input_.empty() && steps < 400; ++steps) step();
    tree_.judge_everything();
  }

 private:
  void step() {
    switch (input_.byte() % 12) {
      case 0:
      case 1:
      case 2:
        map();
        break;
      case 3:
      case 4: {
        const auto [from, to] = some_range();
        tree_.unmap(from, to, some_rule());
        break;
      }
      case 5: {
        const auto [from, to] = some_range();
        const Attributes attributes = some_attributes();
        if (F::leaf_bits(attributes)) tree_.protect(from, to, attributes, some_rule());
        break;
      }
      case 6: {
        const auto [from, to] = some_range();
        tree_.split(from, to);
        break;
      }
      case 7: {
        const auto [from, to] = some_range();
        tree_.merge(from, to);
        break;
      }
      case 8:
        tree_.release_all();
        break;
      case 9: {
        const auto [from, to] = some_range();
        tree_.prepare_and_drop(from, to - from);
        break;
      }
      case 10:
        // Each looks at every page: an input of nothing else would take minutes.
        if (judgements_++ < 8) tree_.judge_everything();
        break;
      default:
        tree_.translate(begin + input_.pair() % window_pages * page + input_.byte() % page);
    }
  }

  void map() {
    const std::uint64_t choice = input_.byte();
    std::uint64_t va = input_.pair() % window_pages;
    Runs runs;
    // In pages; aligned to a power of two where a bit of the choice says so.
    std::uint64_t bus = input_.byte() << (choice % 16 / 2);
    std::uint64_t left = window_pages - va;
    for (std::uint64_t count = 1 + choice / 64; count > 0 && left > 0; --count) {
      const std::uint64_t length = std::min(left, 1 + input_.pair() % 2048);
      runs.push_back(run(bus * page, length * page));
      left -= length;
      bus += length + (choice % 2) * input_.byte();
    }
    const Attributes attributes = some_attributes();
    if ((choice & 32) != 0)
      tree_.map_prepared(begin + va * page, runs, attributes);
    else
      tree_.map(begin + va * page, runs, attributes);
  }

  struct Pages {
    std::uint64_t from;
    std::uint64_t to;
  };
  Pages some_range() {
    const std::uint64_t first = input_.pair() % window_pages;
    const std::uint64_t count = 1 + input_.pair() % (window_pages - first);
    return {begin + first * page, begin + (first + count) * page};
  }
  RangeRule some_rule() {
    const std::uint64_t bits = input_.byte();
    constexpr std::array edges{Edges::refuse, Edges::split, Edges::whole};
    return {edges[bits % 3], bits / 3 % 2 == 0 ? Gaps::refuse : Gaps::skip};
  }
  Attributes some_attributes() {
    const std::uint64_t bits = input_.byte();
    constexpr std::array all{Access::read_write, Access::read, Access::write};
    return {all[bits % 3], static_cast<MemoryType>(bits / 3 % 3)};
  }

  Input& input_;
  int judgements_ = 0;
  JudgedTree<F> tree_;
};

template <PteFormat F>
void fuzz(Input& input) {
  FuzzedTree<F>(input).run_all();
}

constexpr std::array formats{
    fuzz<Npu1>,          fuzz<X86_64<4>>,  fuzz<AArch64<12, 48>>,         fuzz<AArch64<16, 42>>,
    fuzz<AmdIommuV1<3>>, fuzz<RockchipV2>, fuzz<RiscV<48, Svnapot::yes>>, fuzz<Hopper>,
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Input input({data, size});
  formats[input.byte() % formats.size()](input);
  return 0;
}
