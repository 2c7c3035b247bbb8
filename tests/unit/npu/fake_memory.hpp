// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/bus.hpp>
#include <accelmm/sim/npu_model.hpp>

#include <array>
#include <cstdint>
#include <cstring>
#include <future>
#include <mutex>
#include <span>
#include <utility>
#include <vector>

namespace accelmm::test {

/// The memory behind a bus: one block from bus address 0 on. Everything above it is a bus error.
class FakeMemory final : public BusPort {
 public:
  explicit FakeMemory(std::size_t size) : bytes_(size) {}

  Result<void> read(BusAddr address, std::span<std::byte> into) override {
    const std::scoped_lock lock(mutex_);
    if (!holds(address, into.size())) return fail(Errc::fault, "nothing there");
    std::memcpy(into.data(), bytes_.data() + address.value(), into.size());
    return {};
  }
  Result<void> write(BusAddr address, std::span<const std::byte> from) override {
    const std::scoped_lock lock(mutex_);
    if (!holds(address, from.size())) return fail(Errc::fault, "nothing there");
    std::memcpy(bytes_.data() + address.value(), from.data(), from.size());
    return {};
  }

  void store(std::uint64_t address, std::uint64_t word) {
    std::array<std::byte, 8> bytes;
    for (std::size_t i = 0; i < bytes.size(); ++i)
      bytes[i] = static_cast<std::byte>(word >> (8 * i) & 0xFF);
    ACCELMM_CHECK(write(BusAddr(address), bytes).has_value());
  }
  void fill(std::uint64_t address, std::span<const std::uint8_t> bytes) {
    ACCELMM_CHECK(write(BusAddr(address), std::as_bytes(bytes)).has_value());
  }
  [[nodiscard]] std::vector<std::uint8_t> bytes(std::uint64_t address, std::size_t size) {
    std::vector<std::uint8_t> bytes(size);
    ACCELMM_CHECK(read(BusAddr(address), std::as_writable_bytes(std::span(bytes))).has_value());
    return bytes;
  }

 private:
  [[nodiscard]] bool holds(BusAddr address, std::size_t size) const {
    return address.value() <= bytes_.size() && size <= bytes_.size() - address.value();
  }

  std::mutex mutex_;
  std::vector<std::byte> bytes_;
};

// The bits of an entry, as docs/npu.md lists them.
inline constexpr std::uint64_t link_bits = 0x001;
inline constexpr std::uint64_t leaf_read = 0x809;
inline constexpr std::uint64_t leaf_write = 0x811;
inline constexpr std::uint64_t leaf_read_write = 0x819;

/// Tables made by hand: they lie one after the other from `begin` on, and are never freed.
class HandTables {
 public:
  HandTables(FakeMemory& memory, std::uint64_t begin)
      : memory_(memory), root_(begin), next_(begin + 4096) {}

  [[nodiscard]] BusAddr root() const { return BusAddr(root_); }

  /// Where the entry for an address lies at a hop, making links on the way.
  std::uint64_t entry_at(unsigned hop, std::uint64_t va) {
    std::uint64_t table = root_;
    for (unsigned at = 0;; ++at) {
      const std::uint64_t entry = table + 8 * index(at, va);
      if (at == hop) return entry;
      table = follow(entry);
    }
  }
  void map_small(std::uint64_t va, std::uint64_t memory, std::uint64_t bits = leaf_read_write) {
    memory_.store(entry_at(4, va), memory | bits);
  }
  void map_big(std::uint64_t va, std::uint64_t memory, std::uint64_t bits = leaf_read_write) {
    memory_.store(entry_at(3, va), memory | bits);
  }
  void map_pages(std::uint64_t va, std::uint64_t memory, std::uint64_t pages,
                 std::uint64_t bits = leaf_read_write) {
    for (std::uint64_t i = 0; i < pages; ++i) map_small(va + 4096 * i, memory + 4096 * i, bits);
  }

 private:
  static std::uint64_t index(unsigned hop, std::uint64_t va) {
    switch (hop) {
      case 0:
        return va / (std::uint64_t{1} << 48) % 4;
      case 1:
        return va / (std::uint64_t{1} << 39) % 512;
      case 2:
        return va / (std::uint64_t{1} << 30) % 512;
      case 3:
        return va / (std::uint64_t{1} << 21) % 512;
      default:
        return va / 4096 % 512;
    }
  }
  std::uint64_t follow(std::uint64_t entry) {
    const auto bytes = memory_.bytes(entry, 8);
    std::uint64_t word = 0;
    for (std::size_t i = 8; i-- > 0;) word = word * 256 + bytes[i];
    if (word == 0) {
      word = std::exchange(next_, next_ + 4096) | link_bits;
      memory_.store(entry, word);
    }
    return word - link_bits;
  }

  FakeMemory& memory_;
  std::uint64_t root_;
  std::uint64_t next_;
};

/// Submits a command and waits for its end.
inline sim::NpuJobResult run(sim::NpuModel& model, std::uint32_t asid,
                             decltype(sim::NpuCommand::work) work) {
  std::promise<sim::NpuJobResult> result;
  model.submit(
      {asid, std::move(work), [&result](const sim::NpuJobResult& r) { result.set_value(r); }});
  return result.get_future().get();
}

/// Invalidates and waits for its end.
inline Result<void> invalidate(sim::NpuModel& model, std::uint32_t asid, std::uint64_t begin,
                               std::uint64_t end) {
  std::promise<Result<void>> result;
  model.invalidate(asid, {DeviceAddr(begin), DeviceAddr(end)},
                   Completion([&result](Result<void> r) { result.set_value(r); }));
  return result.get_future().get();
}

/// Cancels and waits for its end.
inline Result<void> cancel(sim::NpuModel& model, std::uint32_t asid) {
  std::promise<Result<void>> result;
  model.cancel(asid, Completion([&result](Result<void> r) { result.set_value(r); }));
  return result.get_future().get();
}

}  // namespace accelmm::test
