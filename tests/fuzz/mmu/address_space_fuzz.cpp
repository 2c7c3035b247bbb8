// SPDX-License-Identifier: Apache-2.0
//
// Bytes as operations on an address space: an opcode byte, then its arguments. An operation that
// the space refuses is judged and passed over; the run ends with the input. The space begins 8 MiB
// below a boundary of hop 0.
#include "fuzz/mmu/input.hpp"
#include "property/mmu/judged_space.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <span>

namespace {

using accelmm::Access;
using accelmm::DeviceAddr;
using accelmm::mmu::Placement;
using accelmm::mmu::test::Input;
using accelmm::mmu::test::JudgedSpace;
using accelmm::mmu::test::run;
using accelmm::mmu::test::Runs;

constexpr std::uint64_t page = JudgedSpace::page;
constexpr std::uint64_t large = JudgedSpace::large;
constexpr std::uint64_t begin = (std::uint64_t{1} << 48) - 4 * large;
constexpr std::uint64_t end = begin + 12 * large;

// Up to 4 runs of up to 1023 pages each, three bytes for each: where, how long, and where the next
// one begins.
Runs take_runs(Input& input) {
  Runs runs;
  std::uint64_t bus = 0;
  for (std::uint64_t left = 1 + input.byte() % 4; left > 0; --left) {
    const std::uint64_t shape = input.byte();
    const std::uint64_t pages = input.pair() % 1024;
    if ((shape & 1) != 0) bus = (bus + large) / large * large;
    bus += (shape >> 1) % 16 * page;
    const std::uint64_t oddness =
        shape >= 0xF0 ? 0x200 : 0;  // seldom no whole page, or no page at all
    runs.push_back(run(bus + oddness, (pages == 0 && shape < 0xE0 ? 1 : pages) * page));
    bus += pages * page;
  }
  return runs;
}

bool well_formed(const Runs& runs) {
  for (const auto& one : runs)
    if (one.length.value() == 0 || one.address.value() % page != 0) return false;
  return true;
}

void map(JudgedSpace& space, Input& input) {
  const std::uint64_t choice = input.byte();
  const std::uint64_t va = begin + input.pair() * page + ((choice & 0xC0) == 0xC0 ? 0x80 : 0);
  const auto kind = static_cast<Placement::Kind>(choice % 3);
  const auto access = static_cast<Access>(1 + choice / 3 % 3);
  const Runs runs = take_runs(input);
  if (well_formed(runs))
    space.map(runs, {kind, DeviceAddr(va)}, access);
  else
    space.refuse(runs, {kind, DeviceAddr(va)}, access);
}

void unmap(JudgedSpace& space, Input& input) {
  const std::uint64_t which = input.byte();
  if (space.mappings().empty() || which >= 0xF0)
    space.unmap(begin + input.pair() * page);
  else
    space.unmap(std::next(space.mappings().begin(),
                          static_cast<std::ptrdiff_t>(which % space.mappings().size()))
                    ->first);
}

void remap(JudgedSpace& space, Input& input) {
  const std::uint64_t which = input.byte();
  const Runs runs = take_runs(input);
  if (space.mappings().empty() || !well_formed(runs)) return;
  const auto& [start, mapping] = *std::next(
      space.mappings().begin(), static_cast<std::ptrdiff_t>(which % space.mappings().size()));
  // As long as it is, or as long as the input says.
  if (which >= 0xF0) {
    space.remap(start, runs);
    return;
  }
  Runs fitting;
  std::uint64_t left = mapping.length;
  for (const auto& one : runs) {
    const std::uint64_t length = std::min(left, one.length.value());
    if (length > 0) fitting.push_back(run(one.address.value(), length));
    left -= length;
  }
  if (left > 0) fitting.push_back(run(std::uint64_t{1} << 40, left));
  space.remap(start, fitting);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Input input({data, size});
  JudgedSpace space(24, {DeviceAddr(begin), DeviceAddr(end)});
  while (!input.empty()) {
    switch (input.byte() % 8) {
      case 0:
      case 1:
      case 2:
        map(space, input);
        break;
      case 3:
      case 4:
        unmap(space, input);
        break;
      case 5:
        if (space.pending() > 0) space.release_one(input.byte() % space.pending());
        break;
      case 6:
        remap(space, input);
        break;
      default:
        space.translate(begin - page + input.pair() * 0x400);
    }
  }
  space.judge_everything();
  return 0;
}
