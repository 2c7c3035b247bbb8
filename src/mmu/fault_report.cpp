// SPDX-License-Identifier: Apache-2.0
#include "mmu/text.hpp"

#include <accelmm/mmu/fault_report.hpp>

namespace accelmm::mmu {

namespace {

const char* name_of(EntryKind kind) {
  switch (kind) {
    case EntryKind::empty:
      return "empty";
    case EntryKind::table:
      return "table";
    case EntryKind::leaf:
      return "leaf";
    case EntryKind::malformed:
      return "malformed";
  }
  return "?";
}

const char* meaning_of(FaultReport::Covered covered) {
  switch (covered) {
    case FaultReport::Covered::nothing:
      return "nobody has this address";
    case FaultReport::Covered::mapping:
      return "mapped";
    case FaultReport::Covered::null:
      return "null mapping";
    case FaultReport::Covered::cover:
      return "nobody has this address; the default page lies there";
    case FaultReport::Covered::reservation:
      return "reserved, nothing mapped there";
    case FaultReport::Covered::unmapped:
      return "unmapped, not invalidated yet";
    case FaultReport::Covered::outside:
      return "outside the address space";
  }
  return "?";
}

}  // namespace

std::string FaultReport::text() const {
  std::string lines = "fault: asid " + std::to_string(fault.asid) + ", " + name_of(fault.access) +
                      " at " + hex(fault.address.value()) + ": " + meaning_of(covered);
  if (range) lines += " (" + text_of(*range);
  if (range && covered != Covered::reservation)
    lines += std::string(", ") + name_of(attributes.access);
  if (range) lines += ")";
  lines += "\n";
  for (const WalkStep& step : walk.steps())
    lines += "  hop " + std::to_string(step.hop) + ": table " + hex(step.table.value()) + " [" +
             std::to_string(step.index) + "] = " + hex(step.entry) + " " + name_of(step.kind) +
             "\n";
  return lines;
}

}  // namespace accelmm::mmu
