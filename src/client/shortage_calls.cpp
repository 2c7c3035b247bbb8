// SPDX-License-Identifier: Apache-2.0
#include "client/shortage_calls.hpp"

#include "client/error_text.hpp"

#include <accelmm/client.hpp>

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <new>
#include <span>

namespace accelmm {

namespace {

Shortage::Owner owner_from_wire(const accelmm_shortage_owner& owner) {
  return {.id = {},
          .name = {AccountName::Level::session, owner.session},
          .above = {AccountName::Level::user, owner.uid},
          .closed = owner.ended != 0,
          .held = ByteCount(owner.held),
          .peak = ByteCount(owner.peak),
          .requested = ByteCount(owner.requested),
          .pending = ByteCount(owner.pending),
          .allocations = owner.allocations};
}

const char* name_of(std::int32_t status) {
  for (const ErrorText& entry : error_texts())
    if (entry.code == static_cast<Errc>(-status)) return entry.name;
  return "an error";
}

}  // namespace

Result<accelmm_shortage> read_shortage(ClientLink& link, ByteCount size, std::uint32_t flags) {
  accelmm_shortage shortage = {};
  shortage.size = size.value();
  shortage.flags = flags;
  if (const auto told = link.ioctl_alone(ACCELMM_IOCTL_SHORTAGE, shortage); !told)
    return fail(told.error());
  if (shortage.owner_count > ACCELMM_SHORTAGE_OWNERS)
    return fail(Errc::protocol_error, "more owners than there is room for");
  return shortage;
}

Result<accelmm_defragment> make_room(ClientLink& link, ByteCount budget, ByteCount run) {
  accelmm_defragment args = {};
  args.budget = budget.value();
  args.run = run.value();
  if (const auto moved = link.ioctl_alone(ACCELMM_IOCTL_DEFRAGMENT, args); !moved)
    return fail(moved.error());
  return args;
}

Shortage from_wire(const accelmm_shortage& wire) {
  Shortage shortage{.wanted = ByteCount(wire.size),
                    .native_page = ByteCount(wire.native_page),
                    .total = ByteCount(wire.total),
                    .free = ByteCount(wire.free),
                    .largest_free = ByteCount(wire.largest_free),
                    .spare = ByteCount(wire.spare),
                    .pending = ByteCount(wire.pending),
                    .reserved = ByteCount(wire.private_size),
                    .moving = ByteCount(wire.moving),
                    .small_slack = ByteCount(wire.small_slack),
                    .quota_left = ByteCount(wire.quota_left),
                    .moves_to_make = ByteCount(wire.moves_to_make)};
  std::ranges::transform(wire.free_in_runs, shortage.free_in_runs.begin(),
                         [](std::uint64_t bytes) { return ByteCount(bytes); });
  shortage.owner_count = std::min<std::size_t>(wire.owner_count, ACCELMM_SHORTAGE_OWNERS);
  std::ranges::transform(std::span(wire.owners).first(shortage.owner_count),
                         shortage.owners.begin(), owner_from_wire);
  shortage.other_owners = wire.other_owners;
  return shortage;
}

Result<std::string> shortage_text(const accelmm_shortage& shortage) try {
  std::string text;
  if (shortage.failed_session != 0) {
    char line[160];
    std::snprintf(line, sizeof line,
                  "session %" PRIu64 " of uid %" PRIu64 " got %s last; ENOMEM %" PRIu64
                  " times, EDQUOT %" PRIu64 " times\n",
                  static_cast<std::uint64_t>(shortage.failed_session),
                  static_cast<std::uint64_t>(shortage.failed_uid), name_of(shortage.failed_status),
                  static_cast<std::uint64_t>(shortage.memory_failures),
                  static_cast<std::uint64_t>(shortage.quota_failures));
    text = line;
  }
  return text + from_wire(shortage).text();
} catch (const std::bad_alloc&) {
  return fail(Errc::no_memory, "no memory for a text");
}

}  // namespace accelmm
