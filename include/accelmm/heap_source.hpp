// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/error.hpp>
#include <accelmm/page_allocator.hpp>
#include <accelmm/units.hpp>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace accelmm {

/// Memory that a heap hands out in pieces.
struct HeapChunk {
  std::byte* pointer = nullptr;
  ByteCount size;
  std::optional<DeviceAddr> address;      ///< where the device has it, if it has it
  Contents contents = Contents::unknown;  ///< what it holds
};

/// The addresses of this process among which a source places its chunks.
struct HeapRange {
  std::byte* base = nullptr;
  ByteCount size;
  /// Reads 0 once the memory is this process's no more: in a forked child. Null: never.
  const std::atomic<std::uint64_t>* present = nullptr;
};

/// Where a heap has its memory from.
///
/// All chunks lie in one range of addresses, so that a pointer is an offset plus a constant. The
/// source decides where in it; a chunk touches no other and shares no 2 MiB unit of addresses with
/// one, so that nothing that is contiguous in the range leads from one chunk into the next.
/// Threads   grow() and give_back() from any thread, several at once; the heap holds no lock when
///           it calls.
/// Lifetime  must outlive the heap.
class HeapSource {
 public:
  /// What range().base is a multiple of, and chunks are no nearer to each other than.
  static constexpr Alignment unit{std::uint64_t{2} << 20};

  virtual ~HeapSource() = default;
  /// The same answer every time.
  [[nodiscard]] virtual HeapRange range() const noexcept = 0;
  /// Gives a chunk of whole pages of 4 KiB in which `size` bytes lie at a multiple of `alignment`.
  /// Its device address, which all chunks have or none, differs from the pointer by a multiple of
  /// the larger of `alignment` and the unit.
  /// Errors  whatever allocate() of the heap is to report.
  [[nodiscard]] virtual Result<HeapChunk> grow(ByteCount size, Alignment alignment) = 0;
  /// Takes back what grow() gave. Cannot fail.
  virtual void give_back(const HeapChunk& chunk) = 0;
};

/// One piece of memory that is there already: a BAR, a window, shared memory. It is a single chunk.
///
/// Owns      nothing: the memory must outlive it.
/// Threads   any.
class SpanHeapSource final : public HeapSource {
 public:
  /// Errors  invalid_argument: less than a page, not whole pages, or a device address that differs
  ///         from the pointer by no multiple of the unit.
  [[nodiscard]] static Result<SpanHeapSource> create(std::span<std::byte> memory,
                                                     std::optional<DeviceAddr> address = {},
                                                     Contents contents = Contents::unknown);

  SpanHeapSource(SpanHeapSource&& other) noexcept;
  SpanHeapSource& operator=(SpanHeapSource&&) = delete;

  [[nodiscard]] HeapRange range() const noexcept override;
  /// Errors  no_memory: it is given already, or holds no such place.
  [[nodiscard]] Result<HeapChunk> grow(ByteCount size, Alignment alignment) override;
  void give_back(const HeapChunk& chunk) override;

 private:
  explicit SpanHeapSource(const HeapChunk& chunk) : chunk_(chunk) {}
  HeapChunk chunk_;
  std::atomic<bool> given_ = false;
};

}  // namespace accelmm
