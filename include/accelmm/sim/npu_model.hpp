// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/access.hpp>
#include <accelmm/bus.hpp>
#include <accelmm/completion.hpp>
#include <accelmm/error.hpp>
#include <accelmm/units.hpp>

#include <array>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <variant>

namespace accelmm::sim {

/// Why the MMU of the NPU refused an access.
enum class NpuFaultKind : std::uint8_t {
  no_address_space,  ///< the root register of the ASID is clear
  non_canonical,     ///< the address has more than 50 bits
  not_present,       ///< an entry on the way is empty
  malformed_entry,   ///< an entry has reserved bits set, or is none that may stand at its hop
  not_permitted,     ///< the leaf does not allow this access
  bus_error,         ///< the bus refused a table, or the memory that the leaf names
};

/// An access that the NPU could not make. It ends the command that wanted it.
struct NpuFault {
  DeviceAddr address;
  Access access;
  std::uint32_t asid;
  std::uint32_t
      level;  ///< hop where the walk ended, 0 is the root; that of the leaf if there is one
  NpuFaultKind kind;
};

/// Copies bytes in ascending order, at most a page at a time: a destination that overlaps the
/// source is right if it begins below it.
struct NpuCopy {
  DeviceAddr source;
  DeviceAddr destination;
  ByteCount length;  ///< > 0
};

/// Copies device memory to device memory past the MMU, for the driver's own use: of no address
/// space, its ASID is 0. The places must not overlap.
struct NpuMove {
  BusAddr source;
  BusAddr destination;
  ByteCount length;  ///< > 0
};

/// What a convolution does with a sum before it is cut to 0..255.
enum class NpuSum : std::uint8_t { as_is, absolute };
/// What a convolution does with what the destination held.
enum class NpuDestination : std::uint8_t { replace, add };

/// Convolves an image of 8-bit pixels with a 3x3 kernel; pixels beyond a border are the border's.
///
///   sum   = the nine products, then >> shift (towards minus infinity), then its magnitude if asked
///   pixel = sum + bias, + the old pixel if asked, cut to 0..255
///
/// The kernel is correlated, not mirrored: kernel[0] weighs the pixel above left. Source and
/// destination may be the same image at the same stride; of any other overlap the result is what
/// the order of rows makes of it (row y is written after row y + 1 was read).
struct NpuConvolve {
  DeviceAddr source;
  DeviceAddr destination;
  ByteCount source_stride;       ///< bytes from row to row, >= width
  ByteCount destination_stride;  ///< the same
  std::uint32_t width;           ///< 1 to NpuModel::max_width
  std::uint32_t height;          ///< > 0
  std::array<std::int8_t, 9> kernel;
  std::uint32_t shift = 0;  ///< at most 31
  std::int32_t bias = 0;
  NpuSum sum = NpuSum::as_is;
  NpuDestination onto = NpuDestination::replace;
};

/// How a command ended.
struct NpuJobResult {
  Result<void> status;            ///< fault, canceled, no_memory, or what check() refuses
  std::optional<NpuFault> fault;  ///< if and only if status is Errc::fault
  std::chrono::nanoseconds busy;  ///< time that the engine worked on it
};

struct NpuCommand {
  std::uint32_t asid;  ///< 0 for a move and for nothing else
  std::variant<NpuCopy, NpuConvolve, NpuMove> work;
  std::move_only_function<void(const NpuJobResult&)> done;  ///< called once, in the model's thread
};

/// Counters since the model was made. They only grow.
struct NpuStatistics {
  std::uint64_t jobs;  ///< ended, in whatever way
  std::uint64_t faults;
  std::uint64_t canceled;
  std::uint64_t tlb_hits;
  std::uint64_t tlb_misses;
  std::uint64_t table_reads;  ///< entries read from memory by the walker
  std::uint64_t bytes_read;
  std::uint64_t bytes_written;
  std::chrono::nanoseconds busy;
};

struct NpuModelOptions {
  /// Leaves of each size, and pointers to last-level tables, that the TLB holds; the oldest goes
  /// first. As many pages as 256 MiB have, so that no test is saved by an eviction.
  std::uint32_t tlb_entries = 65536;
  /// Whether the TLB keeps, too, that an address was not mapped.
  enum class NegativeEntries : std::uint8_t { not_cached, cached };
  NegativeEntries negative_entries = NegativeEntries::not_cached;
  /// Slows every burst, so that a test finds the engine at work.
  std::chrono::nanoseconds delay_per_burst{0};
};

/// The hardware of a small NPU: a DMA engine and a 3x3 convolution behind an MMU of format NPU1.
///
/// One engine, a thread, runs commands in the order of their submission. It sees device addresses
/// only, and reaches memory in bursts within one 4 KiB page: each is translated by the TLB or by a
/// walk over the tables' bytes, checked, and moved over the bus to or from 256 KiB of on-chip SRAM.
/// The TLB keeps what it read until it is told to forget it, whatever happens to the tables.
///
/// Owns      its thread, its SRAM, its TLB. The bus must outlive it.
/// Threads   every function from any thread, also from callbacks. Callbacks run in the model's
///           thread, under no lock; commands wait while one runs.
/// Lifetime  the destructor stops the engine at its next burst; all that is left ends `canceled`.
///           Not from a callback.
class NpuModel {
 public:
  /// ASIDs are 1 to this number.
  static constexpr std::uint32_t address_spaces = 1023;
  /// A row of the image is one line of SRAM: four lines of 64 KiB.
  static constexpr std::uint32_t max_width = 65536;
  /// Commands that one address space may have waiting or running.
  static constexpr std::uint32_t max_queued = 4096;

  /// Errors  invalid_argument: a TLB without entries.  no_memory.  try_again: no thread to be had.
  [[nodiscard]] static Result<std::unique_ptr<NpuModel>> create(BusPort& bus,
                                                                NpuModelOptions options = {});
  ~NpuModel();
  NpuModel(const NpuModel&) = delete;
  NpuModel& operator=(const NpuModel&) = delete;

  /// Writes the root register of an address space: walks begin at `root` from now on.
  /// Errors  invalid_argument: no such ASID, or the root is not a multiple of 4096.
  [[nodiscard]] Result<void> set_root(std::uint32_t asid, BusAddr root);
  /// Clears the root register: every access faults from now on. What the TLB holds stays there, and
  /// is used again after the next set_root() unless it was invalidated.
  void clear_root(std::uint32_t asid);

  /// Forgets the leaves and faults of `range` and the pointers to tables on the way there. When `done` is
  /// called, no access uses them any more; commands submitted after this call see it done.
  void invalidate(std::uint32_t asid, Range<DeviceAddr> range, Completion done);

  /// Tells whether submit() would take the command now.
  /// Errors  invalid_argument: no such ASID, or not the one for such work; a length, width, height, stride or shift out of
  ///         bounds.  overflow: the data ends beyond 64 bits.  over_quota: max_queued are waiting.
  [[nodiscard]] Result<void> check(const NpuCommand& command) const;
  /// Queues a command. Every command ends with one call of its `done`; one that check() refuses
  /// does so within this call.
  void submit(NpuCommand command);

  /// Stops the work of an address space that was submitted before this call: the waiting commands,
  /// and the running one at its next burst. They end `canceled`; then `done` is called, and none of
  /// them touches memory any more.
  void cancel(std::uint32_t asid, Completion done);

  /// Walks the tables, not the TLB, and returns where the leaf entry of an address lies.
  /// Errors  fault: the address is not mapped.
  [[nodiscard]] Result<BusAddr> find_entry(std::uint32_t asid, DeviceAddr address) const;

  [[nodiscard]] NpuStatistics statistics() const;

 private:
  class State;
  explicit NpuModel(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace accelmm::sim
