// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/per_cpu.hpp"
#include "mm/slab_classes.hpp"

#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <new>

namespace accelmm::mm {

inline constexpr std::size_t cache_line = 64;

/// What is known of one slab: a header of one cache line, then its words of marks.
///
/// Its memory belongs to one class for the life of the Slab: a thread that looked up a slab which
/// has been returned since reads marks, if those of another slab, and its commit fails.
struct alignas(cache_line) SlabRecord {
  static constexpr unsigned most_words = 128;

  // Written before the record is published, and by the class's central store.
  std::uint64_t base = 0;  ///< offset of the slab
  // In the list of the class, under its lock.
  SlabRecord* previous = nullptr;
  SlabRecord* next = nullptr;
  /// Words that the central store has. Written under the lock of the class.
  std::array<std::atomic<std::uint64_t>, most_words / 64> central = {};
  std::uint16_t central_count = 0;
  std::uint8_t number = 0;  ///< of the class
  bool empty = false;       ///< counted as empty

  [[nodiscard]] per_cpu::Word* words() { return reinterpret_cast<per_cpu::Word*>(this + 1); }
  [[nodiscard]] const per_cpu::Word* words() const {
    return reinterpret_cast<const per_cpu::Word*>(this + 1);
  }
  [[nodiscard]] bool is_central(unsigned word) const {
    return (central[word / 64].load(std::memory_order_seq_cst) >> (word % 64) & 1) != 0;
  }
};
static_assert(sizeof(SlabRecord) == cache_line);
static_assert(slab_shapes[0].words <= SlabRecord::most_words);

/// One word of a slab, in 64 bits: its number in the upper 8 and its address, which no process has
/// beyond 2^56, in the others. 0 is none; `closed` stands where a slot's cache is being emptied.
class SlabWordRef {
 public:
  static constexpr std::uint64_t none = 0;
  static constexpr std::uint64_t closed = 1;
  static constexpr unsigned address_bits = 56;

  /// None if written `SlabWordRef()`; anything where there is no initialiser, as in an array that
  /// most calls fill little of.
  SlabWordRef() = default;
  explicit SlabWordRef(std::uint64_t raw) : raw_(raw) {}
  SlabWordRef(const SlabRecord* record, unsigned word)
      : raw_(std::uint64_t{word} << address_bits |
             reinterpret_cast<std::uintptr_t>(record->words() + word)) {}

  [[nodiscard]] std::uint64_t raw() const { return raw_; }
  [[nodiscard]] bool names_a_word() const { return raw_ > closed; }
  [[nodiscard]] SlabRecord& record() const {
    return *reinterpret_cast<SlabRecord*>(&marks() - word() -
                                          sizeof(SlabRecord) / sizeof(per_cpu::Word));
  }
  [[nodiscard]] unsigned word() const { return static_cast<unsigned>(raw_ >> address_bits); }
  [[nodiscard]] per_cpu::Word& marks() const {
    return *reinterpret_cast<per_cpu::Word*>(raw_ & ((std::uint64_t{1} << address_bits) - 1));
  }

 private:
  std::uint64_t raw_;
};

/// Memory from operator new, aligned to a cache line.
class AlignedBlock {
 public:
  AlignedBlock() = default;
  /// Throws std::bad_alloc.
  explicit AlignedBlock(std::size_t bytes) : memory_(::operator new(bytes + cache_line)) {}
  AlignedBlock(AlignedBlock&& other) noexcept : memory_(other.memory_) { other.memory_ = nullptr; }
  AlignedBlock& operator=(AlignedBlock&& other) noexcept {
    std::swap(memory_, other.memory_);
    return *this;
  }
  AlignedBlock(const AlignedBlock&) = delete;
  AlignedBlock& operator=(const AlignedBlock&) = delete;
  ~AlignedBlock() { ::operator delete(memory_); }

  [[nodiscard]] std::byte* data() const {
    const auto address = reinterpret_cast<std::uintptr_t>(memory_);
    return static_cast<std::byte*>(memory_) + (cache_line - address % cache_line);
  }

 private:
  void* memory_ = nullptr;
};

}  // namespace accelmm::mm
