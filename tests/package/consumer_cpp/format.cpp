// SPDX-License-Identifier: Apache-2.0
//
// A page-table format from out of tree: what a driver writes for an MMU that the library never saw.
#include <accelmm/mmu/format.hpp>

#include <cstdint>
#include <cstdio>

namespace {

using namespace accelmm;
using namespace accelmm::mmu;

/// An invented MMU: 36 bits, three hops of 256 entries of 32 bits, pages of 4 KiB and 1 MiB and
/// groups of 16 pages, each entry with its own address.
///
///     31              8 7 5  4   3    2   1   0
///    +-----------------+---+----+----+---+---+---+
///    | page >> 12      | 0 |NC  |GRP | W | L | V |  leaf: L and V are 1
///    +-----------------+---+----+----+---+---+---+
///    | table >> 12     | 0 | 0  | 0  | 0 | 0 | V |  link
///    +-----------------+---+----+----+---+---+---+
struct Tile : FormatDefaults {
  using Word = std::uint32_t;
  static constexpr unsigned hops = 3;
  static constexpr unsigned bus_bits = 36;
  static constexpr Word link = 1, leaf = 3, write = 4, group = 8, uncached = 16, flags = 0xFF;

  static constexpr unsigned shift(unsigned hop) { return 28 - 8 * hop; }
  static constexpr unsigned index_bits(unsigned) { return 8; }
  static constexpr std::uint64_t step(std::uint64_t bytes) { return bytes >> 4; }
  static constexpr std::uint64_t leaf_sizes(unsigned hop) {
    return hop == 0 ? 0 : hop == 1 ? 1U << 20 : 1U << 12 | 1U << 16;
  }
  static constexpr EntryKind classify(unsigned hop, Word entry) {
    if (entry == 0) return EntryKind::empty;
    if ((entry & flags) == link) return hop < 2 ? EntryKind::table : EntryKind::malformed;
    const bool aligned = (leaf_address(hop, entry).value() & ((1ULL << shift(hop)) - 1)) == 0;
    if ((entry & flags & ~(write | uncached | group)) != leaf || !aligned ||
        (leaf_sizes(hop) >> leaf_lg2(hop, entry) & 1) == 0)
      return EntryKind::malformed;
    return EntryKind::leaf;
  }
  static constexpr Result<Word> leaf_bits(Attributes wanted) {
    if (!is_valid(wanted.access)) return fail(Errc::invalid_argument, "no such access");
    if (wanted.access == Access::write || wanted.memory == MemoryType::device)
      return fail(Errc::not_supported, "no write-only pages, no registers");
    return leaf | (wanted.access == Access::read_write ? write : 0) |
           (wanted.memory == MemoryType::write_combined ? uncached : 0);
  }
  static constexpr Word make_leaf(unsigned hop, unsigned lg2, BusAddr target, Word bits) {
    return static_cast<Word>(target.value() >> 4) | bits | (lg2 != shift(hop) ? group : 0);
  }
  static constexpr Word make_link(unsigned, BusAddr table) {
    return static_cast<Word>(table.value() >> 4) | link;
  }
  static constexpr unsigned leaf_lg2(unsigned hop, Word entry) {
    return shift(hop) + ((entry & group) != 0 ? 4 : 0);
  }
  static constexpr BusAddr leaf_address(unsigned, Word entry) {
    return BusAddr(std::uint64_t{entry & ~flags} << 4);
  }
  static constexpr BusAddr link_address(unsigned hop, Word entry) {
    return leaf_address(hop, entry);
  }
  static constexpr Attributes attributes(unsigned, Word entry) {
    return {(entry & write) != 0 ? Access::read_write : Access::read,
            (entry & uncached) != 0 ? MemoryType::write_combined : MemoryType::write_back};
  }
};

static_assert(PteFormat<Tile>);
static_assert(Geometry<Tile>::is_regular());
static_assert(Geometry<Tile>::va_bits == 36 && Geometry<Tile>::table_bytes(0) == 1024);

int failed(const char* what) {
  std::fprintf(stderr, "consumer_cpp: %s\n", what);
  return 1;
}

}  // namespace

int main() {
  const auto bits = Tile::leaf_bits({Access::read, MemoryType::write_combined});
  if (!bits) return failed(bits.error().what);
  const auto entry = Tile::make_leaf(2, 16, BusAddr(0xF'1234'0000), *bits) + Tile::step(0x5000);
  if (entry != 0xF123'451B) return failed("a leaf has other bits");
  if (Tile::classify(2, static_cast<Tile::Word>(entry)) != EntryKind::leaf)
    return failed("a leaf is none");
  if (Tile::leaf_bits(Access::write).error().code != Errc::not_supported)
    return failed("write-only is not refused");
  return 0;
}
