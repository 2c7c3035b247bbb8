// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/error.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <optional>
#include <type_traits>
#include <utility>
#include <vector>

namespace accelmm {

/// A name for something that a HandleTable holds: 64 bits, opaque to whoever receives it.
///
///   63    56 55        32 31       20 19        0
///   [ type ] [generation] [table tag] [ slot + 1 ]   the lower 32 bits are the index
///
/// A raw value of 0 is never valid, since slot + 1 is not 0.
class Handle {
 public:
  constexpr Handle() = default;
  [[nodiscard]] static constexpr Handle from_raw(std::uint64_t raw) { return Handle(raw); }
  [[nodiscard]] constexpr std::uint64_t raw() const { return raw_; }
  [[nodiscard]] constexpr std::uint8_t type() const {
    return static_cast<std::uint8_t>(raw_ >> 56);
  }
  [[nodiscard]] constexpr std::uint32_t generation() const {
    return static_cast<std::uint32_t>(raw_ >> 32) & 0xff'ffff;
  }
  [[nodiscard]] constexpr std::uint32_t index() const { return static_cast<std::uint32_t>(raw_); }
  constexpr bool operator==(const Handle&) const = default;

 private:
  explicit constexpr Handle(std::uint64_t raw) : raw_(raw) {}
  std::uint64_t raw_ = 0;
};

namespace mm {

/// What sets the handles of one table apart from those of others.
struct TableSalt {
  std::uint32_t tag;         ///< 12 bits: counts tables of this process, modulo 4096
  std::uint32_t generation;  ///< 24 bits: differs from table to table and from process to process
};
/// Threads  any; one atomic increment.
[[nodiscard]] TableSalt next_table_salt() noexcept;

}  // namespace mm

/// Things of one owner (a session, a client), each under a handle that is refused once it is stale.
///
/// What is refused, always: a handle that was removed (a slot's generations never repeat), one made
/// up without knowing a live one's bits, one of another type, and one of any table among the 4095
/// made before and after this one in the same process. Of other tables, and of another run of the
/// process, a handle passes by a chance of about 2^-24, and only where slot and type agree too.
/// Handles are no secret and grant nothing by themselves: they are looked up in their owner's
/// table.
///
/// Owns      its values, and 64 slots at a time, as they are first needed. Addresses of values are
///           stable until removed.
/// Threads   externally synchronised (docs/mm.md "Locking").
/// Lifetime  move-only; destroys what it still holds, in order of slots. A moved-from table may
/// only
///           be destroyed or assigned to.
/// Cost      find one load and compare; insert and remove O(1); for_each O(slots ever used at
/// once).
template <class T>
class HandleTable {
  static_assert(std::is_nothrow_move_constructible_v<T>, "a failed insert must change nothing");

 public:
  /// The slots that a 20-bit slot + 1 can name.
  static constexpr std::uint32_t max_capacity = (std::uint32_t{1} << 20) - 1;

  /// Makes an empty table for at most `capacity` values at once.
  /// Errors  invalid_argument: capacity is 0 or above max_capacity.
  [[nodiscard]] static Result<HandleTable> create(std::uint32_t capacity) {
    if (capacity == 0 || capacity > max_capacity)
      return fail(Errc::invalid_argument, "capacity of a handle table is 1 to 2^20 - 1");
    return HandleTable(capacity, mm::next_table_salt());
  }

  HandleTable(HandleTable&&) noexcept = default;
  HandleTable& operator=(HandleTable&&) noexcept = default;
  HandleTable(const HandleTable&) = delete;
  HandleTable& operator=(const HandleTable&) = delete;
  ~HandleTable() = default;

  /// Stores a value. On failure the value is destroyed and nothing else changes.
  /// Errors  over_quota: the table holds `capacity` values, or every slot is worn out (each can be
  ///         used 2^24 times).  no_memory: no room for slots.
  [[nodiscard]] Result<Handle> insert(std::uint8_t type, T value) {
    if (size_ == capacity_) return fail(Errc::over_quota, "handle table is full");
    if (free_slot_ == no_slot) {
      if (auto grown = grow(); !grown) return fail(grown.error());
    }
    const std::uint32_t number = free_slot_;
    Slot& slot = slot_at(number);
    free_slot_ = slot.next_free;
    slot.raw = raw_handle(type, number, slot.generation);
    slot.value.emplace(std::move(value));
    ++size_;
    return Handle::from_raw(slot.raw);
  }

  /// Errors  invalid_argument: stale, forged, of another table or of another type (they cannot be
  ///         told apart).
  [[nodiscard]] Result<T*> find(Handle handle, std::uint8_t type) {
    Slot* slot = live_slot(handle, type);
    if (slot == nullptr) return fail(Errc::invalid_argument, "no such handle");
    return &*slot->value;
  }

  /// Takes the value out; the handle is stale from now on.
  /// Errors  as find(), state unchanged.
  [[nodiscard]] Result<T> remove(Handle handle, std::uint8_t type) {
    Slot* slot = live_slot(handle, type);
    if (slot == nullptr) return fail(Errc::invalid_argument, "no such handle");
    Result<T> value(std::in_place, std::move(*slot->value));
    slot->value.reset();
    slot->raw = 0;
    --size_;
    if (slot->generation == last_generation) return value;  // retired: it would repeat a handle
    ++slot->generation;
    slot->next_free = free_slot_;
    free_slot_ = slot_number(handle);
    return value;
  }

  [[nodiscard]] std::uint32_t size() const { return size_; }
  [[nodiscard]] std::uint32_t capacity() const { return capacity_; }

  /// Calls f(Handle, T&) for each value, in order of slots. f must not insert or remove.
  template <class F>
  void for_each(F f) {
    for (const auto& chunk : chunks_)
      for (Slot& slot : *chunk)
        if (slot.raw != 0) f(Handle::from_raw(slot.raw), *slot.value);
  }

 private:
  static constexpr std::uint32_t chunk_slots = 64;  // a table of few handles stays within a few KiB
  static constexpr std::uint32_t no_slot = ~std::uint32_t{0};
  static constexpr std::uint32_t slot_mask = max_capacity;
  static constexpr std::uint32_t last_generation = 0xff'ffff;

  struct Slot {
    std::uint64_t raw = 0;         // the handle while live, else 0
    std::uint32_t generation = 0;  // of the handle, before the salt
    std::uint32_t next_free = no_slot;
    std::optional<T> value;
  };
  using Chunk = std::array<Slot, chunk_slots>;

  HandleTable(std::uint32_t capacity, mm::TableSalt salt) : capacity_(capacity), salt_(salt) {}

  [[nodiscard]] static std::uint32_t slot_number(Handle handle) {
    return (handle.index() & slot_mask) - 1;
  }
  [[nodiscard]] Slot& slot_at(std::uint32_t number) {
    return (*chunks_[number / chunk_slots])[number % chunk_slots];
  }
  [[nodiscard]] std::uint64_t raw_handle(std::uint8_t type, std::uint32_t number,
                                         std::uint32_t generation) const {
    return (std::uint64_t{type} << 56) | (std::uint64_t{generation ^ salt_.generation} << 32) |
           (std::uint64_t{salt_.tag} << 20) | (number + 1);
  }

  /// The slot that this very handle names, or null.
  [[nodiscard]] Slot* live_slot(Handle handle, std::uint8_t type) {
    const std::uint32_t number = slot_number(handle);  // slot + 1 == 0 becomes the largest number
    if (number / chunk_slots >= chunks_.size()) return nullptr;
    Slot& slot = slot_at(number);
    if (slot.raw != handle.raw() || slot.raw == 0 || handle.type() != type) return nullptr;
    return &slot;
  }

  /// Adds a chunk of slots to the free ones.
  [[nodiscard]] Result<void> grow() {
    const std::size_t first = chunks_.size() * chunk_slots;
    if (first >= max_capacity) return fail(Errc::over_quota, "every handle slot is worn out");
    try {
      chunks_.push_back(std::make_unique<Chunk>());
    } catch (const std::bad_alloc&) {
      return fail(Errc::no_memory, "no room for handle slots");
    }
    for (std::uint32_t i = chunk_slots; i-- > 0;) {  // the lowest slot ends on top
      const auto number = static_cast<std::uint32_t>(first) + i;
      if (number >= max_capacity) continue;
      slot_at(number).next_free = free_slot_;
      free_slot_ = number;
    }
    return {};
  }

  std::uint32_t capacity_;
  mm::TableSalt salt_;
  std::uint32_t size_ = 0;
  std::uint32_t free_slot_ = no_slot;
  std::vector<std::unique_ptr<Chunk>> chunks_;
};

}  // namespace accelmm
