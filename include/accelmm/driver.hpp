// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/completion.hpp>
#include <accelmm/defragmentation.hpp>
#include <accelmm/device.hpp>
#include <accelmm/device_heap.hpp>
#include <accelmm/fd.hpp>
#include <accelmm/mmu/invalidation.hpp>
#include <accelmm/session.hpp>
#include <accelmm/uapi.h>
#include <accelmm/units.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <initializer_list>
#include <memory>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

namespace accelmm {

/// One ioctl that is being answered.
struct IoctlCall {
  Session& session;
  std::span<std::byte> args;        ///< the struct as the driver knows it; written back on success
  std::vector<UniqueFd> fds;        ///< descriptors that came beside the request
  std::vector<UniqueFd> reply_fds;  ///< descriptors to send beside the reply
};

/// The ioctls of a driver, or the common ones of the framework.
///
/// The framework finds the entry by its number, brings the struct to the size that the driver
/// knows, and refuses non-zero reserved bytes, before the handler sees it.
class IoctlTable {
 public:
  /// Handles one call and ends it, now or later. The call lives until `done` was called.
  using Handler = std::function<void(IoctlCall& call, Completion done)>;
  /// Bytes of the struct that must be zero: its padding and out-only members that callers must
  /// clear.
  struct Reserved {
    std::size_t offset;
    std::size_t size;
  };
  /// Whether the session's next call waits until this one has ended.
  enum class Order : std::uint8_t { in_order, concurrent };
  struct Entry {
    std::uint32_t command;  ///< _IOC encoding; the size is that of the struct here
    std::vector<Reserved> reserved;
    Order order;
    Handler handler;
  };

  void add(std::uint32_t command, std::vector<Reserved> reserved, Handler handler,
           Order order = Order::in_order) {
    entries_.push_back({command, std::move(reserved), order, std::move(handler)});
  }

  /// Adds a member function `Result<void> (Driver::*)(Session&, Args&)`, answered at once.
  template <class Driver, class Args>
  void add(std::uint32_t command, Driver& driver, Result<void> (Driver::*function)(Session&, Args&),
           std::vector<Reserved> reserved = {}) {
    static_assert(std::is_trivially_copyable_v<Args> && std::is_standard_layout_v<Args>);
    add(command, std::move(reserved), [&driver, function](IoctlCall& call, Completion done) {
      Args args;
      ACCELMM_CHECK(call.args.size() == sizeof args);
      std::memcpy(&args, call.args.data(), sizeof args);
      auto result = (driver.*function)(call.session, args);
      if (result) std::memcpy(call.args.data(), &args, sizeof args);
      done(result);
    });
  }

  [[nodiscard]] std::span<const Entry> entries() const { return entries_; }

 private:
  std::vector<Entry> entries_;
};

/// The device's side of an on-chip MMU, as its driver programs it.
///
/// Threads   called in the runtime's thread, under no lock; completions from any thread.
class MmuHardware {
 public:
  virtual ~MmuHardware() = default;
  /// Makes the address space `asid` walk the tables at `root`.
  virtual void bind(std::uint32_t asid, BusAddr root, Completion done) = 0;
  /// Makes `asid` unusable: every access with it faults.
  virtual void unbind(std::uint32_t asid, Completion done) = 0;
  /// Forgets what the device cached of a range. When this completes with success, no engine uses an
  /// old translation. A failure means that the device cannot be trusted any more: its memory is not
  /// given to anyone else.
  virtual void invalidate(const mmu::Invalidation& invalidation, Completion done) = 0;
  /// Will need the translations of a range soon. A hint: a device that has no use for it ignores it.
  virtual void prefetch(std::uint32_t /*asid*/, Range<DeviceAddr> /*range*/) {}
  /// What the device can be told to forget, and what it remembers.
  [[nodiscard]] virtual mmu::InvalidationPolicy invalidation_policy() const { return {}; }
};

/// The code that knows one kind of device. The framework calls it; nothing here calls the framework
/// back.
///
/// Threads   every function in the runtime's thread, under no lock; completions from any thread.
/// Order     probe; for each compute session: open, then ioctls, then stop, then close; after the
///           last, remove.
class Driver {
 public:
  virtual ~Driver() = default;

  /// The device is registered and not yet visible: bring the hardware up. A failure ends the
  /// registration.
  virtual void probe(Device& device, Completion done) = 0;
  /// The device goes away and no session is left: bring the hardware down. Ends before the driver
  /// is destroyed.
  virtual void remove(Device& device) noexcept = 0;
  /// A compute session begins; a failure refuses it with that error.
  virtual void open(Session& /*session*/, Completion done) { done({}); }
  /// Stops the session's work. When this completes, no engine touches the session's memory any
  /// more.
  virtual void stop(Session& session, Completion done) = 0;
  /// The session is over and its memory is gone.
  virtual void close(Session& /*session*/) noexcept {}
  /// Device memory is short by `needed` bytes: gives up what the driver makes sessions' memory live
  /// for beyond their own use of it, e.g. a cache of mappings. Called a few times before a request
  /// fails. Must not allocate device memory. Returns the bytes freed; 0: there is nothing.
  [[nodiscard]] virtual ByteCount evict(ByteCount /*needed*/) noexcept { return ByteCount(0); }
  /// Device memory gets short, shorter, or no longer is, by the thresholds of the description. Comes
  /// soon after the change, when nothing is being taken or given back; changes that cancel each
  /// other in between are not told.
  virtual void pressure(Pressure /*pressure*/, ByteCount /*available*/) noexcept {}
  /// Writes the driver's own facts for ACCELMM_INFO_DRIVER + n; returns their size.
  virtual Result<std::size_t> info(std::uint32_t /*topic*/, std::span<std::byte> /*into*/) {
    return fail(Errc::invalid_argument, "driver has no such topic");
  }
  /// The driver's own ioctls, numbers 0x40 to 0x9f. Read once, at registration.
  virtual void ioctls(IoctlTable& /*table*/) {}
  /// The engine that moves sessions' memory inside the device, if it has one.
  virtual CopyEngine* copy_engine() { return nullptr; }
  /// The device's MMU, if its description names a format.
  virtual MmuHardware* mmu() { return nullptr; }
};

}  // namespace accelmm
