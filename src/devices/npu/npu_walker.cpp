// SPDX-License-Identifier: Apache-2.0
#include "npu_walker.hpp"

#include <array>
#include <cstddef>
#include <optional>

namespace accelmm::sim {
namespace {

constexpr std::uint32_t hops = 5;
constexpr std::uint32_t last_level = hops - 1;
constexpr std::uint32_t big_leaf_level = 3;
constexpr std::array<unsigned, hops> index_shift{48, 39, 30, 21, 12};
constexpr std::array<unsigned, hops> index_width{2, 9, 9, 9, 9};

constexpr std::uint64_t bit_present = 0x001;
constexpr std::uint64_t bit_read = 0x008;
constexpr std::uint64_t bit_write = 0x010;
constexpr std::uint64_t bit_last = 0x800;
constexpr std::uint64_t address_field = ~std::uint64_t{0xFFF};

struct Entry {
  enum class Kind : std::uint8_t { empty, link, leaf, malformed } kind;
  std::uint64_t address;
};

Entry decode(std::uint32_t level, std::uint64_t word) {
  using enum Entry::Kind;
  const std::uint64_t address = word & address_field;
  const std::uint64_t control = word & ~address_field;
  if (word == 0) return {empty, 0};
  if ((control & bit_present) == 0) return {malformed, 0};
  if ((control & bit_last) == 0) {
    // A link carries nothing but its address, and there is no hop below the last one.
    return {level < last_level && control == bit_present ? link : malformed, address};
  }
  if ((control & ~(bit_present | bit_read | bit_write | bit_last)) != 0) return {malformed, 0};
  if (level < big_leaf_level) return {malformed, 0};
  const std::uint64_t offset_mask = (std::uint64_t{1} << index_shift[level]) - 1;
  return {(address & offset_mask) == 0 ? leaf : malformed, address};
}

std::optional<std::uint64_t> read_word(BusPort& bus, BusAddr address) {
  std::array<std::byte, 8> bytes;
  if (!bus.read(address, bytes)) return std::nullopt;
  std::uint64_t word = 0;  // little-endian, whatever the CPU that runs this model is
  for (std::size_t i = bytes.size(); i-- > 0;)
    word = word << 8 | std::to_integer<std::uint64_t>(bytes[i]);
  return word;
}

BusAddr entry_address(std::uint32_t level, BusAddr table, DeviceAddr address) {
  const std::uint64_t mask = (std::uint64_t{1} << index_width[level]) - 1;
  const std::uint64_t index = address.value() >> index_shift[level] & mask;
  return table + ByteCount(index * sizeof(std::uint64_t));
}

}  // namespace

NpuWalker::Walk NpuWalker::walk(BusAddr root, DeviceAddr address) const {
  return walk_from(0, root, address);
}

NpuWalker::Walk NpuWalker::walk_last(BusAddr last_table, DeviceAddr address) const {
  return walk_from(last_level, last_table, address);
}

NpuWalker::Walk NpuWalker::walk_from(std::uint32_t level, BusAddr table, DeviceAddr address) const {
  Walk walk{.result = {}, .reads = 0, .has_last_table = false, .last_table = BusAddr(0)};
  const auto fault = [&walk](std::uint32_t at, NpuFaultKind kind) {
    walk.result = std::unexpected(NpuWalkFault{at, kind});
    return walk;
  };
  for (;; ++level) {
    if (level == last_level) {
      walk.has_last_table = true;
      walk.last_table = table;
    }
    const BusAddr at = entry_address(level, table, address);
    const auto word = read_word(bus_, at);
    if (!word) return fault(level, NpuFaultKind::bus_error);
    ++walk.reads;
    const Entry entry = decode(level, *word);
    switch (entry.kind) {
      case Entry::Kind::empty:
        return fault(level, NpuFaultKind::not_present);
      case Entry::Kind::malformed:
        return fault(level, NpuFaultKind::malformed_entry);
      case Entry::Kind::leaf:
        walk.result = NpuLeaf{.memory = BusAddr(entry.address),
                              .entry = at,
                              .size = std::uint64_t{1} << index_shift[level],
                              .level = level,
                              .readable = (*word & bit_read) != 0,
                              .writable = (*word & bit_write) != 0};
        return walk;
      case Entry::Kind::link:
        table = BusAddr(entry.address);
        break;
    }
  }
}

}  // namespace accelmm::sim
