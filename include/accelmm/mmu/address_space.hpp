// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/access.hpp>
#include <accelmm/error.hpp>
#include <accelmm/extent.hpp>
#include <accelmm/mmu/detached.hpp>
#include <accelmm/mmu/format.hpp>
#include <accelmm/mmu/invalidation.hpp>
#include <accelmm/mmu/page_table.hpp>
#include <accelmm/mmu/table_pool.hpp>
#include <accelmm/mmu/walk.hpp>
#include <accelmm/units.hpp>
#include <accelmm/va_allocator.hpp>

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <new>
#include <optional>
#include <span>
#include <utility>
#include <vector>

namespace accelmm::mmu {

/// Where a mapping is to lie.
struct Placement {
  enum class Kind : std::uint8_t {
    anywhere,
    hint,   ///< at the address if it is free and aligned, else anywhere
    fixed,  ///< at the address or not at all
  };
  Kind kind = Kind::anywhere;
  DeviceAddr address{};
};

/// A new mapping. Its begin is what unmap() takes.
struct MappedRange {
  Range<DeviceAddr> range;
};

class AddressSpace;

/// A mapping that is gone from the tables, or now leads elsewhere, but that a device may still have
/// cached.
///
/// Holds the tables that became empty and keeps the device addresses of what is gone from being
/// given out again, until release().
/// Lifetime  move-only; must be released (checked), before its address space is destroyed.
class [[nodiscard]] Unmapped {
 public:
  Unmapped(Unmapped&& other) noexcept
      : space_(std::exchange(other.space_, nullptr)),
        detached_(std::move(other.detached_)),
        addresses_(other.addresses_) {}
  Unmapped& operator=(Unmapped&&) = delete;
  Unmapped(const Unmapped&) = delete;
  Unmapped& operator=(const Unmapped&) = delete;
  ~Unmapped() { ACCELMM_CHECK(space_ == nullptr); }

  /// What must be invalidated.
  [[nodiscard]] Range<DeviceAddr> range() const { return detached_.range(); }
  [[nodiscard]] std::uint32_t tables() const { return detached_.tables(); }

  /// Gives tables and addresses back. Cannot fail; never allocates.
  /// Pre: the invalidation covers range() (checked).
  void release(InvalidationDone done) &&;

 private:
  friend class AddressSpace;
  friend class Remap;
  enum class Addresses : std::uint8_t { given_back, kept };
  Unmapped(AddressSpace& space, Detached<TablePool> detached, Addresses addresses)
      : space_(&space), detached_(std::move(detached)), addresses_(addresses) {}

  AddressSpace* space_;
  Detached<TablePool> detached_;
  Addresses addresses_;
};

/// A mapping that can be made to lead elsewhere: all that this needs is taken.
///
/// Lifetime  move-only; dropping it changes nothing. Its mapping must live until then, and no other
///           Remap of it may be made.
class Remap {
 public:
  Remap(Remap&& other) noexcept
      : space_(std::exchange(other.space_, nullptr)),
        start_(other.start_),
        total_(other.total_),
        access_(other.access_),
        runs_(std::move(other.runs_)),
        room_(std::move(other.room_)) {}
  Remap& operator=(Remap&&) = delete;
  Remap(const Remap&) = delete;
  Remap& operator=(const Remap&) = delete;
  ~Remap();

  /// What must be invalidated once it was applied.
  [[nodiscard]] Range<DeviceAddr> range() const { return {start_, start_ + total_}; }
  /// Writes the new leaves. Cannot fail; never allocates.
  [[nodiscard]] Unmapped apply() &&;

 private:
  friend class AddressSpace;
  Remap(AddressSpace& space, Range<DeviceAddr> range, Access access, std::vector<Run> runs)
      : space_(&space),
        start_(range.begin),
        total_(range.size()),
        access_(access),
        runs_(std::move(runs)) {}

  AddressSpace* space_;
  DeviceAddr start_;
  ByteCount total_;
  Access access_;
  std::vector<Run> runs_;
  TableList room_;
};

/// The device addresses of one session: a tree of page tables, the addresses still free, and the
/// mappings made.
///
/// The format is chosen at run time, through an AddressSpaceFactory; make_address_space() makes one
/// from any PteFormat.
/// Owns      its tables (in a pool shared with other address spaces), a VaAllocator, one map node
///           per mapping.
/// Threads   externally synchronised, together with everything else that uses the same pool.
/// Lifetime  not movable; before it is destroyed: unmap_all(), and every Unmapped released
///           (checked).
/// Invariant the leaves of the tree are exactly the mappings, and the mappings are disjoint ->
///           validate().
/// Cost      map and unmap O(log mappings + tables touched + leaves); the rest as PageTable.
class AddressSpace {
 public:
  AddressSpace(AddressSpace&&) = delete;
  AddressSpace& operator=(AddressSpace&&) = delete;
  virtual ~AddressSpace();

  /// Maps the runs one after the other into one range of device addresses. All of them or none.
  ///
  /// Unless the placement says otherwise, the address is congruent to the bus address of the
  /// longest run modulo the largest leaf that this run can hold, if there is room.
  /// Errors  invalid_argument: as PageTable::map(), or a fixed address is unaligned or outside the
  ///         space, or unmap_all() was called.
  ///         not_supported: the format cannot express the access.
  ///         address_in_use: a fixed address is taken, or waits for an invalidation.
  ///         no_memory: no room, no tables, or no memory for the books.
  ///         State unchanged in all cases.
  [[nodiscard]] Result<MappedRange> map(std::span<const Run> runs, Placement placement,
                                        Access access);

  /// Ends the mapping that begins at `start`. Cannot fail for one that exists; never allocates.
  /// Errors  invalid_argument: no mapping begins there (state unchanged).
  [[nodiscard]] Result<Unmapped> unmap(DeviceAddr start);

  /// Makes ready what it takes to let the mapping that begins at `start` lead to other memory, of
  /// the same length: for memory that is moved while the device does not use it.
  /// Errors  invalid_argument: no mapping begins there, or the runs have another length, or as map().
  ///         no_memory: no tables, or no memory to note it.  State unchanged in all cases.
  [[nodiscard]] Result<Remap> prepare_remap(DeviceAddr start, std::span<const Run> runs);

  /// Ends every mapping and takes the root away: the device must have stopped. Never allocates.
  /// Pre: not called before (checked).
  Unmapped unmap_all();

  [[nodiscard]] std::optional<Translation> translate(DeviceAddr va) const { return look_up(va); }
  [[nodiscard]] Walk walk(DeviceAddr va) const { return trace(va); }

  /// Where the device's root register points for this space.
  [[nodiscard]] BusAddr root() const { return tree().root; }
  [[nodiscard]] Range<DeviceAddr> range() const { return range_; }
  [[nodiscard]] std::size_t mappings() const { return mappings_.size(); }
  [[nodiscard]] ByteCount mapped_bytes() const { return mapped_bytes_; }
  /// Bytes of the tables that the tree links now, root included.
  [[nodiscard]] ByteCount table_bytes() const {
    return ByteCount(tree().tables * mmu::table_bytes);
  }

  /// Checks the tree, the free addresses and the mappings, each and against each other. Aborts if
  /// they contradict.
  /// Cost  O(leaves + entries of all linked tables).
  void validate() const;

 protected:
  /// What the books need to know about a format.
  struct FormatFacts {
    std::uint64_t leaf_sizes;  ///< a set, as Geometry::leaf_sizes()
    unsigned bus_bits;
  };
  struct Tree {
    BusAddr root;
    std::uint32_t tables;
  };

  AddressSpace(Range<DeviceAddr> range, VaAllocator addresses, FormatFacts facts);

 private:
  friend class Unmapped;
  friend class Remap;

  virtual Result<void> write(DeviceAddr va, std::span<const Run> runs, Access access) = 0;
  virtual Result<Detached<TablePool>> remove(Range<DeviceAddr> range) = 0;
  virtual Detached<TablePool> remove_all() = 0;
  virtual Result<TableList> room_for(DeviceAddr va, std::span<const Run> runs, Access access) = 0;
  virtual Detached<TablePool> replace(DeviceAddr va, std::span<const Run> runs, Access access,
                                      TableList room) = 0;
  virtual void give_back_room(TableList room) = 0;
  [[nodiscard]] virtual std::optional<Translation> look_up(DeviceAddr va) const = 0;
  [[nodiscard]] virtual Walk trace(DeviceAddr va) const = 0;
  [[nodiscard]] virtual Tree tree() const = 0;
  /// Validates the tree. Returns the bytes that its leaves map.
  [[nodiscard]] virtual ByteCount check_tree() const = 0;

  [[nodiscard]] Alignment page() const;
  [[nodiscard]] Result<Range<DeviceAddr>> find_room(std::span<const Run> runs, ByteCount length,
                                                    Placement placement);
  [[nodiscard]] Result<Range<DeviceAddr>> find_any_room(std::span<const Run> runs,
                                                        ByteCount length);
  [[nodiscard]] Result<Range<DeviceAddr>> take_at(DeviceAddr begin, ByteCount length);
  void give_back(DeviceAddr begin);
  void released(Range<DeviceAddr> range, Unmapped::Addresses addresses);

  Range<DeviceAddr> range_;
  VaAllocator addresses_;
  FormatFacts facts_;
  std::map<DeviceAddr, ByteCount> mappings_;
  ByteCount mapped_bytes_;
  std::size_t unreleased_ = 0;  // Unmapped objects that live
  enum class State : std::uint8_t { open, ended } state_ = State::open;
};

/// Makes an address space in one format over tables from a pool. A driver names one in its
/// description.
using AddressSpaceFactory = Result<std::unique_ptr<AddressSpace>> (*)(TablePool& pool,
                                                                      Range<DeviceAddr> range);

/// The address space of one format. Made by make_address_space().
template <PteFormat F>
class FormatAddressSpace final : public AddressSpace {
 public:
  FormatAddressSpace(Range<DeviceAddr> range, VaAllocator addresses, TablePool& pool,
                     PageTable<F, TablePool> table)
      : AddressSpace(range, std::move(addresses), {Geometry<F>::leaf_sizes(), F::bus_bits}),
        pool_(pool),
        table_(std::move(table)) {}

 private:
  Result<void> write(DeviceAddr va, std::span<const Run> runs, Access access) override {
    return table_.map(va, runs, access);
  }
  Result<Detached<TablePool>> remove(Range<DeviceAddr> range) override {
    return table_.unmap(range);
  }
  Detached<TablePool> remove_all() override { return table_.detach_all(); }
  Result<TableList> room_for(DeviceAddr va, std::span<const Run> runs, Access access) override {
    return table_.room_for(va, runs, access);
  }
  Detached<TablePool> replace(DeviceAddr va, std::span<const Run> runs, Access access,
                              TableList room) override {
    return table_.replace(va, runs, access, std::move(room));
  }
  void give_back_room(TableList room) override { pool_.give_back(std::move(room)); }
  std::optional<Translation> look_up(DeviceAddr va) const override { return table_.translate(va); }
  Walk trace(DeviceAddr va) const override { return table_.walk(va); }
  Tree tree() const override { return {table_.root(), table_.tables()}; }
  ByteCount check_tree() const override {
    table_.validate();
    ByteCount mapped;
    table_.for_each_leaf([&mapped](const Leaf& leaf) { mapped += leaf.size; });
    return mapped;
  }

  TablePool& pool_;
  PageTable<F, TablePool> table_;
};

/// Makes an empty address space of the format F: an AddressSpaceFactory. The pool must outlive it.
/// Errors  invalid_argument: the range is empty, not whole pages, or ends beyond the format's
///         device addresses.
///         no_memory: no table for the root, or no memory for the books.
template <PteFormat F>
[[nodiscard]] Result<std::unique_ptr<AddressSpace>> make_address_space(TablePool& pool,
                                                                       Range<DeviceAddr> range) {
  constexpr Alignment page(Geometry<F>::page_size);
  if (range.empty() || range.end.value() > Geometry<F>::va_end || !page.divides(range.begin) ||
      !page.divides(range.end))
    return fail(Errc::invalid_argument, "range lies outside the format's device addresses");
  auto addresses = VaAllocator::create(range, page);
  if (!addresses) return fail(addresses.error());
  auto table = PageTable<F, TablePool>::create(pool);
  if (!table) return fail(table.error());
  try {
    return std::make_unique<FormatAddressSpace<F>>(range, std::move(*addresses), pool,
                                                   std::move(*table));
  } catch (const std::bad_alloc&) {
    table->detach_all().release(InvalidationDone::never_shown());
    return fail(Errc::no_memory, "no memory for an address space");
  }
}

}  // namespace accelmm::mmu
