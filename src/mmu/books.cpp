// SPDX-License-Identifier: Apache-2.0
#include "mmu/books.hpp"

#include <accelmm/check.hpp>

#include <algorithm>
#include <bit>
#include <iterator>
#include <memory>
#include <new>

namespace accelmm::mmu {

namespace {

constexpr std::size_t most_windows = 8;

struct ByBegin {
  bool operator()(const Piece& piece, DeviceAddr va) const { return piece.range.begin < va; }
  bool operator()(DeviceAddr va, const Piece& piece) const { return va < piece.range.begin; }
};

// The sizes of leaves of which one may lie in a range.
std::uint64_t fitting(std::uint64_t sizes, Range<DeviceAddr> range) {
  for (; sizes != 0; sizes &= ~std::bit_floor(sizes)) {
    const std::uint64_t size = std::bit_floor(sizes);
    const std::uint64_t into = range.begin.value() & (size - 1);
    const std::uint64_t skipped = into == 0 ? 0 : size - into;
    if (range.size().value() >= size && range.size().value() - size >= skipped) break;
  }
  return sizes;
}

// Bytes that two ranges have in common.
std::uint64_t overlap(Range<DeviceAddr> a, Range<DeviceAddr> b) {
  if (!a.overlaps(b)) return 0;
  return (std::min(a.end, b.end) - std::max(a.begin, b.begin)).value();
}

}  // namespace

std::size_t PieceChain::size() const {
  std::size_t count = 0;
  for (const Piece* piece = first_; piece != nullptr; piece = piece->next) ++count;
  return count;
}

bool PieceChain::grow_to(std::size_t count) {
  for (std::size_t have = size(); have < count; ++have) {
    auto* const piece = new (std::nothrow) Piece;
    if (piece == nullptr) return false;
    push(piece);
  }
  return true;
}

Result<Books*> Books::create(const SpaceOptions& options, Alignment page) {
  if (options.windows.empty() || options.windows.size() > most_windows)
    return fail(Errc::invalid_argument, "address space has no window, or more than 8");
  if (options.default_page &&
      (options.default_page->length == ByteCount(0) ||
       !page.divides(options.default_page->length) || !page.divides(options.default_page->address)))
    return fail(Errc::invalid_argument, "default page is not whole pages");
  std::unique_ptr<Books> books(new Books(page));
  books->windows_.reserve(options.windows.size());
  DeviceAddr free_from;
  for (const VaWindow& window : options.windows) {
    if (window.range.begin < free_from)
      return fail(Errc::invalid_argument, "windows are not disjoint and ascending");
    free_from = window.range.end;
    auto addresses = VaAllocator::create(window.range, page);
    if (!addresses) return fail(addresses.error());
    books->windows_.push_back({window.use, window.range, std::move(*addresses), {}});
  }
  if (!books->spares_.grow_to(spare_count))
    return fail(Errc::no_memory, "no memory for the books of an address space");
  books->default_page = options.default_page;
  books->forget_now = options.forget_now;
  books->prefetch = options.prefetch;
  return books.release();
}

Books::~Books() {
  ACCELMM_CHECK(pending.empty() && operations.none());
  pieces.clear_and_dispose([](Piece* piece) { delete piece; });
}

Range<DeviceAddr> Books::hull() const {
  return {windows_.front().range.begin, windows_.back().range.end};
}

bool Books::is_inside(Range<DeviceAddr> range) const {
  return !range.empty() && page_.divides(range.begin) && page_.divides(range.end) &&
         std::ranges::any_of(windows_, [&](const Window& w) { return w.range.contains(range); });
}

bool Books::is_reserved(Range<DeviceAddr> range) const {
  auto after = reservations.upper_bound(range.begin);
  if (after == reservations.begin()) return false;
  --after;
  return range.end <= after->second;
}

bool Books::crosses_reservation(Range<DeviceAddr> range) const {
  if (is_reserved(range)) return false;
  const auto next = reservations.lower_bound(range.end);
  return next != reservations.begin() && std::prev(next)->second > range.begin;
}

Books::Window& Books::window_of(DeviceAddr va) {
  const auto found = std::ranges::find_if(
      windows_, [va](const Window& window) { return window.range.contains(va); });
  ACCELMM_CHECK(found != windows_.end());
  return *found;
}

Result<Range<DeviceAddr>> Books::take(ByteCount size, std::span<const Fit> fits, VaUse use) {
  Blocks made;
  try {
    made[DeviceAddr(0)];
  } catch (const std::bad_alloc&) {
    return fail(Errc::no_memory, "no memory for the books of device addresses");
  }
  for (const Fit& fit : fits) {
    for (Window& window : windows_) {
      if (use != VaUse::any && window.use != VaUse::any && window.use != use) continue;
      const auto taken = window.addresses.allocate(size, fit.alignment, fit.phase);
      if (!taken) continue;
      auto node = made.extract(made.begin());
      node.key() = taken->begin;
      node.mapped() = {taken->end, taken->size().value()};
      ACCELMM_CHECK(window.blocks.insert(std::move(node)).inserted);
      return *taken;
    }
  }
  return fail(Errc::no_memory, "no device addresses left");
}

Books::Blocks::iterator Books::block_from(Window& window, DeviceAddr va) {
  auto found = window.blocks.upper_bound(va);
  if (found != window.blocks.begin() && std::prev(found)->second.end > va) --found;
  return found;
}

void Books::release(Window& window, Blocks& blocks) {
  for (const auto& [begin, block] : blocks) {
    const auto freed = window.addresses.free(begin);
    ACCELMM_CHECK(freed.has_value());
  }
  blocks.clear();
}

Result<void> Books::take_gaps(Window& window, Range<DeviceAddr> range, Blocks& fresh) {
  auto next = block_from(window, range.begin);
  for (DeviceAddr at = range.begin; at < range.end;) {
    if (next != window.blocks.end() && next->first <= at) {
      at = (next++)->second.end;
      continue;
    }
    const DeviceAddr end =
        next == window.blocks.end() ? range.end : std::min(next->first, range.end);
    try {
      fresh.emplace(at, Block{end, 0});
    } catch (const std::bad_alloc&) {
      return fail(Errc::no_memory, "no memory for the books of device addresses");
    }
    if (const auto taken = window.addresses.allocate_at({at, end}); !taken) {
      fresh.erase(at);
      return fail(taken.error());
    }
    at = end;
  }
  return {};
}

Result<void> Books::hold(Range<DeviceAddr> range) {
  Window& window = window_of(range.begin);
  Blocks fresh;
  if (const auto taken = take_gaps(window, range, fresh); !taken) {
    release(window, fresh);
    return taken;
  }
  window.blocks.merge(fresh);
  for (auto at = block_from(window, range.begin);
       at != window.blocks.end() && at->first < range.end; ++at)
    at->second.held += overlap(range, {at->first, at->second.end});
  return {};
}

void Books::drop(Range<DeviceAddr> range) {
  Window& window = window_of(range.begin);
  for (auto at = block_from(window, range.begin);
       at != window.blocks.end() && at->first < range.end;) {
    const std::uint64_t bytes = overlap(range, {at->first, at->second.end});
    ACCELMM_CHECK(at->second.held >= bytes);
    at->second.held -= bytes;
    if (at->second.held > 0) {
      ++at;
      continue;
    }
    const auto freed = window.addresses.free(at->first);
    ACCELMM_CHECK(freed.has_value());
    at = window.blocks.erase(at);
  }
}

Books::Pieces::iterator Books::from(DeviceAddr va) {
  auto found = pieces.upper_bound(va, ByBegin{});
  if (found != pieces.begin() && std::prev(found)->range.end > va) --found;
  return found;
}

Piece* Books::containing(DeviceAddr va) {
  const auto found = from(va);
  return found != pieces.end() && found->range.contains(va) ? &*found : nullptr;
}

bool Books::is_mapped_in_part(Range<DeviceAddr> range) {
  const auto found = from(range.begin);
  return found != pieces.end() && found->range.begin < range.end;
}

bool Books::is_mapped_all_over(Range<DeviceAddr> range) {
  DeviceAddr mapped_to = range.begin;
  for (auto at = from(range.begin);
       at != pieces.end() && at->range.begin <= mapped_to && mapped_to < range.end; ++at)
    mapped_to = at->range.end;
  return mapped_to >= range.end;
}

const Piece* Books::pending_in(Range<DeviceAddr> range) const {
  const auto found = std::ranges::find_if(
      pending, [&](const Piece& piece) { return piece.range.overlaps(range); });
  return found == pending.end() ? nullptr : &*found;
}

Range<DeviceAddr> Books::grown(Range<DeviceAddr> range) {
  const auto largest = [](const Piece& piece) { return std::bit_floor(piece.leaf_sizes) - 1; };
  if (const Piece* piece = containing(range.begin))
    range.begin = std::max(piece->range.begin, DeviceAddr(range.begin.value() & ~largest(*piece)));
  if (const Piece* piece = containing(range.end - ByteCount(1))) {
    const std::uint64_t last = (range.end.value() - 1) | largest(*piece);
    range.end = last >= piece->range.end.value() ? piece->range.end : DeviceAddr(last + 1);
  }
  return range;
}

void Books::cut(DeviceAddr at, PieceChain& spares) {
  Piece* const piece = containing(at);
  if (piece == nullptr || piece->range.begin == at) return;
  Piece* const rest = spares.pop();
  // What the cut left of a large leaf may have any smaller size.
  const std::uint64_t sizes = piece->leaf_sizes | (std::bit_floor(piece->leaf_sizes) - 1);
  rest->range = {at, piece->range.end};
  rest->attributes = piece->attributes;
  rest->leaf_sizes = fitting(sizes, rest->range);
  rest->kind = piece->kind;
  rest->map = piece->map;
  piece->range.end = at;
  piece->leaf_sizes = fitting(sizes, piece->range);
  ACCELMM_CHECK(pieces.insert(*rest).second);
  if (piece->kind != Piece::Kind::cover) ++mappings;
}

bool Books::belong_together(const Piece& piece, const Piece& next) {
  return piece.range.end == next.range.begin && piece.map == next.map && piece.kind == next.kind &&
         piece.attributes == next.attributes;
}

Piece& Books::join_next(Pieces::iterator at) {
  const auto next = std::next(at);
  Piece& rest = *next;
  ACCELMM_CHECK(belong_together(*at, rest));
  pieces.erase(next);
  at->range.end = rest.range.end;
  at->leaf_sizes |= rest.leaf_sizes;
  if (rest.kind != Piece::Kind::cover) --mappings;
  return rest;
}

void Books::insert(Piece& piece) {
  ACCELMM_CHECK(pieces.insert(piece).second);
  spare_tables += piece.reserve.count;
  if (piece.kind == Piece::Kind::cover) {
    covered_bytes += piece.range.size();
    return;
  }
  ++mappings;
  mapped_bytes += piece.range.size();
}

void Books::erase(Piece& piece) {
  pieces.erase(pieces.iterator_to(piece));
  if (piece.kind == Piece::Kind::cover) {
    covered_bytes -= piece.range.size();
    return;
  }
  --mappings;
  mapped_bytes -= piece.range.size();
}

Result<PieceChain> Books::nodes(std::size_t count) {
  PieceChain chain;
  if (!chain.grow_to(count)) {
    while (chain.size() < count && !spares_.empty()) chain.push(spares_.pop());
    if (chain.size() < count) {
      keep_spares(chain);
      return fail(Errc::no_memory, "no memory for the books of a mapping");
    }
  }
  (void)spares_.grow_to(spare_count);  // for when there is none
  return chain;
}

void Books::keep_spares(PieceChain& rest) {
  while (!rest.empty() && spares_.size() < spare_count) spares_.push(rest.pop());
}

void Books::wait_and_begin(std::unique_lock<std::mutex>& lock, Operation& operation,
                           Range<DeviceAddr> range) {
  for (;;) {
    operation.range = grown(range);
    if (!operations.conflicts(operation.range, operation.kind)) break;
    ended.wait(lock);
  }
  operations.begin(operation);
}

void Books::validate() const {
  std::uint64_t held = 0;
  std::uint64_t in_blocks = 0;
  for (const Window& window : windows_) {
    window.addresses.validate();
    std::uint64_t taken = 0;
    for (const auto& [begin, block] : window.blocks) {
      ACCELMM_CHECK(block.held > 0 && begin < block.end);
      taken += (block.end - begin).value();
      in_blocks += block.held;
    }
    ACCELMM_CHECK(window.addresses.statistics().taken == ByteCount(taken));
  }
  for (const auto& [begin, end] : reservations) held += (end - begin).value();
  for (const Piece& piece : pending)
    if (piece.kind != Piece::Kind::cover) held += piece.range.size().value();
  ByteCount mapped;
  ByteCount covered;
  DeviceAddr free_from;
  std::size_t count = 0;
  for (const Piece& piece : pieces) {
    ACCELMM_CHECK(free_from <= piece.range.begin && !piece.range.empty());
    free_from = piece.range.end;
    (piece.kind == Piece::Kind::cover ? covered : mapped) += piece.range.size();
    count += piece.kind == Piece::Kind::cover ? 0U : 1U;
  }
  ACCELMM_CHECK(mapped == mapped_bytes && covered == covered_bytes && count == mappings);
  ACCELMM_CHECK(held + mapped.value() == in_blocks);
}

}  // namespace accelmm::mmu
