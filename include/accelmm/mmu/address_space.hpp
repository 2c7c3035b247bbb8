// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/access.hpp>
#include <accelmm/error.hpp>
#include <accelmm/extent.hpp>
#include <accelmm/mmu/attributes.hpp>
#include <accelmm/mmu/detached.hpp>
#include <accelmm/mmu/fault_report.hpp>
#include <accelmm/mmu/format.hpp>
#include <accelmm/mmu/invalidation.hpp>
#include <accelmm/mmu/page_table.hpp>
#include <accelmm/mmu/remap.hpp>
#include <accelmm/mmu/space_options.hpp>
#include <accelmm/mmu/table_pool.hpp>
#include <accelmm/mmu/unmapped.hpp>
#include <accelmm/mmu/walk.hpp>
#include <accelmm/units.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

namespace accelmm::mmu {

/// A new mapping. Its begin is what unmap() takes.
struct MappedRange {
  Range<DeviceAddr> range;
};

/// A new mapping, and what it took the place of.
struct Replaced {
  MappedRange mapped;
  Unmapped gone;
};

/// A range whose leaves changed in place: what a device must forget.
struct Changed {
  Range<DeviceAddr> range;
  Touched touched;
};

class Books;
class Operation;
class PieceChain;

/// The device addresses of one session: a tree of page tables, the addresses still free, and the
/// mappings made.
///
/// The format is chosen at run time, through an AddressSpaceFactory; make_address_space() makes one
/// from any PteFormat.
/// Owns      its tables (in a pool shared with other address spaces), a VaAllocator for each window,
///           one record for each stretch of a mapping.
/// Threads   any. Operations on ranges apart run side by side: a mutex guards the books alone, and
///           the tree is written outside of it. One on a range in which another is under way waits
///           for that one's end. Tables that an unmap took away wait for the operations that began
///           before it ended. unmap_all(), validate() and destruction: when nothing else runs.
/// Lifetime  not movable; before it is destroyed: unmap_all(), and every Unmapped released
///           (checked).
/// Invariant the leaves of the tree are exactly the mappings, and the mappings are disjoint ->
///           validate().
/// Cost      map and unmap O(log mappings + tables touched + leaves); the rest as PageTable. With
///           unmapped ranges that wait for their invalidation: fixed maps look at each of them.
class AddressSpace {
 public:
  AddressSpace(AddressSpace&&) = delete;
  AddressSpace& operator=(AddressSpace&&) = delete;
  virtual ~AddressSpace();

  /// Maps the runs one after the other into one range of device addresses. All of them or none.
  ///
  /// Unless the placement says otherwise, the address is congruent to the bus address of the
  /// longest run modulo the largest leaf that this run can hold, if there is room, or else modulo
  /// the next largest. A piece of a reservation is mapped by its fixed address.
  /// Errors  invalid_argument: as PageTable::map(), or a fixed address is unaligned or outside the
  ///         space, or unmap_all() was called.
  ///         not_supported: the format cannot express the attributes.
  ///         address_in_use: a fixed range is mapped in part, crosses a border of a reservation, or
  ///         waits for an invalidation.
  ///         no_memory: no room, no tables, or no memory for the books.
  ///         State unchanged in all cases.
  [[nodiscard]] Result<MappedRange> map(std::span<const Run> runs, Placement placement,
                                        Attributes attributes);

  /// The same, and what is mapped there is unmapped: mappings that it covers, and the covered parts
  /// of others. The device goes from the old to the new as it is invalidated.
  /// Errors  as map(), and as unmap() of a range; address_in_use: only what reservations refuse.
  [[nodiscard]] Result<Replaced> replace(std::span<const Run> runs, Placement placement,
                                         Attributes attributes);

  /// Ends the mapping that begins at `start`. Cannot fail for one that exists; never allocates.
  /// Errors  invalid_argument: no mapping begins there (state unchanged).
  [[nodiscard]] Result<Unmapped> unmap(DeviceAddr start);

  /// Unmaps whatever is mapped in the range; what remains of a mapping that it cuts are mappings of
  /// their own. A mapping's first cut takes tables that were set aside when it was mapped.
  /// Errors  invalid_argument: no range of pages of the space, or nothing is mapped there.
  ///         no_memory: what a mapping had set aside is used, and no more tables are left.
  ///         not_supported: the format cannot cut a leaf that would have to be.
  ///         What is mapped is unchanged in all cases.
  [[nodiscard]] Result<Unmapped> unmap(Range<DeviceAddr> range);

  /// Gives a range other attributes, all of which is mapped. The caller has the device forget it.
  /// Errors  as unmap() of a range; invalid_argument: it has a gap, or no such attributes.
  ///         not_supported: the format cannot express the attributes.
  [[nodiscard]] Result<Changed> protect(Range<DeviceAddr> range, Attributes attributes);

  /// Replaces small leaves in a range by larger ones where they map neighbouring memory alike, within
  /// each mapping. What protect() and unmap() of a range made of one mapping is one again where it lies
  /// in the range, side by side, with the same attributes.
  /// Errors  invalid_argument: no range of pages of the space.
  ///         not_supported: the format breaks before it makes, and nobody said how to invalidate.
  ///         State unchanged in all cases.
  [[nodiscard]] Result<Unmapped> merge(Range<DeviceAddr> range);

  /// Calls f for each leaf of a range that the device wrote through since it was mapped or last
  /// asked, in ascending order. The caller has the device forget the range. f must not use this space.
  /// Errors  invalid_argument: no range of pages of the space, or it cuts a leaf.
  ///         not_supported: the format has no such marks.
  ///         No mark is cleared in these cases.
  [[nodiscard]] Result<Changed> read_and_clear_dirty(
      Range<DeviceAddr> range, const std::function<void(Range<DeviceAddr>)>& f);

  /// Sets device addresses aside: they are mapped by fixed address only, all or in pieces, and an
  /// access to what is not mapped faults. `alignment` is that of the first address.
  /// Errors  as map(), for size and placement.
  [[nodiscard]] Result<Range<DeviceAddr>> reserve(ByteCount size, Placement placement,
                                                  Alignment alignment = Alignment(1));
  /// Ends the reservation that begins at `start`.
  /// Errors  invalid_argument: none begins there.  busy: a part of it is mapped.
  [[nodiscard]] Result<void> end_reservation(DeviceAddr start);

  /// Maps the default page all over a range.
  /// Errors  as map(); not_supported: the space has no default page.
  /// Cost    memory for one Run for each time the default page fits into `size`, meanwhile.
  [[nodiscard]] Result<MappedRange> map_null(ByteCount size, Placement placement, Access access);
  /// Maps the default page over the range, addresses that nobody has taken too, and leaves these
  /// free: for a device whose stray accesses must go somewhere. What is mapped there is unmapped.
  /// In such a range, replace() maps, and this again unmaps.
  /// Errors  as replace() and map_null().
  [[nodiscard]] Result<Replaced> cover(Range<DeviceAddr> range, Access access);

  /// Makes ready what it takes to let the mapping that begins at `start` lead to other memory, of
  /// the same length: for memory that is moved while the device does not use it.
  /// Errors  invalid_argument: no mapping begins there, or the runs have another length, or as map().
  ///         no_memory: no tables, or no memory to note it.  State unchanged in all cases.
  [[nodiscard]] Result<Remap> prepare_remap(DeviceAddr start, std::span<const Run> runs);

  /// Ends every mapping and takes the root away: the device must have stopped. Never allocates.
  /// Pre: not called before, no other operation is under way (checked).
  Unmapped unmap_all();

  [[nodiscard]] std::optional<Translation> translate(DeviceAddr va) const;
  [[nodiscard]] Walk walk(DeviceAddr va) const;
  /// Calls f for each leaf that the range meets, in ascending order. f must not use this space.
  void for_each_leaf(Range<DeviceAddr> range, const std::function<void(const Leaf&)>& f) const;
  /// What stands behind an access that faulted.
  [[nodiscard]] FaultReport explain(const FaultedAccess& access) const;
  /// Passes a range on to the device as a hint, if it has a use for that.
  /// Errors  invalid_argument: the range is empty or outside the space.
  [[nodiscard]] Result<void> prefetch(Range<DeviceAddr> range) const;

  /// Where the device's root register points for this space.
  [[nodiscard]] BusAddr root() const { return root_address(); }
  /// From the first window's begin to the last one's end.
  [[nodiscard]] Range<DeviceAddr> range() const { return range_; }
  /// Stretches that were mapped, or left of a mapping, as a whole.
  [[nodiscard]] std::size_t mappings() const;
  [[nodiscard]] ByteCount mapped_bytes() const;
  /// Bytes of the tables that the tree links now, root included.
  /// Cost  O(entries of the tables that link others).
  [[nodiscard]] ByteCount table_bytes() const;
  /// Tables set aside so that leaves can be cut.
  [[nodiscard]] std::uint32_t spare_tables() const;

  /// Checks the tree, the free addresses and the mappings, each and against each other. Aborts if
  /// they contradict.
  /// Cost  O(leaves + entries of all linked tables).
  void validate() const;

 protected:
  /// What the books need to know about a format.
  struct FormatFacts {
    std::uint64_t leaf_sizes;  ///< a set, as Geometry::leaf_sizes()
    unsigned bus_bits;
    unsigned hops;
    std::array<std::uint64_t, max_hops> leaf_sizes_at;  ///< by hop

    /// Tables that cutting one leaf, the largest of `sizes`, may need.
    [[nodiscard]] std::uint32_t tables_for_cut(std::uint64_t sizes) const;
    /// The hop nearest the root that has leaves of `sizes`.
    [[nodiscard]] unsigned first_hop(std::uint64_t sizes) const;
  };
  using ForgetNow = std::function<void(Range<DeviceAddr>)>;
  struct DeleteBooks {
    void operator()(Books* books) const;
  };
  using BooksOwner = std::unique_ptr<Books, DeleteBooks>;

  AddressSpace(TablePool& pool, const FormatFacts& facts, BooksOwner books);

  /// Errors  invalid_argument: no windows, too many, or they are not as SpaceOptions wants them.
  ///         no_memory.
  [[nodiscard]] static Result<BooksOwner> open_books(const SpaceOptions& options, Alignment page,
                                                     std::uint64_t va_end);
  [[nodiscard]] const ForgetNow& forget_now() const;
  [[nodiscard]] TablePool& pool() { return *pool_; }

 private:
  friend class Unmapped;
  friend class Remap;
  struct Writing;
  enum class Overlap : std::uint8_t { refuse, replace };

  virtual Result<void> write(DeviceAddr va, std::span<const Run> runs, Attributes attributes) = 0;
  virtual Result<Detached<TablePool>> overwrite(Range<DeviceAddr> range, std::span<const Run> runs,
                                                Attributes attributes, TableList& cuts) = 0;
  virtual Result<void> cut(Range<DeviceAddr> range, TableList& cuts) = 0;
  virtual Result<Detached<TablePool>> remove(Range<DeviceAddr> range) = 0;
  virtual Result<void> change(Range<DeviceAddr> range, Attributes attributes) = 0;
  virtual Result<Detached<TablePool>> join(Range<DeviceAddr> range) = 0;
  virtual Result<void> clean(Range<DeviceAddr> range,
                             const std::function<void(Range<DeviceAddr>)>& f) = 0;
  virtual Detached<TablePool> remove_all() = 0;
  /// The tables that lead_elsewhere() may need for the same arguments.
  virtual Result<TableList> room_for(DeviceAddr va, std::span<const Run> runs,
                                     Attributes attributes) = 0;
  virtual Detached<TablePool> lead_elsewhere(Range<DeviceAddr> range, std::span<const Run> runs,
                                             Attributes attributes, TableList room) = 0;
  /// The leaf sizes that these runs take there.
  [[nodiscard]] virtual std::uint64_t sizes(DeviceAddr va, std::span<const Run> runs) const = 0;
  [[nodiscard]] virtual std::optional<Translation> look_up(DeviceAddr va) const = 0;
  [[nodiscard]] virtual Walk trace(DeviceAddr va) const = 0;
  virtual void visit(Range<DeviceAddr> range, const std::function<void(const Leaf&)>& f) const = 0;
  [[nodiscard]] virtual BusAddr root_address() const = 0;
  [[nodiscard]] virtual std::uint32_t count_tables() const = 0;
  /// Validates the tree. Returns the bytes that its leaves map.
  [[nodiscard]] virtual ByteCount check_tree() const = 0;

  using Lock = std::unique_lock<std::mutex>;

  // Of map and replace.
  [[nodiscard]] Result<MappedRange> write_new(Writing& writing, Placement placement);
  [[nodiscard]] Result<Replaced> write_over(Writing& writing, Placement placement);
  [[nodiscard]] Result<Detached<TablePool>> reserve_and_overwrite(Writing& writing,
                                                                  TableList& reserve,
                                                                  TableList& cuts);
  void enter(Writing& writing, TableList reserve);
  [[nodiscard]] Result<void> place(Writing& writing, Placement placement, Overlap overlap,
                                   Lock& lock);
  [[nodiscard]] Result<void> place_at(Writing& writing, DeviceAddr begin, ByteCount length,
                                      Overlap overlap, Lock& lock);
  [[nodiscard]] Result<Range<DeviceAddr>> place_anywhere(const Writing& writing, ByteCount length,
                                                         VaUse use);
  [[nodiscard]] Result<std::vector<Run>> null_runs(ByteCount size) const;
  [[nodiscard]] Result<Range<DeviceAddr>> take_reservation(ByteCount size, Placement placement,
                                                           Alignment alignment);

  // Of unmap and protect.
  [[nodiscard]] Result<PieceChain> prepare_change(Range<DeviceAddr> range, TableList& cuts,
                                                  Gaps gaps);
  [[nodiscard]] Result<void> prepare_cuts(Range<DeviceAddr> range, TableList& cuts);
  void settle_cuts(Range<DeviceAddr> range, TableList& cuts);
  void cut_books(Range<DeviceAddr> range, PieceChain& nodes);
  void rejoin(Range<DeviceAddr> range);
  void note_sizes(Range<DeviceAddr> range, std::uint64_t sizes);
  [[nodiscard]] Touched touched_in(Range<DeviceAddr> range) const;
  [[nodiscard]] Unmapped collect(Range<DeviceAddr> range, Detached<TablePool> detached,
                                 Touched touched);
  void released(Piece* pieces, TableList tables, std::uint64_t ended_at);

  [[nodiscard]] Unmapped apply_remap(Range<DeviceAddr> range, std::span<const Run> runs,
                                     Attributes attributes, TableList room);

  // Of all.
  std::uint64_t end(Operation& operation) const;
  void give_back_passed() const;
  template <class Look>
  auto read(Range<DeviceAddr> range, Look&& look) const;
  [[nodiscard]] static FaultReport::Covered covered_by(const Piece& piece);

  TablePool* pool_;
  Range<DeviceAddr> range_;
  FormatFacts facts_;
  BooksOwner books_;
};

/// Makes an address space in one format over tables from a pool. A driver names one in its
/// description.
using AddressSpaceFactory = Result<std::unique_ptr<AddressSpace>> (*)(TablePool& pool,
                                                                      Range<DeviceAddr> range);

}  // namespace accelmm::mmu

#include <accelmm/mmu/format_address_space.hpp>
