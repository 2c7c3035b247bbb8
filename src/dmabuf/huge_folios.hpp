// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/error.hpp>
#include <accelmm/fd.hpp>
#include <accelmm/units.hpp>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <string>
#include <utility>

namespace accelmm::dmabuf {

/// What the kernel gives to memory files of its own accord, or when it is asked.
enum class FolioSize : std::uint8_t {
  base,     ///< base pages, always
  advised,  ///< huge pages where somebody asked for them
  any,      ///< huge pages, or what lies between, at any time
};

/// Reads `folder`, as /sys/kernel/mm/transparent_hugepage is. What cannot be read gives no huge
/// pages: there is no such thing in that kernel.
[[nodiscard]] FolioSize folio_sizes(const std::string& folder);

/// What folio_sizes() said last, for a moment: reading it costs more than making a dma-buf.
///
/// Only what an administrator changes goes unseen that long. What was made before is as it was made,
/// whatever is read now.
/// Threads  any.
class FolioSettings {
 public:
  static constexpr std::chrono::milliseconds moment{100};

  explicit FolioSettings(std::string folder = "/sys/kernel/mm/transparent_hugepage")
      : folder_(std::move(folder)) {}

  [[nodiscard]] FolioSize sizes(std::chrono::steady_clock::time_point now) const;

 private:
  std::string folder_;
  // When it was read, in the clock's units, and what: in one word, so that they belong together.
  mutable std::atomic<std::uint64_t> seen_{0};
};

/// Whether memory of a file lies in huge pages, or may come to. Where only advised files have them
/// it is looked at, which makes the first page of each 2 MiB.
/// Errors  any value of fstatfs(2), mmap(2): a file that is sealed against writing cannot be
///         looked at.
[[nodiscard]] Result<bool> may_have_huge_folios(FdView memfd, ByteCount size,
                                                const FolioSettings& settings);

}  // namespace accelmm::dmabuf
