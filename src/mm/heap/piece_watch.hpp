// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/mutex.hpp"
#include "mm/heap/memory_watch.hpp"

#include <accelmm/heap.hpp>
#include <accelmm/units.hpp>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <unordered_map>

namespace accelmm::mm {

/// What is known of the pieces of a heap that is debugged: how much was asked for, and what lies
/// behind it.
///
/// Owns      an entry of a hash table a live piece.
/// Threads   any; one lock.
/// Invariant a piece is in the table from when it is handed out until one caller has freed it: of
///           two frees at the same moment one finds nothing.
class PieceWatch {
 public:
  struct Options {
    Heap::Canaries canaries = Heap::Canaries::no;
    Heap::Scrub scrub = Heap::Scrub::no;
    Watched watched = Watched::no;
  };
  /// What is taken behind each piece: a canary that a write of 16 bytes too far must hit, or bytes
  /// that sanitizer and Valgrind report.
  static constexpr ByteCount behind{16};

  PieceWatch(const Options& options, std::uint64_t secret) : options_(options), secret_(secret) {}

  struct Piece {
    std::byte* pointer = nullptr;
    ByteCount requested;
    ByteCount granted;
  };
  /// Notes a piece, opens it and fills what is behind it.
  /// Errors  no_memory: no room to note it.
  [[nodiscard]] Result<void> enter(const Piece& piece);
  /// Ends a piece, and closes it.
  /// Errors  invalid_argument: none begins there.  fault: its canaries are damaged.  Nothing
  ///         changed.
  [[nodiscard]] Result<void> leave(const std::byte* pointer);
  /// How many bytes were asked for.
  [[nodiscard]] std::optional<ByteCount> find(const void* pointer) const;
  [[nodiscard]] std::optional<Heap::Damage> damage() const;
  [[nodiscard]] std::uint64_t live() const;

 private:
  struct Size {
    ByteCount requested;
    ByteCount granted;
  };
  [[nodiscard]] static std::byte canary(std::uint64_t secret, std::uint64_t distance) {
    return static_cast<std::byte>(secret >> (distance % 8 * 8));
  }
  void fill_canary(const Piece& piece) const;
  [[nodiscard]] std::optional<ByteCount> damage_of(const std::byte* pointer, Size size) const;

  const Options options_;
  const std::uint64_t secret_;
  mutable Mutex mutex_;
  std::unordered_map<const std::byte*, Size> pieces_ ACCELMM_GUARDED_BY(mutex_);
};

}  // namespace accelmm::mm
