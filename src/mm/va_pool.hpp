// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/check.hpp>

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <type_traits>
#include <utility>

namespace accelmm::mm {

/// The number of an element in a VaPool. 0 is no element.
using VaId = std::uint32_t;

/// Elements by number, in chunks that double in size and never move.
///
/// Growing is apart from taking, in two steps, so that a caller can get memory for several pools
/// and adopt it only once it has it all.
/// Owns      its chunks. An element starts on a cache line where its size is a multiple of one.
/// Threads   externally synchronised.
/// Cost      an element is two loads away; take and give O(1).
template <class T, unsigned first_log2>
class VaPool {
  static_assert(std::is_trivially_copyable_v<T> && std::is_trivially_destructible_v<T>);
  static constexpr std::size_t line = 64;
  static constexpr std::uint32_t first = std::uint32_t{1} << first_log2;

 public:
  /// Memory for more elements.
  class Chunk {
   public:
    Chunk() = default;
    explicit operator bool() const { return block_ != nullptr; }

   private:
    friend class VaPool;
    explicit Chunk(std::size_t bytes) : block_(new(std::nothrow) std::byte[bytes]) {}
    std::unique_ptr<std::byte[]> block_;
  };

  /// Elements that could be taken now.
  [[nodiscard]] std::size_t room() const { return capacity_ - live_; }
  [[nodiscard]] std::size_t live() const { return live_; }
  [[nodiscard]] std::size_t capacity() const { return capacity_; }
  [[nodiscard]] std::size_t bytes() const { return bytes_; }

  /// Memory that doubles the pool; empty if there is none.
  [[nodiscard]] Chunk next_chunk() const {
    if (chunks_ == owned_.size()) return Chunk();
    return Chunk(chunk_bytes());
  }

  /// Pre: the last chunk that next_chunk() made, not empty.
  void adopt(Chunk chunk) {
    ACCELMM_CHECK(chunk);
    void* at = chunk.block_.get();
    std::size_t space = chunk_bytes();
    at = std::align(line, sizeof(T) * (std::size_t{first} << chunks_), at, space);
    ACCELMM_CHECK(at != nullptr);
    elements_[chunks_] = static_cast<T*>(at);
    owned_[chunks_] = std::move(chunk);
    bytes_ += chunk_bytes();
    capacity_ += std::size_t{first} << chunks_;
    ++chunks_;
  }

  /// Pre: room() > 0. The element's content is whatever was there.
  [[nodiscard]] VaId take() {
    ACCELMM_CHECK(live_ < capacity_);
    ++live_;
    if (given_back_ == 0) return ++fresh_;
    const VaId id = given_back_;
    std::memcpy(&given_back_, static_cast<const void*>(&(*this)[id]), sizeof given_back_);
    return id;
  }

  /// Pre: it was taken.
  void give(VaId id) {
    ACCELMM_DCHECK(live_ > 0);
    --live_;
    std::memcpy(static_cast<void*>(&(*this)[id]), &given_back_, sizeof given_back_);
    given_back_ = id;
  }

  /// Pre: it was taken.
  [[nodiscard]] T& operator[](VaId id) const {
    ACCELMM_DCHECK(id > 0 && id <= fresh_);
    const std::uint32_t at = id - 1 + first;
    const auto chunk = static_cast<unsigned>(std::bit_width(at)) - 1;
    return elements_[chunk - first_log2][at - (std::uint32_t{1} << chunk)];
  }

 private:
  [[nodiscard]] std::size_t chunk_bytes() const {
    return sizeof(T) * (std::size_t{first} << chunks_) + line - 1;
  }

  // Numbers stay below 2^30: two bits are left to those who store them.
  std::array<T*, 30 - first_log2> elements_{};
  std::array<Chunk, 30 - first_log2> owned_{};
  std::size_t chunks_ = 0;
  std::size_t capacity_ = 0;
  std::size_t live_ = 0;
  std::size_t bytes_ = 0;
  VaId fresh_ = 0;  // the highest number taken so far
  VaId given_back_ = 0;
};

}  // namespace accelmm::mm
