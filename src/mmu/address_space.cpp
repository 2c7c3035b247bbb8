// SPDX-License-Identifier: Apache-2.0
#include <accelmm/check.hpp>
#include <accelmm/mmu/address_space.hpp>

#include <bit>

// The books of an address space: which device addresses are free, taken by a mapping, or waiting
// for an invalidation. An address is given out by the VaAllocator, entered in mappings_, and only
// then written into the tables, so that each failure undoes what is already done with operations
// that cannot fail. The way back never allocates: the mapping's node is dropped, its addresses stay
// taken in the VaAllocator, and Unmapped remembers them.

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

}  // namespace

void Unmapped::release(InvalidationDone done) && {
  AddressSpace* space = std::exchange(space_, nullptr);
  ACCELMM_CHECK(space != nullptr);
  const Range<DeviceAddr> range = detached_.range();
  std::move(detached_).release(done);
  space->released(range, addresses_);
}

Remap::~Remap() {
  if (space_ != nullptr) space_->give_back_room(std::move(room_));
}

Unmapped Remap::apply() && {
  AddressSpace* space = std::exchange(space_, nullptr);
  ACCELMM_CHECK(space != nullptr && space->state_ == AddressSpace::State::open);
  ++space->unreleased_;
  return {*space, space->replace(start_, runs_, access_, std::move(room_)),
          Unmapped::Addresses::kept};
}

AddressSpace::AddressSpace(Range<DeviceAddr> range, VaAllocator addresses, FormatFacts facts)
    : range_(range), addresses_(std::move(addresses)), facts_(facts) {}

AddressSpace::~AddressSpace() {
  ACCELMM_CHECK(state_ == State::ended);
  ACCELMM_CHECK(unreleased_ == 0);
}

Alignment AddressSpace::page() const {
  return Alignment(std::uint64_t{1} << std::countr_zero(facts_.leaf_sizes));
}

Result<MappedRange> AddressSpace::map(std::span<const Run> runs, Placement placement,
                                      Access access) {
  if (state_ == State::ended) return fail(Errc::invalid_argument, "address space has ended");
  const auto length = total_length(runs, page(), facts_.bus_bits);
  if (!length) return fail(length.error());
  const auto range = find_room(runs, *length, placement);
  if (!range) return fail(range.error());
  try {
    mappings_.emplace(range->begin, *length);
  } catch (const std::bad_alloc&) {
    give_back(range->begin);
    return fail(Errc::no_memory, "no memory for the books of a mapping");
  }
  if (auto written = write(range->begin, runs, access); !written) {
    mappings_.erase(range->begin);
    give_back(range->begin);
    return fail(written.error());
  }
  mapped_bytes_ += *length;
  return MappedRange{*range};
}

Result<Range<DeviceAddr>> AddressSpace::find_room(std::span<const Run> runs, ByteCount length,
                                                  Placement placement) {
  switch (placement.kind) {
    case Placement::Kind::fixed:
      return take_at(placement.address, length);
    case Placement::Kind::hint: {
      auto taken = take_at(placement.address, length);
      if (taken || taken.error().code == Errc::no_memory) return taken;
      break;
    }
    case Placement::Kind::anywhere:
      break;
  }
  return find_any_room(runs, length);
}

Result<Range<DeviceAddr>> AddressSpace::take_at(DeviceAddr begin, ByteCount length) {
  if (!page().divides(begin) || !range_.contains(begin) || length > range_.end - begin)
    return fail(Errc::invalid_argument, "device address is unaligned or outside the space");
  return addresses_.allocate_at({begin, begin + length});
}

Result<Range<DeviceAddr>> AddressSpace::find_any_room(std::span<const Run> runs, ByteCount length) {
  const LongestRun longest = longest_run(runs);
  const std::uint64_t fitting =
      facts_.leaf_sizes & (std::bit_floor(longest.length) * 2 - 1);  // leaves no longer than it
  const Alignment leaf(std::bit_floor(fitting));
  if (leaf > page()) {
    const std::uint64_t phase = (longest.address - longest.offset) & (leaf.value() - 1);
    if (auto taken = addresses_.allocate(length, leaf, ByteCount(phase)); taken) return taken;
  }
  return addresses_.allocate(length, page(), ByteCount(0));
}

Result<Unmapped> AddressSpace::unmap(DeviceAddr start) {
  const auto mapping = mappings_.find(start);
  if (mapping == mappings_.end())
    return fail(Errc::invalid_argument, "no mapping begins at this device address");
  const ByteCount length = mapping->second;
  auto detached = remove({start, start + length});
  ACCELMM_CHECK(detached.has_value());  // the leaves of the tree are exactly the mappings
  mappings_.erase(mapping);
  mapped_bytes_ -= length;
  ++unreleased_;
  return Unmapped(*this, std::move(*detached), Unmapped::Addresses::given_back);
}

Result<Remap> AddressSpace::prepare_remap(DeviceAddr start, std::span<const Run> runs) try {
  const auto mapping = mappings_.find(start);
  if (mapping == mappings_.end())
    return fail(Errc::invalid_argument, "no mapping begins at this device address");
  const auto length = total_length(runs, page(), facts_.bus_bits);
  if (!length) return fail(length.error());
  if (*length != mapping->second)
    return fail(Errc::invalid_argument, "other memory has another length");
  const auto now = look_up(start);
  ACCELMM_CHECK(now.has_value());  // the leaves of the tree are exactly the mappings
  Remap remap(*this, {start, start + *length}, now->access, {runs.begin(), runs.end()});
  auto room = room_for(start, runs, now->access);
  if (!room) return fail(room.error());
  remap.room_ = std::move(*room);
  return remap;
} catch (const std::bad_alloc&) {
  return fail(Errc::no_memory, "no memory to note a remap");
}

Unmapped AddressSpace::unmap_all() {
  ACCELMM_CHECK(state_ == State::open);
  state_ = State::ended;
  mappings_.clear();
  mapped_bytes_ = ByteCount(0);
  ++unreleased_;
  return Unmapped(*this, remove_all(), Unmapped::Addresses::given_back);
}

// The range of unmap_all() is no block of the VaAllocator: the space has ended and gives out no
// address any more.
void AddressSpace::released(Range<DeviceAddr> range, Unmapped::Addresses addresses) {
  --unreleased_;
  if (state_ == State::open && addresses == Unmapped::Addresses::given_back) give_back(range.begin);
}

void AddressSpace::give_back(DeviceAddr begin) {
  const auto freed = addresses_.free(begin);
  ACCELMM_CHECK(freed.has_value());  // what was allocated once is freed once
}

void AddressSpace::validate() const {
  if (state_ == State::ended) return;
  addresses_.validate();
  const ByteCount in_leaves = check_tree();
  ByteCount in_books;
  DeviceAddr free_from = range_.begin;
  for (const auto& [begin, length] : mappings_) {
    ACCELMM_CHECK(free_from <= begin && length <= range_.end - begin);
    free_from = begin + length;
    in_books += length;
    for (DeviceAddr va = begin; va < free_from;) {
      const auto leaf = look_up(va);
      ACCELMM_CHECK(leaf.has_value() && leaf->remaining <= free_from - va);
      va += leaf->remaining;
    }
  }
  ACCELMM_CHECK(in_books == mapped_bytes_);
  ACCELMM_CHECK(in_books == in_leaves);
}

}  // namespace accelmm::mmu
