// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/check.hpp>
#include <accelmm/error.hpp>
#include <accelmm/extent.hpp>
#include <accelmm/mmu/detached.hpp>
#include <accelmm/mmu/format.hpp>
#include <accelmm/mmu/page_table_change.hpp>
#include <accelmm/mmu/page_table_cut.hpp>
#include <accelmm/mmu/page_table_map.hpp>
#include <accelmm/mmu/page_table_merge.hpp>
#include <accelmm/mmu/page_table_read.hpp>
#include <accelmm/mmu/run_cursor.hpp>
#include <accelmm/mmu/table_memory.hpp>
#include <accelmm/mmu/walk.hpp>
#include <accelmm/units.hpp>

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <type_traits>
#include <utility>

namespace accelmm::mmu {

/// What to do where a range ends inside a leaf.
enum class Edges : std::uint8_t {
  refuse,
  split,  ///< replace the leaf by smaller ones first, down to what the end needs
  whole,  ///< take the whole leaf: the range grows
};

/// What to do where a part of a range is not mapped.
enum class Gaps : std::uint8_t { refuse, skip };

struct RangeRule {
  Edges edges = Edges::refuse;
  Gaps gaps = Gaps::refuse;
};

/// For formats that never need a device to forget an entry before its size changes.
struct NeverBreaks {
  void operator()(Range<DeviceAddr> /*range*/) const {}
};

/// The tables that a map into one range may need, taken beforehand.
///
/// Lifetime  move-only; what commit() did not use goes back with it. Its tree must outlive it.
template <PteFormat F, TableMemory Memory>
class [[nodiscard]] Prepared {
 public:
  Prepared(Memory& memory, Range<DeviceAddr> range, typename F::Word bits, TableList tables)
      : memory_(&memory), range_(range), bits_(bits), tables_(std::move(tables)) {}
  Prepared(Prepared&& other) noexcept = default;
  Prepared& operator=(Prepared&&) = delete;
  Prepared(const Prepared&) = delete;
  Prepared& operator=(const Prepared&) = delete;
  ~Prepared() { memory_->give_back(std::move(tables_)); }

  [[nodiscard]] Range<DeviceAddr> range() const { return range_; }
  [[nodiscard]] std::uint32_t tables() const { return tables_.count; }
  /// Gives the tables out of hand; another one can be made of them.
  [[nodiscard]] TableList take_tables() && { return std::move(tables_); }

 private:
  template <PteFormat, TableMemory>
  friend class PageTable;

  Memory* memory_;
  Range<DeviceAddr> range_;
  typename F::Word bits_;
  TableList tables_;
};

/// One tree of page tables: what a device walks for one address space.
///
/// Owns      its tables, root included, in a memory that outlives it.
/// Threads   each operation by any thread, at the same time as others on ranges apart from it; a
///           range is apart if it shares no leaf. Whoever releases what an unmap detached waits for
///           the operations that began before the unmap ended: they may still pass its tables.
///           for_each_leaf() of a range, translate() and walk() count as operations on what they
///           read. A device may walk the tables at any time: it sees no link to a table that is not
///           complete, and each word old or new.
/// Lifetime  move-only; detach_all() before it is destroyed (checked).
/// Invariant a linked table has as many live words as its memory counts, at least one unless it is
///           the root -> validate().
/// Cost      map O(tables touched + stores), one store per entry; unmap the same; translate
///           O(hops). Never allocates from the heap.
template <PteFormat F, TableMemory Memory>
class PageTable {
  using G = Geometry<F>;
  using Word = typename F::Word;
  static_assert(G::is_regular());

 public:
  /// Makes an empty tree: one table, the root.
  /// Errors  invalid_argument: the memory's tables are too small for the format, or lie beyond its
  ///         bus addresses.
  ///         no_memory: no table left.
  [[nodiscard]] static Result<PageTable> create(Memory& memory);

  PageTable(PageTable&& other) noexcept
      : memory_(other.memory_), root_(std::exchange(other.root_, Table{})) {}
  PageTable& operator=(PageTable&&) = delete;
  PageTable(const PageTable&) = delete;
  PageTable& operator=(const PageTable&) = delete;
  ~PageTable() { ACCELMM_CHECK(root_.words == nullptr); }

  /// Where the device's root register points.
  [[nodiscard]] BusAddr root() const { return root_.address; }
  /// Tables linked into the tree, root included. Counted by reading those that link others.
  [[nodiscard]] std::uint32_t tables() const {
    if (root_.words == nullptr) return 0;
    return detail::TreeReader<F, Memory>(*memory_).count_tables(root_);
  }

  /// Maps the runs one after the other from `va` on, with the largest leaves that fit.
  /// Errors  invalid_argument: check_runs() refuses them, or there are no such attributes.
  ///         not_supported: the format cannot express the attributes.
  ///         address_in_use: any part is mapped already.
  ///         no_memory: tables run out.
  ///         State unchanged in all cases.
  [[nodiscard]] Result<void> map(DeviceAddr va, std::span<const Run> runs, Attributes attributes);

  /// Takes all tables that a map of the whole range, with whatever runs, may need.
  /// Errors  as map().
  [[nodiscard]] Result<Prepared<F, Memory>> prepare(Range<DeviceAddr> range, Attributes attributes);

  /// Takes all tables that a map of these runs may need, whatever is mapped there now: what is there
  /// is unmapped between this and commit().
  /// Errors  as map(), but not address_in_use.
  [[nodiscard]] Result<Prepared<F, Memory>> prepare_over(DeviceAddr va, std::span<const Run> runs,
                                                         Attributes attributes);

  /// Maps into a prepared range. Cannot fail, takes no memory.
  /// Pre: the runs are whole pages that the format's bus addresses hold and fill the range
  ///      (checked); nothing was mapped there meanwhile.
  void commit(Prepared<F, Memory>&& prepared, std::span<const Run> runs);

  /// Removes the leaves of the range, and the tables that die of it. Cannot fail on a range that
  /// one map() made.
  ///
  /// `break_now(range)` is called where Edges::split changes the size of a leaf and the format
  /// breaks before it makes: it returns when the device has forgotten the range.
  /// Errors  invalid_argument: the range is empty, unaligned or outside the device addresses, cuts
  ///         a leaf (Edges::refuse), or has a gap (Gaps::refuse).
  ///         no_memory: no tables to split a leaf.
  ///         not_supported: a large leaf beside small ones in a dual entry would have to be split.
  ///         What is mapped is unchanged in all cases; leaves may be smaller than before.
  template <class BreakNow = NeverBreaks>
  [[nodiscard]] Result<Detached<Memory>> unmap(Range<DeviceAddr> range, RangeRule rule = {},
                                               BreakNow break_now = {});

  /// Gives the leaves of the range other attributes. The caller invalidates the range. Dirty marks
  /// are kept.
  /// Errors  as unmap() and map(). What is mapped, and how, is unchanged in all cases.
  template <class BreakNow = NeverBreaks>
  [[nodiscard]] Result<void> protect(Range<DeviceAddr> range, Attributes attributes,
                                     RangeRule rule = {}, BreakNow break_now = {});

  /// Replaces leaves in the range by smaller ones until none crosses an end of it.
  /// Errors  invalid_argument: no range of pages. no_memory, not_supported: as unmap().
  template <class BreakNow = NeverBreaks>
  [[nodiscard]] Result<void> split(Range<DeviceAddr> range, BreakNow break_now = {});

  /// The same with tables taken beforehand: what is used is taken off `tables`.
  /// Pre: for each end of the range, one table for each hop below that of the leaf it cuts (checked).
  /// Errors  invalid_argument, not_supported: as above.
  template <class BreakNow = NeverBreaks>
  [[nodiscard]] Result<void> split(Range<DeviceAddr> range, TableList& tables,
                                   BreakNow break_now = {});

  /// Replaces small leaves that lie in the range by larger ones where they map neighbouring memory
  /// alike. The caller invalidates the range, and releases the tables that were saved.
  /// Errors  invalid_argument: no range of pages.
  template <class BreakNow = NeverBreaks>
  [[nodiscard]] Result<Detached<Memory>> merge(Range<DeviceAddr> range, BreakNow break_now = {});

  /// Calls f(begin, end) for each leaf of the range that the device wrote through since it was
  /// mapped or last asked, in ascending order. The caller invalidates the range.
  /// Errors  invalid_argument: no range of pages, or it cuts a leaf.
  template <class Visit>
    requires(F::has_dirty)
  [[nodiscard]] Result<void> read_and_clear_dirty(Range<DeviceAddr> range, Visit&& f);

  /// Removes everything, the root too: the tree is gone afterwards, and only its destructor may
  /// follow.
  [[nodiscard]] Detached<Memory> detach_all();

  /// What a device address means now; nothing where it is not mapped or outside the device
  /// addresses.
  [[nodiscard]] std::optional<Translation> translate(DeviceAddr va) const;

  /// The entries a device reads on its way to `va`; no step at all outside the device addresses.
  [[nodiscard]] Walk walk(DeviceAddr va) const;

  /// Calls f(const Leaf&) for each leaf in ascending order. f must not change the tree.
  template <class Visit>
  void for_each_leaf(Visit&& visit) const {
    for_each_leaf({DeviceAddr(0), DeviceAddr(G::va_end)}, visit);
  }
  /// The same for the leaves that the range meets.
  template <class Visit>
  void for_each_leaf(Range<DeviceAddr> range, Visit&& visit) const {
    detail::TreeReader<F, Memory>(*memory_).visit(root_, range.begin.value(),
                                                  std::min(range.end.value(), G::va_end), visit);
  }

  /// Checks the whole tree against the invariant and the format. Aborts if they do not hold.
  /// Cost  O(entries of all linked tables).
  void validate() const {
    detail::TreeReader<F, Memory> reader(*memory_);
    ACCELMM_CHECK(reader.validate(root_) == reader.count_tables(root_));
  }

 private:
  PageTable(Memory& memory, Table root) : memory_(&memory), root_(root) {}

  [[nodiscard]] static Result<void> check_range(Range<DeviceAddr> range);
  enum class Fast : std::uint8_t { done, in_use, no };
  struct Place {
    Table table;
    unsigned hop;
  };
  [[nodiscard]] static bool is_within_one_table(Range<DeviceAddr> range);
  template <unsigned hop>
  [[nodiscard]] Place go_down(Table table, std::uint64_t va) const;
  [[nodiscard]] Fast map_in_one_table(Range<DeviceAddr> range, std::span<const Run> runs,
                                      Word bits);
  [[nodiscard]] Fast map_in_one_stretch(Range<DeviceAddr> range, const Run& run, Word bits);
  [[nodiscard]] Fast map_in_new_table(Table parent, std::uint64_t va, std::span<const Run> runs,
                                      Word bits);
  std::uint32_t put_runs(Table table, std::uint64_t va, std::span<const Run> runs, Word bits,
                         Reach reach);
  [[nodiscard]] bool unmap_in_one_table(Range<DeviceAddr> range, TableList& gone,
                                        unsigned& first_hop);
  unsigned unlink_dead(Table dead, std::uint64_t va, Contents contents, TableList& gone);
  [[nodiscard]] Table table_at(std::uint64_t va, unsigned hop) const;
  void write(Range<DeviceAddr> range, std::span<const Run> runs, Word bits, TableList& tables);
  struct Settled {
    Range<DeviceAddr> range;
    detail::Coverage coverage;
  };
  template <class BreakNow>
  [[nodiscard]] Result<Settled> settle_edges(Range<DeviceAddr> range, RangeRule rule,
                                             BreakNow& break_now);
  template <class BreakNow>
  [[nodiscard]] Result<void> split_at_ends(Range<DeviceAddr> range, BreakNow& break_now);
  template <class BreakNow>
  [[nodiscard]] Result<void> split_with(Range<DeviceAddr> range, TableList& tables,
                                        BreakNow& break_now);
  [[nodiscard]] Range<DeviceAddr> grown_to_leaves(Range<DeviceAddr> range) const;

  Memory* memory_;
  Table root_;
};

}  // namespace accelmm::mmu

#include <accelmm/mmu/page_table_impl.hpp>
#include <accelmm/mmu/page_table_range_impl.hpp>
