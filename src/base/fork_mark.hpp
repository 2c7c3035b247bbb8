// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/error.hpp>

#include <atomic>
#include <cstdint>
#include <memory>

namespace accelmm {

/// A word that reads 1, and 0 in forked children, however they were made: its page is wiped there
/// (MADV_WIPEONFORK).
///
/// What ProcessMark says with a system call, for those who ask with every step.
/// Owns      a page.
/// Lifetime  move-only; the word stays where it is.
class ForkMark {
 public:
  /// Errors  any value of mmap(2), madvise(2).
  [[nodiscard]] static Result<ForkMark> create();

  [[nodiscard]] const std::atomic<std::uint64_t>& word() const noexcept { return *word_; }
  [[nodiscard]] bool in_forked_child() const noexcept {
    return word_->load(std::memory_order_relaxed) == 0;
  }

 private:
  struct Unmap {
    void operator()(std::atomic<std::uint64_t>* word) const noexcept;
  };
  explicit ForkMark(std::atomic<std::uint64_t>* word) noexcept : word_(word) {}

  std::unique_ptr<std::atomic<std::uint64_t>, Unmap> word_;
};

}  // namespace accelmm
