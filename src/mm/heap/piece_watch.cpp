// SPDX-License-Identifier: Apache-2.0
#include "mm/heap/piece_watch.hpp"

#include <accelmm/check.hpp>

#include <cstring>
#include <new>

namespace accelmm::mm {

namespace {

// Not a value that a pointer, a small number or text is made of.
constexpr int freed = 0xfe;

}  // namespace

void PieceWatch::fill_canary(const Piece& piece) const {
  const std::uint64_t slack = piece.granted.value() - piece.requested.value();
  std::byte* const begin = piece.pointer + piece.requested.value();
  const OpenedMemory opened(begin, ByteCount(slack));
  for (std::uint64_t i = 0; i < slack; ++i) begin[i] = canary(secret_, i);
}

// Filled before it is noted: from then on damage() looks at it.
Result<void> PieceWatch::enter(const Piece& piece) {
  if (options_.canaries == Heap::Canaries::yes) fill_canary(piece);
  {
    const MutexLock lock(mutex_);
    try {
      const bool entered =
          pieces_.emplace(piece.pointer, Size{piece.requested, piece.granted}).second;
      ACCELMM_CHECK(entered);
    } catch (const std::bad_alloc&) {
      return fail(Errc::no_memory, "no room to note a piece");
    }
  }
  if (options_.watched == Watched::yes) piece_taken(piece.pointer, piece.requested);
  return {};
}

// Where the first damaged byte is, from the piece's beginning.
std::optional<ByteCount> PieceWatch::damage_of(const std::byte* pointer, Size size) const {
  if (options_.canaries == Heap::Canaries::no) return {};
  const std::uint64_t slack = size.granted.value() - size.requested.value();
  const std::byte* const begin = pointer + size.requested.value();
  const OpenedMemory opened(begin, ByteCount(slack));
  for (std::uint64_t i = 0; i < slack; ++i)
    if (begin[i] != canary(secret_, i)) return size.requested + ByteCount(i);
  return {};
}

Result<void> PieceWatch::leave(const std::byte* pointer) {
  Size size;
  {
    const MutexLock lock(mutex_);
    const auto found = pieces_.find(pointer);
    if (found == pieces_.end()) return fail(Errc::invalid_argument, "no live piece begins there");
    size = found->second;
    if (damage_of(pointer, size)) return fail(Errc::fault, "bytes behind the piece were written");
    pieces_.erase(found);
  }
  if (options_.scrub == Heap::Scrub::yes) {
    auto* const begin = const_cast<std::byte*>(pointer);
    const OpenedMemory opened(begin, size.granted);
    std::memset(begin, freed, size.granted.value());
  }
  if (options_.watched == Watched::yes) {
    piece_freed(pointer, size.requested);
    close_memory(pointer, size.granted);
  }
  return {};
}

std::optional<ByteCount> PieceWatch::find(const void* pointer) const {
  const MutexLock lock(mutex_);
  const auto found = pieces_.find(static_cast<const std::byte*>(pointer));
  if (found == pieces_.end()) return {};
  return found->second.requested;
}

std::optional<Heap::Damage> PieceWatch::damage() const {
  const MutexLock lock(mutex_);
  for (const auto& [pointer, size] : pieces_)
    if (const auto distance = damage_of(pointer, size))
      return Heap::Damage{.pointer = const_cast<std::byte*>(pointer),
                          .requested = size.requested,
                          .distance = *distance};
  return {};
}

std::uint64_t PieceWatch::live() const {
  const MutexLock lock(mutex_);
  return pieces_.size();
}

}  // namespace accelmm::mm
