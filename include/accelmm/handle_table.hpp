// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/check.hpp>
#include <accelmm/error.hpp>
#include <accelmm/handle_slots.hpp>

#include <cstdint>
#include <memory>
#include <new>
#include <optional>
#include <type_traits>
#include <utility>

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
/// Two kinds of lookup. find() only looks: for whoever is told otherwise that the value stays (a
/// table of one thread; a lock). pin() counts: the value stays until the pin is gone, whatever other
/// threads do, and none that was removed or withdrawn is ever found again, let alone pinned.
///
/// Owns      its values, and slots for 64 of them, then twice as many each time these are all in
///           use. Addresses of values are stable until removed.
/// Threads   insert, find, pin, remove, withdraw, size and the end of a pin: any, at any time,
///           without a lock; none waits for another thread, and find and pin never repeat a step.
///           for_each, moves and destruction: externally synchronised.
/// Lifetime  move-only, also with pins; destroys what it still holds, in order of slots; no pin may
///           outlive it (checked). A moved-from table is empty, and may otherwise only be destroyed
///           or assigned to.
/// Cost      find two loads and a compare; pin besides one atomic addition, and one when it ends;
///           insert and remove O(1); for_each O(slots ever used at once).
template <class T, class Atomics = mm::StdAtomics>
class HandleTable {
  static_assert(std::is_nothrow_move_constructible_v<T>, "a failed insert must change nothing");
  struct Core;
  using Slot = mm::HandleSlot<T, Atomics>;

 public:
  class Pin;

  /// The slots that a 20-bit slot + 1 can name.
  static constexpr std::uint32_t max_capacity = mm::HandleSlots<T, Atomics>::max_slots;

  /// Makes an empty table for at most `capacity` values at once.
  /// Errors  invalid_argument: capacity is 0 or above max_capacity.  no_memory
  [[nodiscard]] static Result<HandleTable> create(std::uint32_t capacity) {
    if (capacity == 0 || capacity > max_capacity)
      return fail(Errc::invalid_argument, "capacity of a handle table is 1 to 2^20 - 1");
    std::unique_ptr<Core> core(new (std::nothrow) Core(capacity, mm::next_table_salt()));
    if (core == nullptr) return fail(Errc::no_memory, "no room for a handle table");
    return HandleTable(std::move(core));
  }

  /// Stores a value. On failure the value is destroyed and nothing else changes.
  /// Errors  over_quota: the table holds `capacity` values, or every slot is worn out (each can be
  ///         used 2^24 times).  no_memory: no room for slots.
  [[nodiscard]] Result<Handle> insert(std::uint8_t type, T value) {
    if (!core_->reserve()) return fail(Errc::over_quota, "handle table is full");
    const auto number = core_->slots.take();
    if (!number) {
      core_->size.fetch_sub(1, std::memory_order_release);
      return fail(number.error());
    }
    Slot& slot = core_->slots.at(*number);
    const Handle handle = core_->handle_of(type, *number, slot.next_generation());
    slot.open(handle.raw(), std::move(value));
    return handle;
  }

  /// Looks a value up for a caller who knows that it is not removed while it is used.
  /// Errors  invalid_argument: stale, forged, of another table or of another type (they cannot be
  ///         told apart).
  [[nodiscard]] Result<T*> find(Handle handle, std::uint8_t type) {
    Slot* slot = named_slot(handle, type);
    if (slot == nullptr) return fail(Errc::invalid_argument, "no such handle");
    return &slot->value();
  }

  /// Looks a value up and keeps it alive until the pin is gone.
  /// Errors  as find().
  [[nodiscard]] Result<Pin> pin(Handle handle, std::uint8_t type) {
    Slot* slot = named_slot(handle, type);
    if (slot == nullptr) return fail(Errc::invalid_argument, "no such handle");
    if (slot->count(core_->generation_of(handle))) return Pin(*core_, *slot, handle);
    (void)core_->drop(*slot, handle);  // removed since; this may even be the last to let go
    return fail(Errc::invalid_argument, "no such handle");
  }

  /// Takes the value out; the handle is stale from now on.
  /// Errors  as find(), state unchanged.  busy: it is pinned, also for the moment that a lookup by
  ///         an older handle of the same slot takes to fail (state unchanged).
  [[nodiscard]] Result<T> remove(Handle handle, std::uint8_t type) {
    Slot* slot = named_slot(handle, type);
    const auto closing =
        slot == nullptr ? Slot::Closing::refused : slot->close(core_->generation_of(handle));
    if (closing == Slot::Closing::refused) return fail(Errc::invalid_argument, "no such handle");
    if (closing == Slot::Closing::in_use)
      return fail(Errc::busy, "what the handle names is pinned");
    return Result<T>(std::in_place, core_->empty(*slot, handle));
  }

  /// Makes the handle stale, and takes the value out if no one has it pinned; else it goes to, or
  /// with, whoever lets go of it last: a pin, or a lookup that came too late. Until then it counts in
  /// size().
  /// Errors  as find(), state unchanged.
  [[nodiscard]] Result<std::optional<T>> withdraw(Handle handle, std::uint8_t type) {
    Slot* slot = named_slot(handle, type);
    if (slot == nullptr || !slot->condemn(core_->generation_of(handle)))
      return fail(Errc::invalid_argument, "no such handle");
    return core_->drop(*slot, handle);
  }

  [[nodiscard]] std::uint32_t size() const {
    return core_ == nullptr ? 0 : core_->size.load(std::memory_order_relaxed);
  }
  [[nodiscard]] std::uint32_t capacity() const { return core_->capacity; }

  /// Calls f(Handle, T&) for each value that can be found, in order of slots. f must not insert,
  /// remove or withdraw.
  template <class F>
  void for_each(F f) {
    core_->slots.for_each([&](Slot& slot) {
      if (slot.is_live()) f(Handle::from_raw(slot.name()), slot.value());
    });
  }

 private:
  explicit HandleTable(std::unique_ptr<Core> core) : core_(std::move(core)) {}

  /// The slot that this very handle names, or null.
  [[nodiscard]] Slot* named_slot(Handle handle, std::uint8_t type) {
    Slot* slot = core_->slots.find(handle.index() & max_capacity);
    if (slot == nullptr || !slot->is_named(handle.raw()) || handle.type() != type) return nullptr;
    return slot;
  }

  std::unique_ptr<Core> core_;  // apart, so that pins stay right while the table moves
};

/// A value of a handle table that stays, and stays where it is, while this lives.
///
/// Threads   one at a time; pins of one value do not know each other.
/// Lifetime  move-only; must end before its table. If the value was withdrawn meanwhile, the last
///           pin to end destroys it, or hands it out by release().
template <class T, class Atomics>
class HandleTable<T, Atomics>::Pin {
 public:
  Pin(Pin&& other) noexcept
      : core_(std::exchange(other.core_, nullptr)), slot_(other.slot_), handle_(other.handle_) {}
  Pin& operator=(Pin&& other) noexcept {
    if (this != &other) {
      (void)release();
      core_ = std::exchange(other.core_, nullptr);
      slot_ = other.slot_;
      handle_ = other.handle_;
    }
    return *this;
  }
  Pin(const Pin&) = delete;
  Pin& operator=(const Pin&) = delete;
  ~Pin() { (void)release(); }

  [[nodiscard]] T& operator*() const { return slot_->value(); }
  [[nodiscard]] T* operator->() const { return &slot_->value(); }

  /// Ends the pin now. The value comes out if it was withdrawn and this was the last to let go.
  [[nodiscard]] std::optional<T> release() {
    Core* core = std::exchange(core_, nullptr);
    return core == nullptr ? std::nullopt : core->drop(*slot_, handle_);
  }

 private:
  friend class HandleTable;
  Pin(Core& core, Slot& slot, Handle handle) : core_(&core), slot_(&slot), handle_(handle) {}

  Core* core_;  // null once released
  Slot* slot_;
  Handle handle_;
};

template <class T, class Atomics>
struct HandleTable<T, Atomics>::Core {
  Core(std::uint32_t most, mm::TableSalt own) noexcept : capacity(most), salt(own) {}
  Core(const Core&) = delete;
  Core& operator=(const Core&) = delete;
  ~Core() {
    slots.for_each([](Slot& slot) {
      ACCELMM_CHECK(!slot.is_counted());  // a pin outlives its table
      if (!slot.is_closed()) slot.destroy_value();
    });
  }

  [[nodiscard]] Handle handle_of(std::uint8_t type, std::uint32_t number,
                                 std::uint32_t generation) const noexcept {
    return Handle::from_raw((std::uint64_t{type} << 56) |
                            (std::uint64_t{generation ^ salt.generation} << 32) |
                            (std::uint64_t{salt.tag} << 20) | number);
  }
  [[nodiscard]] std::uint32_t generation_of(Handle handle) const noexcept {
    return handle.generation() ^ salt.generation;
  }

  /// Counts a value that is about to come in, if there is room for one.
  [[nodiscard]] bool reserve() noexcept {
    std::uint32_t seen = size.load(std::memory_order_relaxed);
    do {
      if (seen == capacity) return false;
    } while (!size.compare_exchange_weak(seen, seen + 1, std::memory_order_acquire,
                                         std::memory_order_relaxed));
    return true;
  }

  /// Takes the value out of a slot that was just closed, and gives the slot back.
  [[nodiscard]] T empty(Slot& slot, Handle handle) noexcept {
    T value = slot.take_value();
    // A slot is retired after its last generation: the next would repeat a handle.
    if (slot.generation() != Slot::last_generation) slots.give_back(handle.index() & max_capacity);
    size.fetch_sub(1, std::memory_order_release);  // last: who may insert also finds a slot
    return value;
  }

  /// Drops a reference, and takes the value out if it was dying and this was the last.
  [[nodiscard]] std::optional<T> drop(Slot& slot, Handle handle) noexcept {
    if (!slot.uncount()) return std::nullopt;
    return std::optional<T>(std::in_place, empty(slot, handle));
  }

  mm::HandleSlots<T, Atomics> slots;
  const std::uint32_t capacity;
  const mm::TableSalt salt;
  typename Atomics::template Atomic<std::uint32_t> size{0};
};

}  // namespace accelmm
