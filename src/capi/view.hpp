// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "client/buffer_calls.hpp"

#include <accelmm/accelmm.h>
#include <accelmm/error.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace accelmm {

/// Structs of the C ABI from and to what the client takes.

/// Errors  overflow: it ends beyond 64 bits.
[[nodiscard]] inline Result<View> view_from_c(const accelmm_view& view) {
  const auto range = make_range(BufferOffset(view.offset), ByteCount(view.length));
  if (!range) return fail(range.error());
  return View{.handle = view.handle, .range = *range};
}

/// Errors  invalid_argument: bits that are no access, or none.
[[nodiscard]] inline Result<Access> access_from_c(std::uint32_t access) {
  if (access == 0 || access > (ACCELMM_ACCESS_READ | ACCELMM_ACCESS_WRITE))
    return fail(Errc::invalid_argument, "no such access");
  return static_cast<Access>(access);
}

[[nodiscard]] inline accelmm_buffer buffer_to_c(const NewBuffer& buffer) {
  return {.handle = buffer.handle,
          .size = buffer.size.value(),
          .access = static_cast<std::uint32_t>(buffer.access),
          .reserved = 0};
}

/// Writes a struct to an application that knows `size` bytes of it: what we do not know is zero.
template <class Struct>
void extend_to_c(const Struct& from, Struct* into, std::size_t size) {
  const std::size_t known = std::min(size, sizeof(Struct));
  auto* const bytes = reinterpret_cast<std::byte*>(into);
  std::memcpy(bytes, &from, known);
  std::fill(bytes + known, bytes + size, std::byte{});
}

}  // namespace accelmm
