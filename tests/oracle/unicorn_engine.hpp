// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/error.hpp>
#include <accelmm/units.hpp>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>

struct uc_struct;

namespace accelmm::test {

/// A CPU that Unicorn emulates, with memory of this process at an address of its own.
///
/// Owns      the emulator and the memory, all zero at first.
/// Threads   externally synchronised.
class UnicornEngine {
 public:
  struct Machine {
    int arch;                    ///< UC_ARCH_...
    int mode;                    ///< UC_MODE_...
    int cpu;                     ///< UC_CPU_...
    std::uint64_t memory_begin;  ///< its bus address
    ByteCount memory_size;
  };
  /// Errors  io_error: Unicorn refuses.  no_memory: of this process.
  [[nodiscard]] static Result<UnicornEngine> create(const Machine& machine);

  UnicornEngine(UnicornEngine&&) noexcept = default;
  UnicornEngine& operator=(UnicornEngine&&) noexcept = default;

  [[nodiscard]] std::span<std::byte> memory() const { return {memory_.get(), size_}; }
  [[nodiscard]] uc_struct* raw() const { return engine_.get(); }

  // Errors  io_error: Unicorn refuses.
  [[nodiscard]] Result<void> set_register(int id, std::uint64_t value);
  [[nodiscard]] Result<std::uint64_t> register_value(int id) const;
  /// Runs from `begin` until `end` is reached.
  [[nodiscard]] Result<void> run(std::uint64_t begin, std::uint64_t end);

 private:
  struct Close {
    void operator()(uc_struct* engine) const;
  };
  struct Unmap {
    std::size_t size = 0;
    void operator()(std::byte* memory) const;
  };
  using Memory = std::unique_ptr<std::byte, Unmap>;

  UnicornEngine(Memory memory, std::size_t size, uc_struct* engine)
      : memory_(std::move(memory)), size_(size), engine_(engine) {}

  Memory memory_;  // after the emulator that uses it
  std::size_t size_;
  std::unique_ptr<uc_struct, Close> engine_;
};

/// Stores code or words for a guest, which is little-endian as this machine is.
void store(std::span<std::byte> memory, std::uint64_t offset, std::uint32_t word);
void store(std::span<std::byte> memory, std::uint64_t offset, std::uint64_t word);
[[nodiscard]] std::uint64_t load(std::span<const std::byte> memory, std::uint64_t offset);

}  // namespace accelmm::test
