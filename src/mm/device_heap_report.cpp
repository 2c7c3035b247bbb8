// SPDX-License-Identifier: Apache-2.0
#include "mm/device_heap_book.hpp"

#include <accelmm/check.hpp>

#include <algorithm>
#include <bit>
#include <cinttypes>
#include <cstdio>
#include <string>

namespace accelmm {

namespace {

const char* word_of(AccountName::Level level) {
  switch (level) {
    case AccountName::Level::device:
      return "device";
    case AccountName::Level::user:
      return "uid";
    case AccountName::Level::session:
      return "session";
    case AccountName::Level::other:
      break;
  }
  return "account";
}

void append(std::string& text, const char* label, ByteCount bytes) {
  char line[96];
  std::snprintf(line, sizeof line, "  %-28s %20" PRIu64 "\n", label, bytes.value());
  text += line;
}

void append_owner(std::string& text, const Shortage::Owner& owner) {
  char line[160];
  std::snprintf(line, sizeof line, "  %s %" PRIu64, word_of(owner.name.level), owner.name.number);
  text += line;
  if (owner.above.level == AccountName::Level::user) {
    std::snprintf(line, sizeof line, " of uid %" PRIu64, owner.above.number);
    text += line;
  }
  std::snprintf(line, sizeof line,
                "%s holds %" PRIu64 ", at most %" PRIu64 ", asked for %" PRIu64 " in %" PRIu64 "\n",
                owner.closed ? " (ended)" : "", owner.held.value(), owner.peak.value(),
                owner.requested.value(), owner.allocations);
  text += line;
}

}  // namespace

double Shortage::fragmentation(std::size_t order) const {
  if (free == ByteCount(0) || order >= orders) return 0;
  return 1 - static_cast<double>(free_in_runs[order].value()) / static_cast<double>(free.value());
}

std::string Shortage::text() const {
  std::string text = "device memory (bytes)\n";
  if (wanted > ByteCount(0)) {
    append(text, "wanted", wanted);
    append(text, "quota left", quota_left);
  }
  append(text, "total", total);
  append(text, "free", free);
  append(text, "longest free run", largest_free);
  append(text, "empty pages kept", spare);
  append(text, "waiting for a point", pending);
  append(text, "reserved", reserved);
  append(text, "being moved to", moving);
  append(text, "slack of small pieces", small_slack);
  append(text, "to move for one run", moves_to_make);
  char line[160];
  for (std::size_t order = 0; order < orders && free_in_runs[order] > ByteCount(0); ++order) {
    std::snprintf(line, sizeof line, "  free in runs of %5zu pages  %20" PRIu64 "  (%.0f %% not)\n",
                  std::size_t{1} << order, free_in_runs[order].value(), 100 * fragmentation(order));
    text += line;
  }
  for (std::size_t i = 0; i < owner_count; ++i) {
    append_owner(text, owners[i]);
  }
  if (other_owners > 0) {
    std::snprintf(line, sizeof line, "  and %zu that hold less\n", other_owners);
    text += line;
  }
  return text;
}

}  // namespace accelmm

namespace accelmm::mm {

namespace {

void note_run(Shortage& shortage, ByteCount run, std::uint64_t native) {
  if (run == ByteCount(0)) return;
  shortage.largest_free = std::max(shortage.largest_free, run);
  const std::size_t orders = std::min<std::size_t>(
      static_cast<std::size_t>(std::bit_width(run.value() / native)), Shortage::orders);
  for (std::size_t order = 0; order < orders; ++order) shortage.free_in_runs[order] += run;
}

Shortage::Owner entry_of(const HeapOwner& owner) {
  const Account* const above = owner.account->parent();
  return {.id = owner.id,
          .name = owner.account->name(),
          .above = above == nullptr ? AccountName{} : above->name(),
          .closed = owner.closed,
          .held = owner.held,
          .peak = owner.peak,
          .requested = owner.requested,
          .pending = owner.pending,
          .allocations = owner.records};
}

// Keeps those that hold most, without memory of its own.
void note_owner(Shortage& shortage, const HeapOwner& owner) {
  const Shortage::Owner entry = entry_of(owner);
  std::size_t at = shortage.owner_count;
  if (at == Shortage::shown_owners) {
    ++shortage.other_owners;
    if (shortage.owners[at - 1].held >= entry.held) return;
    --at;
  } else {
    ++shortage.owner_count;
  }
  for (; at > 0 && shortage.owners[at - 1].held < entry.held; --at)
    shortage.owners[at] = shortage.owners[at - 1];
  shortage.owners[at] = entry;
}

bool can_move(const HeapPiece& piece) {
  return piece.kind == HeapPiece::Kind::allocation && piece.target == nullptr &&
         !piece.record->pinned() && !piece.record->waits;
}

}  // namespace

// The cheapest window that begins at 0 or right behind something taken.
ByteCount HeapBook::least_to_move(ByteCount size) const {
  if (size > counts_.free) return ByteCount(0);
  ByteCount least(std::numeric_limits<std::uint64_t>::max());
  ByteCount cost;
  std::size_t fixed = 0;
  auto first = taken_.begin();
  auto last = first;  // [first, last) lies in the window
  for (RegionOffset begin(0); begin.value() <= (counts_.total - size).value();) {
    for (; last != taken_.end() && last->extent.offset < begin + size; ++last) {
      cost += last->extent.length;
      fixed += can_move(*last) ? 0U : 1U;
    }
    if (fixed == 0) least = std::min(least, cost);
    if (first == taken_.end()) break;
    if (first == last) {  // nothing lies in the window
      begin = first->extent.end();
      first = ++last;
      continue;
    }
    cost -= first->extent.length;
    fixed -= can_move(*first) ? 0U : 1U;
    begin = first->extent.end();
    ++first;
  }
  return least == ByteCount(std::numeric_limits<std::uint64_t>::max()) ? ByteCount(0) : least;
}

Shortage HeapBook::explain(OwnerId id, const DeviceHeap::Request& request) const {
  Shortage shortage{.wanted = request.size == ByteCount(0) ? ByteCount(0) : rounded(request),
                    .native_page = ByteCount(native_),
                    .total = counts_.total,
                    .free = counts_.free,
                    .spare = counts_.spare,
                    .pending = ByteCount(0),
                    .reserved = counts_.reserved,
                    .moving = counts_.moving};
  RegionOffset at(0);
  for (const HeapPiece& piece : taken_) {
    note_run(shortage, piece.extent.offset - at, native_);
    at = piece.extent.end();
  }
  note_run(shortage, RegionOffset(counts_.total.value()) - at, native_);
  for (const HeapRecord& record : records_)
    if (record.waits)
      shortage.pending +=
          record.place == HeapRecord::Place::native ? record.charge.bytes() : record.requested;
  for (const auto& [owner_id, owner] : owners_) note_owner(shortage, *owner);
  shortage.small_slack = counts_.shared - counts_.small_requested;
  if (const HeapOwner* const owner = find_owner(id)) {
    shortage.asking = entry_of(*owner);
    shortage.quota_left = owner->account->left();
  }
  // What may be scattered needs no run.
  if (request.layout == DeviceHeap::Layout::contiguous && shortage.wanted > shortage.largest_free &&
      shortage.wanted.value() >= native_)
    shortage.moves_to_make = least_to_move(shortage.wanted);
  return shortage;
}

DeviceHeap::Statistics HeapBook::recount() const {
  DeviceHeap::Statistics counts{.total = counts_.total, .owners = owners_.size()};
  ByteCount taken;
  for (const HeapPiece& piece : taken_) {
    taken += piece.extent.length;
    switch (piece.kind) {
      case HeapPiece::Kind::allocation:
        counts.held += piece.extent.length;
        break;
      case HeapPiece::Kind::small_page:
        if (piece.page->live > 0) {
          counts.held += piece.extent.length;
          counts.shared += piece.extent.length;
        } else {
          counts.spare += piece.extent.length;
        }
        break;
      case HeapPiece::Kind::reservation:
        counts.reserved += piece.extent.length;
        break;
      case HeapPiece::Kind::destination:
        counts.moving += piece.extent.length;
        break;
      case HeapPiece::Kind::slab:
        ACCELMM_CHECK(false);
    }
  }
  counts.free = counts.total - taken;
  for (const HeapRecord& record : records_) {
    counts.requested += record.requested;
    if (record.place != HeapRecord::Place::native) counts.small_requested += record.requested;
    if (record.waits) {
      counts.pending += record.requested;
      ++counts.pending_allocations;
    } else {
      ++counts.allocations;
    }
  }
  return counts;
}

void HeapBook::validate() const {
  ACCELMM_CHECK(recount() == counts_);
  pages_.validate();
  ACCELMM_CHECK(pages_.statistics().free == counts_.free);
  RegionOffset at(0);
  for (const HeapPiece& piece : taken_) {
    ACCELMM_CHECK(at <= piece.extent.offset && piece.extent.length > ByteCount(0));
    ACCELMM_CHECK(piece.extent.offset.value() % native_ == 0);
    at = piece.extent.end();
  }
  ACCELMM_CHECK(at.value() <= counts_.total.value());
  std::map<const HeapOwner*, std::pair<ByteCount, ByteCount>> asked;  // requested, pending
  for (const HeapRecord& record : records_) {
    auto& [requested, pending] = asked[record.owner];
    requested += record.requested;
    if (record.waits) pending += record.requested;
    ACCELMM_CHECK(record.moves == 0 || !record.waits);
  }
  ByteCount held;
  for (const auto& [id, owner] : owners_) {
    held += owner->held;
    ACCELMM_CHECK(owner->requested == asked[owner.get()].first);
    ACCELMM_CHECK(owner->pending == asked[owner.get()].second);
    ACCELMM_CHECK(owner->held <= owner->peak && owner->held <= owner->account->used());
    validate(*owner);
  }
  ACCELMM_CHECK(held == counts_.held);
  ACCELMM_CHECK(deferred_.pending() == counts_.pending);
}

void HeapBook::validate(const HeapOwner& owner) const {
  std::uint32_t spare = 0;
  std::uint64_t tiny = 0;
  for (const SmallPage& page : owner.pages) {
    page.granules.validate();
    ByteCount live;
    RegionOffset at = page.self.extent.offset;
    for (const HeapPiece& piece : page.pieces) {
      ACCELMM_CHECK(at <= piece.extent.offset && piece.page == &page);
      at = piece.extent.end();
      live += piece.extent.length;
      // What shares a native page is of one owner.
      ACCELMM_CHECK(piece.record == nullptr || piece.record->owner == &owner);
    }
    ACCELMM_CHECK(at <= page.self.extent.end() && live == page.live_bytes);
    ACCELMM_CHECK(page.granules.statistics().free == page.self.extent.length - live);
    ACCELMM_CHECK((page.live == 0) == (live == ByteCount(0)));
    ACCELMM_CHECK(page.charge.bytes() == (page.live == 0 ? ByteCount(0) : page.self.extent.length));
    if (page.live == 0) ++spare;
  }
  for (const HeapPiece& piece : owner.tiny) {
    const HeapPiece* const page = find_native(piece.extent.offset);
    ACCELMM_CHECK(page != nullptr && page->page != nullptr && &page->page->owner == &owner);
    ACCELMM_CHECK(owner.slab->usable_size(piece.extent.offset).value() == piece.extent.length);
    ++tiny;
  }
  ACCELMM_CHECK(tiny == owner.tiny_count);
  ACCELMM_CHECK(spare == owner.spare_pages);
  ACCELMM_CHECK(owner.spare_pages <= options_.spare_pages);
  if (owner.slab) owner.slab->validate();
}

}  // namespace accelmm::mm
