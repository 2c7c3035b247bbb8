// SPDX-License-Identifier: Apache-2.0
#include <accelmm/handle_table.hpp>

#include <atomic>
#include <cstring>

#include <sys/auxv.h>

namespace accelmm::mm {

namespace {

/// 64 of the 128 random bits that the kernel leaves in every new process image: no call is needed.
std::uint64_t process_bits() noexcept {
  std::uint64_t bits = 0;
  if (const auto address = getauxval(AT_RANDOM); address != 0)
    std::memcpy(&bits, reinterpret_cast<const void*>(address), sizeof bits);
  return bits;
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators,
/// 2014): each bit of the result depends on each bit of x.
std::uint64_t mix(std::uint64_t x) noexcept {
  x = (x ^ (x >> 30)) * 0xbf58'476d'1ce4'e5b9;
  x = (x ^ (x >> 27)) * 0x94d0'49bb'1331'11eb;
  return x ^ (x >> 31);
}

// Tables of this process so far: the one thing that tables share, so that their tags differ.
constinit std::atomic<std::uint64_t> tables_made{0};

}  // namespace

TableSalt next_table_salt() noexcept {
  const std::uint64_t number = tables_made.fetch_add(1, std::memory_order_relaxed) + 1;
  const std::uint64_t bits = mix(process_bits() + number * 0x9e37'79b9'7f4a'7c15);
  return {.tag = static_cast<std::uint32_t>(number & 0xfff),
          .generation = static_cast<std::uint32_t>(bits & 0xff'ffff)};
}

}  // namespace accelmm::mm
