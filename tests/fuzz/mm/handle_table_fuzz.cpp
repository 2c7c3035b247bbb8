// SPDX-License-Identifier: Apache-2.0
//
// Input: a byte for the capacity, then (operation, argument) byte pairs. Handles are live ones, stale
// ones, and live ones with a bit flipped; the model judges what must be refused, and what a pin keeps.
#include "property/mm/handle_model.hpp"

#include <cstddef>
#include <cstdint>
#include <span>

namespace {

using accelmm::test::JudgedHandles;

/// Spreads one byte over the type and generation fields, by which the model's map is ordered.
std::uint64_t spread(std::uint8_t argument) {
  return argument * 0x0123'4567'89ab'cdefULL;
}

void step(JudgedHandles& handles, std::uint8_t operation, std::uint8_t argument) {
  const std::uint64_t live = handles.live_from(spread(argument));
  const std::uint64_t any = handles.any_from(spread(argument));
  const std::uint64_t forged = live ^ (std::uint64_t{1} << (operation / 8 * 2 + argument % 2));
  const auto type_of = [](std::uint64_t raw) { return static_cast<std::uint8_t>(raw >> 56); };
  switch (operation % 8) {
    case 0:
      handles.insert(argument);
      return;
    case 1:
      handles.remove(live, operation < 8 ? argument : type_of(live));
      return;
    case 2:
      if (operation < 64)
        handles.remove(any, type_of(any));
      else
        handles.find(any, type_of(any));
      return;
    case 3:
      handles.pin(operation < 64 ? any : live, type_of(operation < 64 ? any : live));
      return;
    case 4:
      handles.unpin(argument);
      return;
    case 5:
      handles.withdraw(operation < 64 ? any : live, type_of(operation < 64 ? any : live));
      return;
    case 6:
      handles.pin(forged, type_of(forged));
      handles.withdraw(forged, type_of(forged));
      return;
    default:
      handles.find(forged, type_of(forged));
      handles.remove(forged, type_of(forged));
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::span<const std::uint8_t> input(data, size);
  if (input.size() < 3) return 0;
  JudgedHandles handles(1U + input[0]);
  for (std::size_t i = 1; i + 1 < input.size(); i += 2) step(handles, input[i], input[i + 1]);
  return 0;
}
