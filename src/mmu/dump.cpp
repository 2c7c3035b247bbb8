// SPDX-License-Identifier: Apache-2.0
#include "mmu/text.hpp"

#include <accelmm/mmu/dump.hpp>

#include <array>
#include <bit>

namespace accelmm::mmu {

namespace {

using Memory = MappedStretch::Memory;

// Joins a leaf with the stretch before it, or answers no.
bool join(MappedStretch& last, const Leaf& leaf) {
  if (leaf.va != last.range.end || leaf.attributes != last.attributes) return false;
  const ByteCount length = last.range.size();
  const bool is_first = last.leaf_sizes == length.value();  // one leaf so far
  if (last.memory == Memory::continuous && leaf.address == last.address + length) {
  } else if (leaf.address == last.address && last.leaf_sizes == leaf.size.value() &&
             (is_first || last.memory == Memory::repeated)) {
    last.memory = Memory::repeated;
  } else {
    return false;
  }
  last.range.end += leaf.size;
  last.leaf_sizes |= leaf.size.value();
  return true;
}

std::string size_text(std::uint64_t bytes) {
  constexpr std::array units{"", "K", "M", "G", "T", "P", "E"};
  const auto unit = static_cast<unsigned>(std::countr_zero(bytes)) / 10;
  return std::to_string(bytes >> (10 * unit)) + units[unit];
}

}  // namespace

std::vector<MappedStretch> stretches(const AddressSpace& space, Range<DeviceAddr> range) {
  std::vector<MappedStretch> found;
  space.for_each_leaf(range, [&found](const Leaf& leaf) {
    if (!found.empty() && join(found.back(), leaf)) return;
    found.push_back({{leaf.va, leaf.va + leaf.size},
                     leaf.address,
                     Memory::continuous,
                     leaf.attributes,
                     leaf.size.value()});
  });
  return found;
}

std::string dump(const AddressSpace& space, Range<DeviceAddr> range) {
  std::string lines;
  for (const MappedStretch& stretch : stretches(space, range)) {
    const bool repeated = stretch.memory == Memory::repeated;
    const ByteCount length = repeated ? ByteCount(stretch.leaf_sizes) : stretch.range.size();
    lines += text_of(stretch.range) + " -> " +
             text_of(Range<BusAddr>{stretch.address, stretch.address + length}) +
             (repeated ? " again and again " : " ") + name_of(stretch.attributes.access) + " " +
             name_of(stretch.attributes.memory);
    for (std::uint64_t sizes = stretch.leaf_sizes; sizes != 0; sizes &= sizes - 1) {
      lines += ' ';
      lines += size_text(sizes & (~sizes + 1));
    }
    lines += '\n';
  }
  return lines;
}

}  // namespace accelmm::mmu
