// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/check.hpp>
#include <accelmm/mmu/invalidation.hpp>
#include <accelmm/mmu/table_memory.hpp>
#include <accelmm/units.hpp>

#include <cstdint>
#include <utility>

namespace accelmm::mmu {

class AddressSpace;
struct Piece;  // of the books: a stretch of one mapping

/// What is gone from the tables but may be in a device's caches still: parts of mappings, the tables
/// they had, their device addresses; of a mapping that leads elsewhere now, or whose leaves were
/// merged, the old leaves.
///
/// None of it is given out again until release().
/// Lifetime  move-only; must be released (checked), before its address space is destroyed.
/// Threads   each by one thread at a time; several of one address space by several.
class [[nodiscard]] Unmapped {
 public:
  Unmapped(Unmapped&& other) noexcept
      : space_(std::exchange(other.space_, nullptr)),
        pieces_(std::exchange(other.pieces_, nullptr)),
        range_(other.range_),
        scope_(other.scope_),
        touched_(other.touched_),
        tables_(std::move(other.tables_)),
        ended_at_(other.ended_at_) {}
  Unmapped& operator=(Unmapped&&) = delete;
  Unmapped(const Unmapped&) = delete;
  Unmapped& operator=(const Unmapped&) = delete;
  ~Unmapped() { ACCELMM_CHECK(space_ == nullptr); }

  /// What must be invalidated: everything that is gone lies in it.
  [[nodiscard]] Range<DeviceAddr> range() const { return range_; }
  [[nodiscard]] const Touched& touched() const { return touched_; }
  [[nodiscard]] std::uint32_t tables() const { return tables_.count; }
  /// Whether nothing was mapped there: no invalidation is needed.
  [[nodiscard]] bool is_empty() const { return pieces_ == nullptr && scope_ == Scope::pieces; }
  /// Whether what is mapped there stays, through other leaves.
  [[nodiscard]] bool is_moved() const { return scope_ == Scope::moved; }
  /// Whether it is all of an address space, root included.
  [[nodiscard]] bool is_whole() const { return scope_ == Scope::whole; }
  /// Calls f(range) for each stretch that is gone. They may touch, and come in no order.
  template <class Visit>
  void for_each_range(Visit&& f) const {
    if (scope_ != Scope::pieces) return f(range_);
    for (const Piece* piece = pieces_; piece != nullptr; piece = next_of(*piece))
      f(range_of(*piece));
  }

  /// Takes over what another one of the same address space holds. Cannot fail; never allocates.
  void absorb(Unmapped&& other);

  /// Gives tables and addresses back. Cannot fail; never allocates.
  /// Pre: the invalidation covers each range (checked).
  void release(InvalidationDone done) &&;

 private:
  friend class AddressSpace;
  /// moved: what is mapped keeps its addresses, and has other leaves.
  enum class Scope : std::uint8_t { pieces, moved, whole };

  Unmapped(AddressSpace& space, Range<DeviceAddr> range, Scope scope, const Touched& touched,
           TableList tables)
      : space_(&space),
        range_(range),
        scope_(scope),
        touched_(touched),
        tables_(std::move(tables)) {}

  [[nodiscard]] static const Piece* next_of(const Piece& piece);
  [[nodiscard]] static Range<DeviceAddr> range_of(const Piece& piece);

  AddressSpace* space_;
  Piece* pieces_ = nullptr;
  Range<DeviceAddr> range_;
  Scope scope_;
  Touched touched_;
  TableList tables_;
  std::uint64_t ended_at_ = 0;  // by the clock of the space's operations
};

}  // namespace accelmm::mmu
