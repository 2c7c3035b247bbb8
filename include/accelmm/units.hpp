// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/check.hpp>
#include <accelmm/error.hpp>

#include <bit>
#include <compare>
#include <cstdint>
#include <limits>

namespace accelmm {

/// A length in bytes.
class ByteCount {
 public:
  constexpr ByteCount() = default;
  explicit constexpr ByteCount(std::uint64_t bytes) : value_(bytes) {}
  [[nodiscard]] constexpr std::uint64_t value() const { return value_; }
  constexpr auto operator<=>(const ByteCount&) const = default;

  constexpr ByteCount& operator+=(ByteCount other) {
    ACCELMM_DCHECK(other.value_ <= std::numeric_limits<std::uint64_t>::max() - value_);
    value_ += other.value_;
    return *this;
  }
  constexpr ByteCount& operator-=(ByteCount other) {
    ACCELMM_DCHECK(other.value_ <= value_);
    value_ -= other.value_;
    return *this;
  }
  friend constexpr ByteCount operator+(ByteCount a, ByteCount b) { return a += b; }
  friend constexpr ByteCount operator-(ByteCount a, ByteCount b) { return a -= b; }

 private:
  std::uint64_t value_ = 0;
};

/// A position in one space of addresses. Two spaces do not mix: their `Space` tags differ.
template <class Space>
class Address {
 public:
  constexpr Address() = default;
  explicit constexpr Address(std::uint64_t value) : value_(value) {}
  [[nodiscard]] constexpr std::uint64_t value() const { return value_; }
  constexpr auto operator<=>(const Address&) const = default;

  constexpr Address& operator+=(ByteCount length) {
    ACCELMM_DCHECK(length.value() <= std::numeric_limits<std::uint64_t>::max() - value_);
    value_ += length.value();
    return *this;
  }
  friend constexpr Address operator+(Address address, ByteCount length) {
    return address += length;
  }
  friend constexpr Address operator-(Address address, ByteCount length) {
    ACCELMM_DCHECK(length.value() <= address.value_);
    return Address(address.value_ - length.value());
  }
  /// The distance from `b` up to `a`. Pre: b <= a.
  friend constexpr ByteCount operator-(Address a, Address b) {
    ACCELMM_DCHECK(b.value_ <= a.value_);
    return ByteCount(a.value_ - b.value_);
  }

 private:
  std::uint64_t value_ = 0;
};

/// An offset inside one region (a host window, a bank of device memory).
using RegionOffset = Address<struct RegionSpace>;
/// What a page-table leaf holds and the device puts on its bus.
using BusAddr = Address<struct BusSpace>;
/// What the device's engines use, before its MMU.
using DeviceAddr = Address<struct DeviceSpace>;

/// A half-open interval [begin, end) of addresses.
template <class Addr>
struct Range {
  Addr begin;
  Addr end;

  constexpr bool operator==(const Range&) const = default;
  [[nodiscard]] constexpr ByteCount size() const { return end - begin; }
  [[nodiscard]] constexpr bool empty() const { return !(begin < end); }
  [[nodiscard]] constexpr bool contains(Addr address) const {
    return begin <= address && address < end;
  }
  [[nodiscard]] constexpr bool contains(const Range& other) const {
    return begin <= other.begin && other.end <= end;
  }
  [[nodiscard]] constexpr bool overlaps(const Range& other) const {
    return begin < other.end && other.begin < end;
  }
};

/// Makes [begin, begin + length).
/// Errors  overflow: the end does not fit in 64 bits.
template <class Addr>
[[nodiscard]] constexpr Result<Range<Addr>> make_range(Addr begin, ByteCount length) {
  if (length.value() > std::numeric_limits<std::uint64_t>::max() - begin.value())
    return fail(Errc::overflow, "range ends beyond 64 bits");
  return Range<Addr>{begin, begin + length};
}

/// A power of two in bytes, for alignments and page sizes.
class Alignment {
 public:
  /// Pre: bytes is a power of two.
  explicit constexpr Alignment(std::uint64_t bytes) : bytes_(bytes) {
    ACCELMM_CHECK(std::has_single_bit(bytes));
  }
  [[nodiscard]] constexpr std::uint64_t value() const { return bytes_; }
  [[nodiscard]] constexpr unsigned log2() const {
    return static_cast<unsigned>(std::countr_zero(bytes_));
  }
  [[nodiscard]] constexpr bool divides(std::uint64_t value) const {
    return (value & (bytes_ - 1)) == 0;
  }
  [[nodiscard]] constexpr bool divides(ByteCount size) const { return divides(size.value()); }
  template <class Space>
  [[nodiscard]] constexpr bool divides(Address<Space> address) const {
    return divides(address.value());
  }
  constexpr auto operator<=>(const Alignment&) const = default;

 private:
  std::uint64_t bytes_;
};

/// Rounds up to a multiple of the alignment.
/// Errors  overflow: the rounded value does not fit in 64 bits.
[[nodiscard]] constexpr Result<ByteCount> round_up(ByteCount size, Alignment alignment) {
  const std::uint64_t mask = alignment.value() - 1;
  if (size.value() > std::numeric_limits<std::uint64_t>::max() - mask)
    return fail(Errc::overflow, "size rounds up beyond 64 bits");
  return ByteCount((size.value() + mask) & ~mask);
}

inline namespace literals {
constexpr ByteCount operator""_B(unsigned long long n) {
  return ByteCount(n);
}
constexpr ByteCount operator""_KiB(unsigned long long n) {
  return ByteCount(n << 10);
}
constexpr ByteCount operator""_MiB(unsigned long long n) {
  return ByteCount(n << 20);
}
constexpr ByteCount operator""_GiB(unsigned long long n) {
  return ByteCount(n << 30);
}
}  // namespace literals

}  // namespace accelmm
