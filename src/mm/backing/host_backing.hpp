// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "mm/backing/prefault.hpp"

#include <accelmm/backing.hpp>
#include <accelmm/error.hpp>
#include <accelmm/fd.hpp>

#include <cstddef>
#include <optional>
#include <span>
#include <utility>

namespace accelmm {

/// Fills in what a request leaves to the driver process.
/// Errors  invalid_argument: an enumerator that does not exist, nodes without a rule, or a rule
///         without nodes.
[[nodiscard]] Result<BackingRequest> complete_request(const BackingRequest& request,
                                                      const BackingRequest& defaults);

/// What was done for the memory of one placed file, and what could not be.
///
/// Owns      the making of its pages, while that is under way.
/// Threads   externally synchronised.
/// Lifetime  move-only; destroyed before its place is emptied.
class HostBacking {
 public:
  /// Asks the system for everything but the prefault, in this order: kind of pages, nodes, lock,
  /// dumps. Files of a pool get all their pages here, so that no later access can find the pool
  /// dry.
  /// `place`    where the file was just placed, writable, and nobody has touched it.
  /// `pages`    what the file was made of.
  /// `refused`  what was refused before.
  /// Errors  with an exact request, what the system refused first. For files of a pool also what
  ///         their pages were refused with. The file is then to be given up.
  [[nodiscard]] static Result<HostBacking> settle(std::span<std::byte> place,
                                                  const BackingRequest& request, PageSize pages,
                                                  BackingRefusals refused, Prefaulter& prefaulter);
  /// What somebody else made.
  [[nodiscard]] static HostBacking imported(std::span<std::byte> place);

  /// Begins to make all pages. `done` is called at its end, or by the destructor.
  /// Errors  as Prefaulter::start(), if the request is exact; otherwise that is noted.
  [[nodiscard]] Result<void> prefault(Prefaulter& prefaulter, Prefaulter::Done done);

  /// `file`  what is placed.
  [[nodiscard]] BackingReport report(FdView file) const;
  [[nodiscard]] bool is_locked() const { return locked_; }
  [[nodiscard]] const BackingRequest& request() const { return request_; }
  /// Stops making pages and, if that was asked for, writes zeroes over what was written.
  void clear(FdView file) noexcept;

 private:
  HostBacking(std::span<std::byte> place, const BackingRequest& request, PageSize pages,
              BackingRefusals refused)
      : place_(place), request_(request), pages_(pages), refused_(refused) {}
  [[nodiscard]] Result<void> note(Result<void> result, std::optional<Errc>& refusal) const;
  [[nodiscard]] Result<void> ask_system();
  [[nodiscard]] PrefaultState prefault_state(std::optional<Errc>& refused) const;

  std::span<std::byte> place_;
  BackingRequest request_;
  PageSize pages_;
  BackingRefusals refused_;
  std::optional<Prefault> prefault_;
  bool locked_ = false;
};

}  // namespace accelmm
