// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/error.hpp>
#include <accelmm/heap_source.hpp>
#include <accelmm/slab.hpp>
#include <accelmm/units.hpp>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>

namespace accelmm {

/// Whether memory must read zero when it is handed out.
enum class ZeroFill : std::uint8_t { no, yes };

/// What a heap hands out: a suballocation.
struct HeapPiece {
  void* pointer = nullptr;
  /// The same place as the device's engines see it; 0 where the heap has no device addresses.
  DeviceAddr address;
  ByteCount size;  ///< all of which may be used: at least what was asked for
};

/// A malloc for memory that a source gives in chunks: the application's own buffers, a BAR.
///
/// What it knows of the memory it keeps elsewhere: it writes to it only where it is told to fill
/// it, so that the memory may be the device's, write-combined or not readable at all.
/// Owns      the chunks while it has them; its metadata: what Slab and PageAllocator say, 4 bytes a
///           page of the range (untouched where no large piece began) and 16 bytes for 2 MiB.
/// Units     bytes. Pieces are multiples of 16 bytes to 16 KiB (Slab), of 4 KiB above.
/// Threads   any. The source is called under no lock.
/// Lifetime  move-only, not while others use it; destroying it gives every chunk back, live pieces
///           or not. A moved-from Heap may only be destroyed or assigned to.
/// Invariant a byte of a chunk is of one live piece, of a slab, or free -> validate().
/// Errors    no_device from every function that can fail, in a forked child of a source whose
///           memory children do not have.
/// Cost      to 16 KiB: that of Slab and a lookup of the device address. Above: a lock.
/// Source    docs/heap.md, docs/adr/0011-heap-over-one-range.md.
class Heap {
 public:
  /// Bytes behind what was asked for, filled when a piece is handed out and looked at when it is
  /// freed.
  enum class Canaries { no, yes };
  /// Whether freed memory is filled with 0xfe, so that what is read of it later stands out.
  enum class Scrub { no, yes };

  struct Options {
    HeapSource* source = nullptr;  ///< must outlive the Heap
    /// What the source is asked for at least; a multiple of the source's unit.
    ByteCount chunk = ByteCount(HeapSource::unit.value());
    /// From this size on a piece is a chunk of its own.
    ByteCount dedicated_from = ByteCount(std::uint64_t{32} << 20);
    /// Empty chunks that are kept, beyond which they go back to the source at once.
    std::uint32_t spare_chunks = 1;
    Slab::Spacing spacing = Slab::Spacing::packed;
    Slab::Order order = Slab::Order::lowest_first;
    Slab::Quarantine quarantine = {};  ///< of pieces to 16 KiB
    /// Whole pages behind each piece above 16 KiB that nobody gets.
    ByteCount guard = {};
    Canaries canaries = Canaries::no;  ///< writes to the memory, and reads it
    Scrub scrub = Scrub::no;           ///< writes to the memory
  };

  struct Statistics {
    Slab::Statistics small;          ///< pieces to 16 KiB
    std::uint64_t large_pieces = 0;  ///< the others
    ByteCount large;                 ///< their bytes, guards included
    std::uint64_t chunks = 0;        ///< dedicated ones included
    std::uint64_t dedicated_chunks = 0;
    ByteCount from_source;  ///< bytes of all chunks
    ByteCount free;         ///< bytes of chunks in no piece and no slab
    ByteCount metadata;     ///< as if all of it were touched
  };

  /// A write behind a piece's end.
  struct Damage {
    void* pointer = nullptr;  ///< of the piece
    ByteCount requested;      ///< what was asked for
    ByteCount distance;       ///< of the first damaged byte, from the pointer
  };

  /// Makes a Heap without chunks.
  /// Errors  invalid_argument: no source, one whose range is empty, unaligned or beyond 2^44 bytes,
  ///         or chunk, dedicated_from or guard that are no whole units, pages, or 0.
  ///         no_memory: no room for the metadata.
  [[nodiscard]] static Result<Heap> create(const Options& options);

  Heap(Heap&& other) noexcept;
  Heap& operator=(Heap&& other) noexcept;
  Heap(const Heap&) = delete;
  Heap& operator=(const Heap&) = delete;
  ~Heap();

  /// Takes at least `size` bytes, at a multiple of 16.
  /// Errors  invalid_argument: size is 0.  what the source said; fault: it gave what was not asked
  ///         for.  no_memory: no room for metadata.  State unchanged.
  [[nodiscard]] Result<HeapPiece> allocate(ByteCount size);
  /// The same at a multiple of `alignment`, which pointer and device address both are.
  [[nodiscard]] Result<HeapPiece> allocate(ByteCount size, Alignment alignment,
                                           ZeroFill zero = ZeroFill::no);

  /// Gives a piece back.
  /// Errors  invalid_argument: no live piece begins there (double free, foreign, interior, null).
  ///         fault: its canaries are damaged, see damage(); it stays live.  State unchanged.
  [[nodiscard]] Result<void> free(void* pointer);
  /// The same, and looks whether it is as large as the caller thinks.
  /// Errors  invalid_argument: also where the piece has fewer bytes than `size`.
  [[nodiscard]] Result<void> free(void* pointer, ByteCount size);

  /// Makes a live piece hold `size` bytes: where it is, if it can, else elsewhere, at a multiple of
  /// 16, with what it held copied by the processor.
  /// Errors  as allocate() and free().  The piece is then as it was.
  [[nodiscard]] Result<HeapPiece> reallocate(void* pointer, ByteCount size);

  /// How many bytes of the live piece that begins there may be used.
  /// Errors  invalid_argument: no live piece begins there.
  [[nodiscard]] Result<ByteCount> usable_size(const void* pointer) const;

  /// Whether pieces have device addresses. Not known before the first piece.
  [[nodiscard]] bool has_device_addresses() const;
  /// Where the device has a place in a chunk, live or not.
  /// Errors  invalid_argument: in no chunk.  not_supported: the heap has no device addresses.
  [[nodiscard]] Result<DeviceAddr> device_address(const void* pointer) const;
  /// The place in a chunk that has this device address.
  /// Errors  invalid_argument: none has.
  [[nodiscard]] Result<void*> pointer_at(DeviceAddr address) const;

  /// Frees what is in quarantine and gives every empty chunk back. Returns how many bytes these
  /// have.
  ByteCount trim();

  /// Cost  O(metadata). All zero in a forked child of a source whose memory children do not have.
  [[nodiscard]] Statistics statistics() const;

  /// The first damaged canaries of live pieces, in no order, if any are.
  /// Cost  reads the canaries of every live piece.
  [[nodiscard]] std::optional<Damage> damage() const;

  /// Checks every invariant, and aborts if one is broken.
  /// Pre   no other thread uses the Heap.
  /// Cost  O(metadata).
  void validate() const;

 private:
  struct State;
  explicit Heap(std::unique_ptr<State> state) noexcept;

  std::unique_ptr<State> state_;
};

}  // namespace accelmm
