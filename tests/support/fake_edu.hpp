// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "support/fake_vfio.hpp"

#include <array>
#include <cstdint>
#include <mutex>

namespace accelmm::test {

/// QEMU's edu device behind a FakeVfio: its registers, its buffer, its DMA. As there, an access that
/// the IOMMU refuses is ignored, and the interrupt comes all the same.
/// Source  docs/specs/edu.txt of QEMU, and hw/misc/edu.c of 7.2 for what that leaves open.
class FakeEdu final : public FakeHardware {
 public:
  explicit FakeEdu(FakeVfio& kernel) : kernel_(kernel) { kernel.hardware = this; }
  FakeEdu(const FakeEdu&) = delete;
  FakeEdu& operator=(const FakeEdu&) = delete;
  ~FakeEdu() override { kernel_.hardware = nullptr; }

  // What a test makes it do.
  std::uint32_t identification = 0x010000ed;
  bool answers = true;
  bool holds_transfers = false;  // until release()
  std::uint64_t dma_mask = (1 << 28) - 1;

  /// Ends a transfer that was held.
  void release() {
    {
      const std::lock_guard hold(mutex_);
      holds_transfers = false;
      if ((command_ & 1) == 0) return;
      move_bytes();
    }
    kernel_.signal();
  }
  /// An interrupt of another cause.
  void raise(std::uint32_t cause) {
    {
      const std::lock_guard hold(mutex_);
      status_ |= cause;
    }
    kernel_.signal();
  }
  [[nodiscard]] bool is_busy() {
    const std::lock_guard hold(mutex_);
    return (command_ & 1) != 0;
  }
  int missed = 0;    // accesses that the IOMMU refused
  int clamped = 0;   // addresses that did not fit in the mask
  int overruns = 0;  // transfers that leave the buffer: QEMU stops there

  std::uint64_t read(std::uint64_t offset, std::size_t width) override {
    const std::lock_guard hold(mutex_);
    if (width == 8 && offset < 0x80) return ~std::uint64_t{0};
    switch (offset) {
      case 0x00:
        return identification;
      case 0x04:
        return answers ? static_cast<std::uint32_t>(~alive_) : 0;
      case 0x24:
        return status_;
      case 0x80:
        return source_;
      case 0x88:
        return destination_;
      case 0x90:
        return count_;
      case 0x98:
        return command_;
      default:
        return ~std::uint64_t{0};
    }
  }
  void write(std::uint64_t offset, std::size_t width, std::uint64_t value) override {
    {
      const std::lock_guard hold(mutex_);
      if (width == 8 && offset < 0x80) return;
      if (offset == 0x04) alive_ = static_cast<std::uint32_t>(value);
      if (offset == 0x64) status_ &= ~static_cast<std::uint32_t>(value);
      if (offset < 0x80 || (command_ & 1) != 0) return;
      if (offset == 0x80) source_ = value;
      if (offset == 0x88) destination_ = value;
      if (offset == 0x90) count_ = value;
      if (offset != 0x98 || (value & 1) == 0) return;
      command_ = value;
      if (holds_transfers) return;
      move_bytes();
    }
    kernel_.signal();
  }

 private:
  static constexpr std::uint64_t buffer_begin = 0x40000;

  void move_bytes() {
    const bool to_memory = (command_ & 2) != 0;
    const std::uint64_t inside = to_memory ? source_ : destination_;
    std::uint64_t memory = to_memory ? destination_ : source_;
    if ((memory & dma_mask) != memory) ++clamped;
    memory &= dma_mask;
    if (inside < buffer_begin || inside + count_ >= buffer_begin + buffer_.size()) {
      ++overruns;
    } else {
      const std::span bytes(buffer_.data() + (inside - buffer_begin), count_);
      if (!(to_memory ? kernel_.dma_write(memory, bytes) : kernel_.dma_read(memory, bytes)))
        ++missed;
    }
    command_ &= ~std::uint64_t{1};
    if ((command_ & 4) != 0) status_ |= 0x100;
  }

  FakeVfio& kernel_;
  std::mutex mutex_;
  std::array<std::byte, 4096> buffer_{};
  std::uint32_t alive_ = 0;
  std::uint32_t status_ = 0;
  std::uint64_t source_ = 0;
  std::uint64_t destination_ = 0;
  std::uint64_t count_ = 0;
  std::uint64_t command_ = 0;
};

}  // namespace accelmm::test
