// SPDX-License-Identifier: Apache-2.0
#include "devices/shortage_report.hpp"

#include "base/clock.hpp"

#include <algorithm>
#include <array>
#include <cinttypes>
#include <cstdio>
#include <new>
#include <span>
#include <utility>

namespace accelmm::devices {
namespace {

// Who holds most is who could help; a line with all of them would be read by nobody.
constexpr std::size_t named_owners = 3;

template <class... Values>
void append(std::string& text, const char* format, Values... values) {
  char piece[192];
  std::snprintf(piece, sizeof piece, format, values...);
  text += piece;
}

accelmm_shortage_owner wire_owner(const Shortage::Owner& owner) {
  return {.session = owner.name.number,
          .uid = owner.above.number,
          .held = owner.held.value(),
          .peak = owner.peak.value(),
          .requested = owner.requested.value(),
          .pending = owner.pending.value(),
          .allocations = owner.allocations,
          .ended = owner.closed ? 1U : 0U,
          .reserved = 0};
}

}  // namespace

const char* errno_name(Errc code) {
  return code == Errc::over_quota ? "EDQUOT" : "ENOMEM";
}

std::string shortage_line(const FailedRequest& failed, const Shortage& shortage) {
  std::string line;
  append(line, "session %" PRIu64 " of uid %u got %s for %" PRIu64 " bytes of device memory (%s)",
         failed.session, failed.uid, errno_name(failed.error.code), shortage.wanted.value(),
         failed.error.what);
  append(line, ": free %" PRIu64 " of %" PRIu64 ", longest run %" PRIu64 ", quota left %" PRIu64,
         shortage.free.value(), (shortage.total - shortage.reserved).value(),
         shortage.largest_free.value(), shortage.quota_left.value());
  if (shortage.moves_to_make > ByteCount(0))
    append(line, ", to move for one run %" PRIu64, shortage.moves_to_make.value());
  const std::size_t named = std::min(shortage.owner_count, named_owners);
  for (std::size_t i = 0; i < named; ++i) {
    const Shortage::Owner& owner = shortage.owners[i];
    append(line, "%s session %" PRIu64 " of uid %" PRIu64 "%s %" PRIu64, i == 0 ? "; held by" : ",",
           owner.name.number, owner.above.number, owner.closed ? " (ended)" : "",
           owner.held.value());
  }
  const std::size_t others = shortage.owner_count - named + shortage.other_owners;
  if (others > 0) append(line, " and %zu more", others);
  return line;
}

void ShortageLog::add(const FailedRequest& failed, const Region& memory) noexcept {
  if (!log_) return;
  if (failed.time_ns < next_ns_) {
    ++held_back_;
    return;
  }
  try {
    std::string line;
    append(line, "accel%u: ", device_);
    line += shortage_line(failed, memory.explain(failed.request, failed.owner));
    if (held_back_ > 0) append(line, "; %" PRIu64 " more since the last such line", held_back_);
    log_(line);
  } catch (const std::bad_alloc&) {
    ++held_back_;
    return;
  }
  next_ns_ = failed.time_ns + interval_ns;
  held_back_ = 0;
}

void put_shortage(const Shortage& shortage, Disclosure disclosure, accelmm_shortage& args) {
  static_assert(ACCELMM_SHORTAGE_OWNERS == Shortage::shown_owners);
  static_assert(ACCELMM_SHORTAGE_RUNS == Shortage::orders);
  args.size = shortage.wanted.value();
  args.native_page = shortage.native_page.value();
  args.total = (shortage.total - shortage.reserved).value();
  args.free = shortage.free.value();
  args.largest_free = shortage.largest_free.value();
  args.spare = shortage.spare.value();
  args.pending = shortage.pending.value();
  args.private_size = shortage.reserved.value();
  args.moving = shortage.moving.value();
  args.small_slack = shortage.small_slack.value();
  args.quota_left = shortage.quota_left.value();
  args.moves_to_make = shortage.moves_to_make.value();
  for (std::size_t i = 0; i < Shortage::orders; ++i)
    args.free_in_runs[i] = shortage.free_in_runs[i].value();
  const std::size_t known = shortage.owner_count + shortage.other_owners;
  std::span<const Shortage::Owner> shown;
  if (disclosure == Disclosure::all)
    shown = std::span(shortage.owners).first(shortage.owner_count);
  else if (shortage.asking.id != OwnerId{})
    shown = std::span(&shortage.asking, 1);
  std::ranges::transform(shown, args.owners, wire_owner);
  args.owner_count = static_cast<__u32>(shown.size());
  args.other_owners = known - shown.size();
}

}  // namespace accelmm::devices
