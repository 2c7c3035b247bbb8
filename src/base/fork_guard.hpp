// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/error.hpp>
#include <accelmm/fd.hpp>

#include <cstdint>
#include <memory>
#include <utility>

namespace accelmm {

/// Owns a descriptor that must not live on in forked children.
///
/// A socket that a child inherits stays open when its owner dies: the other end would wait for a
/// peer that is gone. fork() therefore closes the child's copy, through pthread_atfork handlers
/// that the first guard installs. A child made without them (a raw clone system call) keeps its
/// copy, but in_forked_child() tells it all the same: the kernel wipes the page where the owner's
/// token is (MADV_WIPEONFORK). Owns      the descriptor, and an entry of the list that the handlers
/// walk. That list and its lock are
///           process-wide, as fork() is; they are the only mutable globals here.
/// Threads   guards may be made, used and destroyed in any threads; one guard is used by one thread
/// at a time, or by
///           many through fd() and in_forked_child() only. fork() waits while a guard is made or
///           destroyed.
/// Lifetime  a child may destroy the guards that it inherited, and make its own.
class ForkGuard {
 public:
  /// Takes a descriptor that already exists. A fork() in another thread between its making and this
  /// call leaves the child a copy; where the descriptor can be made again, use open(). Errors
  /// no_memory. Any errno of mmap and madvise. The descriptor is closed then.
  [[nodiscard]] static Result<ForkGuard> adopt(UniqueFd fd);

  /// Makes a descriptor with `make`, a callable that returns Result<UniqueFd>, and again if a fork
  /// came between. Errors  those of adopt() and of `make`.
  template <class Make>
  [[nodiscard]] static Result<ForkGuard> open(Make make);

  ForkGuard(ForkGuard&& other) noexcept;
  ForkGuard& operator=(ForkGuard&& other) noexcept;
  ForkGuard(const ForkGuard&) = delete;
  ForkGuard& operator=(const ForkGuard&) = delete;
  ~ForkGuard();

  /// The descriptor; not valid in a forked child.
  [[nodiscard]] FdView fd() const noexcept;
  /// Whether the caller runs in another process than the one that made the guard. One load; takes
  /// no lock.
  [[nodiscard]] bool in_forked_child() const noexcept;

 private:
  struct Entry;
  friend class ForkRegistry;
  explicit ForkGuard(std::unique_ptr<Entry> entry) noexcept;

  [[nodiscard]] static Result<std::uint64_t> fork_count();
  /// Forks of this process, or of those it descends from, before the guard was in the list.
  [[nodiscard]] std::uint64_t forks_before() const noexcept;

  std::unique_ptr<Entry> entry_;
};

template <class Make>
Result<ForkGuard> ForkGuard::open(Make make) {
  while (true) {
    const auto forks = fork_count();
    if (!forks) return fail(forks.error());
    Result<UniqueFd> fd = make();
    if (!fd) return fail(fd.error());
    auto guard = adopt(std::move(*fd));
    if (!guard || guard->forks_before() == *forks) return guard;
  }
}

}  // namespace accelmm
