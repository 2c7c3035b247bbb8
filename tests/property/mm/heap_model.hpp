// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "property/mm/checkpoints.hpp"
#include "unit/mm/heap_memory.hpp"

#include <accelmm/check.hpp>
#include <accelmm/heap.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <iterator>
#include <map>
#include <memory>
#include <utility>

namespace accelmm::test {

/// A heap beside a naive model of it, a std::map of live pieces, that judges each of its answers: a
/// piece overlaps no other, lies in one chunk, is aligned here and for the device, is where the
/// device has it, and holds what was written to its ends until it is freed; exactly the beginnings
/// of live pieces can be freed; it refuses only what the source refuses.
///
/// Each operation returns whether it succeeded; an answer that the model does not allow aborts, and
/// so does a broken invariant: validate() runs after every operation, or at checkpoints.
class JudgedHeap {
 public:
  explicit JudgedHeap(Heap::Options options, Checkpoints checkpoints = {})
      : options_(options), source_(std::make_unique<MappedSource>()), checkpoints_(checkpoints) {
    options_.source = source_.get();
    auto heap = Heap::create(options_);
    ACCELMM_CHECK(heap.has_value());
    heap_ = std::make_unique<Heap>(std::move(*heap));
  }

  [[nodiscard]] std::size_t live_pieces() const { return live_.size(); }

  /// How many more chunks the source gives.
  void allow(std::uint64_t chunks) {
    source_->allow(chunks);
    limited_ = true;
  }

  bool allocate(std::uint64_t size, unsigned align_log2, ZeroFill zero = ZeroFill::no) {
    const Alignment alignment(std::uint64_t{1} << align_log2);
    const auto piece = align_log2 == 0 && zero == ZeroFill::no
                           ? heap_->allocate(ByteCount(size))
                           : heap_->allocate(ByteCount(size), alignment, zero);
    if (piece) {
      ACCELMM_CHECK(alignment.divides(piece->address.value()));
      ACCELMM_CHECK(alignment.divides(reinterpret_cast<std::uintptr_t>(piece->pointer)));
      if (zero == ZeroFill::yes) judge_zeros(*piece, size);
      enter(*piece, size);
    } else {
      judge_refusal(piece.error(), size);
    }
    judge();
    return piece.has_value();
  }

  bool free(const void* pointer) {
    const auto found = live_.find(address_of(pointer));
    if (found != live_.end()) judge_marks(found->first, found->second);
    const bool done = heap_->free(const_cast<void*>(pointer)).has_value();
    ACCELMM_CHECK(done == (found != live_.end()));
    if (done) leave(found);
    judge();
    return done;
  }

  bool free_sized(const void* pointer, std::uint64_t size) {
    const auto found = live_.find(address_of(pointer));
    const bool right = found != live_.end() && size <= found->second.granted;
    const bool done = heap_->free(const_cast<void*>(pointer), ByteCount(size)).has_value();
    ACCELMM_CHECK(done == right);
    if (done) leave(found);
    judge();
    return done;
  }

  bool reallocate(const void* pointer, std::uint64_t size) {
    const auto found = live_.find(address_of(pointer));
    const bool alive = found != live_.end();
    if (alive) judge_marks(found->first, found->second);
    const std::uint64_t before = alive ? found->second.size : 0;
    const std::byte mark = alive ? found->second.mark : std::byte{};
    const auto piece = heap_->reallocate(const_cast<void*>(pointer), ByteCount(size));
    if (!piece) {
      ACCELMM_CHECK(alive || piece.error().code == Errc::invalid_argument);
      if (alive) judge_refusal(piece.error(), size);
    } else {
      ACCELMM_CHECK(alive);
      // The mark at the front came along.
      const std::uint64_t kept = std::min<std::uint64_t>({before, size, marked});
      const auto* const bytes = static_cast<const std::byte*>(piece->pointer);
      for (std::uint64_t i = 0; i < kept; ++i) ACCELMM_CHECK(bytes[i] == mark);
      leave(found);
      enter(*piece, size);
    }
    judge();
    return piece.has_value();
  }

  /// Writes behind a piece and mends it, where canaries are on: it cannot be freed in between.
  bool damage(const void* pointer) {
    const auto found = live_.find(address_of(pointer));
    if (found == live_.end() || options_.canaries == Heap::Canaries::no || heap_is_watched)
      return false;
    auto* const behind = reinterpret_cast<std::byte*>(found->first) + found->second.size;
    *behind ^= std::byte{0x80};
    const auto told = heap_->damage();
    ACCELMM_CHECK(told && address_of(told->pointer) == found->first);
    const auto freed = heap_->free(reinterpret_cast<void*>(found->first));
    ACCELMM_CHECK(!freed && freed.error().code == Errc::fault);
    *behind ^= std::byte{0x80};
    ACCELMM_CHECK(!heap_->damage());
    judge();
    return true;
  }

  void trim() {
    const std::uint64_t before = source_->outstanding();
    const ByteCount given = heap_->trim();
    ACCELMM_CHECK(before - source_->outstanding() == given.value());
    if (live_.empty()) ACCELMM_CHECK(source_->outstanding() == 0);
    judge();
  }

  void free_everything() {
    while (!live_.empty()) free(live_pointer(0));
    trim();
    ACCELMM_CHECK(source_->outstanding() == 0);
  }

  /// The n-th live piece, or one that was freed lately, or nothing of the heap's.
  [[nodiscard]] const void* live_pointer(std::size_t n) const {
    if (live_.empty()) return this;
    return reinterpret_cast<const void*>(
        std::next(live_.begin(), static_cast<std::ptrdiff_t>(n % live_.size()))->first);
  }
  [[nodiscard]] const void* freed_pointer(std::size_t n) const {
    if (freed_.empty()) return this;
    return reinterpret_cast<const void*>(freed_[n % freed_.size()]);
  }

 private:
  static constexpr std::uint64_t marked = 32;  // bytes at each end of a piece
  struct Live {
    std::uint64_t size;
    std::uint64_t granted;
    std::byte mark;
  };
  using Pieces = std::map<std::uintptr_t, Live>;

  [[nodiscard]] static std::uintptr_t address_of(const void* pointer) {
    return reinterpret_cast<std::uintptr_t>(pointer);
  }

  void enter(const HeapPiece& piece, std::uint64_t size) {
    const std::uintptr_t begin = address_of(piece.pointer);
    const std::uint64_t granted = piece.size.value();
    ACCELMM_CHECK(granted >= size && begin % 16 == 0);
    ACCELMM_CHECK(source_->covers(piece.pointer, granted));
    ACCELMM_CHECK(source_->address_of(piece.pointer) == piece.address.value());
    ACCELMM_CHECK(*heap_->usable_size(piece.pointer) == piece.size);
    ACCELMM_CHECK(*heap_->pointer_at(piece.address) == piece.pointer);
    if (options_.spacing == Slab::Spacing::cache_lines) ACCELMM_CHECK(begin % 64 == 0);
    const std::uint64_t behind = granted > Slab::largest.value() ? options_.guard.value() : 0;
    const auto after = live_.lower_bound(begin);
    ACCELMM_CHECK(after == live_.end() || after->first >= begin + granted + behind);
    if (after != live_.begin()) {
      const auto before = std::prev(after);
      ACCELMM_CHECK(before->first + before->second.granted <= begin);
    }
    next_mark_ = static_cast<std::byte>(static_cast<unsigned>(next_mark_) % 251 + 1);
    auto* const bytes = static_cast<std::byte*>(piece.pointer);
    const std::uint64_t part = std::min(size, marked);
    std::memset(bytes, static_cast<int>(next_mark_), part);
    std::memset(bytes + size - part, static_cast<int>(next_mark_), part);
    live_.emplace(begin, Live{size, granted, next_mark_});
  }

  void leave(Pieces::iterator piece) {
    freed_.push_back(piece->first);
    if (freed_.size() > 50) freed_.pop_front();
    live_.erase(piece);
  }

  static void judge_marks(std::uintptr_t begin, const Live& live) {
    const auto* const bytes = reinterpret_cast<const std::byte*>(begin);
    const std::uint64_t part = std::min(live.size, marked);
    for (std::uint64_t i = 0; i < part; ++i)
      ACCELMM_CHECK(bytes[i] == live.mark && bytes[live.size - 1 - i] == live.mark);
  }

  static void judge_zeros(const HeapPiece& piece, std::uint64_t size) {
    const auto* const bytes = static_cast<const std::byte*>(piece.pointer);
    ACCELMM_CHECK(bytes[0] == std::byte{} && std::memcmp(bytes, bytes + 1, size - 1) == 0);
  }

  void judge_refusal(const Error& error, std::uint64_t size) const {
    if (size == 0) {
      ACCELMM_CHECK(error.code == Errc::invalid_argument);
      return;
    }
    ACCELMM_CHECK(error.code == Errc::over_quota || error.code == Errc::no_memory);
    ACCELMM_CHECK(limited_ || error.code == Errc::no_memory);
  }

  void judge() {
    if (!checkpoints_.due()) return;
    heap_->validate();
    const auto statistics = heap_->statistics();
    ACCELMM_CHECK(statistics.from_source.value() == source_->outstanding());
    ACCELMM_CHECK(statistics.chunks == source_->chunks());
    ACCELMM_CHECK(statistics.small.live_objects - statistics.small.quarantined +
                      statistics.large_pieces ==
                  live_.size());
  }

  Heap::Options options_;
  std::unique_ptr<MappedSource> source_;
  std::unique_ptr<Heap> heap_;
  Pieces live_;
  std::deque<std::uintptr_t> freed_;
  std::byte next_mark_{};
  bool limited_ = false;
  Checkpoints checkpoints_;
};

}  // namespace accelmm::test
