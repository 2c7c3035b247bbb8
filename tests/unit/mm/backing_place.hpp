// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/system.hpp"
#include "mm/backing/memory_window.hpp"
#include "mm/backing/sealed_memfd.hpp"

#include <accelmm/backing.hpp>

#include <cstdlib>
#include <span>
#include <utility>

namespace accelmm::test {

/// A memory file placed at the beginning of a window of its own, as a region would. Ends the process
/// if that fails: tests that need a pool ask for it first.
class Place {
 public:
  explicit Place(ByteCount size, PageSize pages = PageSize::base)
      : memfd_(value(SealedMemfd::create("place-test", size, pages))),
        window_(value(MemoryWindow::create(size, Backdrop::none))) {
    if (!window_.place({RegionOffset(), size}, memfd_.fd(), ByteCount(), Access::read_write))
      std::abort();
  }

  [[nodiscard]] std::span<std::byte> bytes() const {
    return {window_.data(RegionOffset()), memfd_.size().value()};
  }
  [[nodiscard]] FdView fd() const { return memfd_.fd(); }
  /// What the kernel has taken for it.
  [[nodiscard]] ByteCount taken() const {
    return ByteCount(static_cast<std::uint64_t>(sys::fstat(fd())->st_blocks) * 512);
  }

 private:
  template <class T>
  static T value(Result<T> result) {
    if (!result) std::abort();
    return std::move(*result);
  }
  SealedMemfd memfd_;
  MemoryWindow window_;
};

}  // namespace accelmm::test
