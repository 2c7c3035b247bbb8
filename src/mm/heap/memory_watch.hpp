// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/units.hpp>

#include <cstddef>
#include <cstdint>

/// What sanitizer and Valgrind are told of a heap's memory, where the program runs under one: which
/// bytes may be used. Nothing, and no code, where it was not built for it.
namespace accelmm::mm {

/// Whether a heap tells them.
enum class Watched : std::uint8_t { no, yes };

/// Whether one of them is watching now.
[[nodiscard]] bool somebody_watches() noexcept;

/// Nobody may touch these bytes.
void close_memory(const std::byte* begin, ByteCount size) noexcept;
/// Anybody may. What they hold is as it was.
void open_memory(const std::byte* begin, ByteCount size) noexcept;

/// A piece is handed out: these bytes may be touched, what they hold means nothing yet.
void piece_taken(const std::byte* begin, ByteCount size) noexcept;
/// It came back. Nobody may touch it.
void piece_freed(const std::byte* begin, ByteCount size) noexcept;

/// Touches memory of the heap itself, whatever its users may.
class OpenedMemory {
 public:
  OpenedMemory(const std::byte* begin, ByteCount size) noexcept : begin_(begin), size_(size) {
    open_memory(begin_, size_);
  }
  OpenedMemory(const OpenedMemory&) = delete;
  OpenedMemory& operator=(const OpenedMemory&) = delete;
  ~OpenedMemory() { close_memory(begin_, size_); }

 private:
  const std::byte* begin_;
  ByteCount size_;
};

}  // namespace accelmm::mm
