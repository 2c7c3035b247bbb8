// SPDX-License-Identifier: Apache-2.0
#include "mmu/address_space_writing.hpp"
#include "mmu/books.hpp"

#include <accelmm/check.hpp>
#include <accelmm/mmu/address_space.hpp>
#include <accelmm/mmu/run_cursor.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <utility>

// An operation has three parts. Under the books' mutex it takes what it needs (addresses, records,
// tables for cuts) and enters its range as in flight; outside of it, the tree is written; under it
// again, the books are brought up to date and the range is free for others. All that can fail comes
// before the first entry changes, so that each failure undoes what is already done with steps that
// cannot fail.
//
// What an operation finds in the books of its range holds until it ends, for nobody else may work
// there; but a piece that it shares with a neighbour may have been cut outside of the range
// meanwhile. So pieces are looked up again by address in the third part.

namespace accelmm::mmu {

namespace {

// The longest stretch of memory that continues on the bus, and how far into the mapping it lies.
struct LongestRun {
  std::uint64_t address = 0;
  std::uint64_t length = 0;
  std::uint64_t offset = 0;
};

// Pre: total_length() accepted the runs.
LongestRun longest_run(std::span<const Run> runs) {
  LongestRun longest;
  LongestRun current;
  for (const Run& run : runs) {
    if (current.address + current.length != run.address.value())
      current = {run.address.value(), 0, current.offset + current.length};
    current.length += run.length.value();
    if (current.length > longest.length) longest = current;
  }
  return longest;
}

std::unexpected<Error> in_use() {
  return fail(Errc::address_in_use, "device addresses are taken");
}

}  // namespace

std::uint32_t AddressSpace::FormatFacts::tables_for_cut(std::uint64_t sizes) const {
  const std::uint64_t large = sizes & leaf_sizes & (leaf_sizes - 1);
  return large == 0 ? 0 : hops - 1 - first_hop(large);
}

unsigned AddressSpace::FormatFacts::first_hop(std::uint64_t sizes) const {
  unsigned hop = 0;
  while (hop < hops && (leaf_sizes_at[hop] & sizes) == 0) ++hop;
  return hop;
}

void AddressSpace::DeleteBooks::operator()(Books* books) const {
  delete books;
}

AddressSpace::AddressSpace(TablePool& pool, const FormatFacts& facts, BooksOwner books)
    : pool_(&pool), range_(books->hull()), facts_(facts), books_(std::move(books)) {}

AddressSpace::~AddressSpace() {
  ACCELMM_CHECK(books_->has_ended);
  ACCELMM_CHECK(books_->unreleased == 0);
  ACCELMM_CHECK(books_->passing.count == 0);
}

auto AddressSpace::open_books(const SpaceOptions& options, Alignment page, std::uint64_t va_end)
    -> Result<BooksOwner> {
  for (const VaWindow& window : options.windows)
    if (window.range.empty() || window.range.end.value() > va_end ||
        !page.divides(window.range.begin) || !page.divides(window.range.end))
      return fail(Errc::invalid_argument, "range lies outside the format's device addresses");
  try {
    const auto books = Books::create(options, page);
    if (!books) return fail(books.error());
    return BooksOwner(*books);
  } catch (const std::bad_alloc&) {
    return fail(Errc::no_memory, "no memory for the books of an address space");
  }
}

auto AddressSpace::forget_now() const -> const ForgetNow& {
  return books_->forget_now;
}

Result<MappedRange> AddressSpace::map(std::span<const Run> runs, Placement placement,
                                      Attributes attributes) {
  Writing writing{.runs = runs, .attributes = attributes};
  return write_new(writing, placement);
}

Result<Replaced> AddressSpace::replace(std::span<const Run> runs, Placement placement,
                                       Attributes attributes) {
  Writing writing{.runs = runs, .attributes = attributes};
  return write_over(writing, placement);
}

Result<MappedRange> AddressSpace::write_new(Writing& writing, Placement placement) {
  std::unique_lock lock(books_->mutex);
  if (const auto placed = place(writing, placement, Overlap::refuse, lock); !placed) {
    books_->keep_spares(writing.nodes);
    return fail(placed.error());
  }
  lock.unlock();
  writing.sizes = sizes(writing.range.begin, writing.runs);
  auto reserve = pool_->take(2 * facts_.tables_for_cut(writing.sizes));
  Result<void> written = reserve ? write(writing.range.begin, writing.runs, writing.attributes)
                                 : Result<void>(fail(reserve.error()));
  lock.lock();
  if (written) {
    enter(writing, std::move(*reserve));
  } else {
    if (reserve) pool_->give_back(std::move(*reserve));
    books_->drop(writing.range);
    books_->keep_spares(writing.nodes);
  }
  end(writing.operation);
  if (!written) return fail(written.error());
  return MappedRange{writing.range};
}

Result<Replaced> AddressSpace::write_over(Writing& writing, Placement placement) {
  std::unique_lock lock(books_->mutex);
  if (const auto placed = place(writing, placement, Overlap::replace, lock); !placed) {
    books_->keep_spares(writing.nodes);
    return fail(placed.error());
  }
  TableList cuts;
  auto prepared = prepare_cuts(writing.range, cuts);
  lock.unlock();
  TableList reserve;
  auto over = prepared ? reserve_and_overwrite(writing, reserve, cuts)
                       : Result<Detached<TablePool>>(fail(prepared.error()));
  lock.lock();
  if (!over) {
    if (writing.kind != Piece::Kind::cover) books_->drop(writing.range);
    settle_cuts(writing.range, cuts);
    books_->keep_spares(writing.nodes);
    end(writing.operation);
    return fail(over.error());
  }
  const Touched touched = touched_in(writing.range);
  books_->cut(writing.range.begin, writing.nodes);
  books_->cut(writing.range.end, writing.nodes);
  Unmapped gone = collect(writing.range, std::move(*over), touched);
  enter(writing, std::move(reserve));
  settle_cuts(writing.range, cuts);
  gone.ended_at_ = end(writing.operation);
  return Replaced{{writing.range}, std::move(gone)};
}

Result<Detached<TablePool>> AddressSpace::reserve_and_overwrite(Writing& writing,
                                                                TableList& reserve,
                                                                TableList& cuts) {
  writing.sizes = sizes(writing.range.begin, writing.runs);
  auto taken = pool_->take(2 * facts_.tables_for_cut(writing.sizes));
  if (!taken) return fail(taken.error());
  auto over = overwrite(writing.range, writing.runs, writing.attributes, cuts);
  if (over)
    reserve = std::move(*taken);
  else
    pool_->give_back(std::move(*taken));
  return over;
}

void AddressSpace::enter(Writing& writing, TableList reserve) {
  Piece& piece = *writing.nodes.pop();
  piece.range = writing.range;
  piece.attributes = writing.attributes;
  piece.kind = writing.kind;
  piece.map = ++books_->maps;
  piece.leaf_sizes = writing.sizes;
  piece.reserve = std::move(reserve);
  books_->insert(piece);
  books_->keep_spares(writing.nodes);
}

// Finds addresses, takes them, and begins the operation.
Result<void> AddressSpace::place(Writing& writing, Placement placement, Overlap overlap,
                                 std::unique_lock<std::mutex>& lock) {
  if (books_->has_ended) return fail(Errc::invalid_argument, "address space has ended");
  const auto length = total_length(writing.runs, books_->page(), facts_.bus_bits);
  if (!length) return fail(length.error());
  auto nodes = books_->nodes(overlap == Overlap::refuse ? 1 : 3);
  if (!nodes) return fail(nodes.error());
  while (!nodes->empty()) writing.nodes.push(nodes->pop());
  if (placement.kind != Placement::Kind::anywhere) {
    const auto placed = place_at(writing, placement.address, *length, overlap, lock);
    const bool is_hint = placement.kind == Placement::Kind::hint;
    if (placed || !is_hint || placed.error().code == Errc::no_memory) return placed;
  }
  const auto taken = place_anywhere(writing, *length, placement.use);
  if (!taken) return fail(taken.error());
  if (overlap == Overlap::refuse && books_->is_mapped_in_part(*taken)) {
    books_->drop(*taken);
    return in_use();  // by the cover of stray accesses
  }
  writing.range = *taken;
  books_->wait_and_begin(lock, writing.operation, *taken);
  return {};
}

Result<void> AddressSpace::place_at(Writing& writing, DeviceAddr begin, ByteCount length,
                                    Overlap overlap, std::unique_lock<std::mutex>& lock) {
  if (length.value() > ~begin.value() || !books_->is_inside({begin, begin + length}))
    return fail(Errc::invalid_argument, "device address is unaligned or outside the space");
  writing.range = {begin, begin + length};
  books_->wait_and_begin(lock, writing.operation, writing.range);
  const auto free = [&]() -> Result<void> {
    if (writing.kind == Piece::Kind::cover) return {};
    if (books_->crosses_reservation(writing.range)) return in_use();
    if (overlap == Overlap::refuse &&
        (books_->is_mapped_in_part(writing.range) || books_->pending_in(writing.range) != nullptr))
      return in_use();
    return books_->hold(writing.range);
  }();
  if (!free) end(writing.operation);
  return free;
}

Result<Range<DeviceAddr>> AddressSpace::place_anywhere(const Writing& writing, ByteCount length,
                                                       VaUse use) {
  const LongestRun longest = longest_run(writing.runs);
  std::uint64_t fitting =
      facts_.leaf_sizes & (std::bit_floor(longest.length) * 2 - 1);  // leaves no longer than it
  std::array<Fit, 64> fits;                                          // a set of sizes has no more
  std::size_t count = 0;
  for (; fitting != 0; fitting &= ~std::bit_floor(fitting)) {
    const Alignment leaf(std::bit_floor(fitting));
    fits[count++] = {leaf, ByteCount((longest.address - longest.offset) & (leaf.value() - 1))};
  }
  return books_->take(length, std::span(fits).first(count), use);
}

std::uint64_t AddressSpace::end(Operation& operation) const {
  const std::uint64_t now = books_->operations.end(operation);
  give_back_passed();
  books_->ended.notify_all();
  return now;
}

}  // namespace accelmm::mmu
