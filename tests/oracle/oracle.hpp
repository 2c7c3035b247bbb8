// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/access.hpp>
#include <accelmm/error.hpp>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace accelmm::test {

/// What a walker makes of one device address.
struct OracleAnswer {
  std::uint64_t bus_address;
  std::uint64_t leaf_size;  ///< bytes; 0 where this oracle cannot tell
  constexpr bool operator==(const OracleAnswer&) const = default;
};

/// A page-table walker that we did not write, reading tables in memory that it shares with us.
class Oracle {
 public:
  Oracle() = default;
  Oracle(const Oracle&) = delete;
  Oracle& operator=(const Oracle&) = delete;
  virtual ~Oracle() = default;

  /// Where tables are written, all zero at first; its first byte has the bus address base().
  [[nodiscard]] virtual std::span<std::byte> memory() = 0;
  [[nodiscard]] virtual std::uint64_t base() const = 0;

  /// Walks the tables below `root` as they are now, for each address; `wanted` is read or write.
  /// Answers nothing where the walker faults: not mapped, or `wanted` is not allowed.
  /// Errors  io: the walker does not answer any more.
  [[nodiscard]] virtual Result<std::vector<std::optional<OracleAnswer>>> translate(
      std::uint64_t root, std::span<const std::uint64_t> addresses, Access wanted) = 0;
};

}  // namespace accelmm::test
