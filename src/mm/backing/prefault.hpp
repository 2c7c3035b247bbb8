// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/error.hpp>
#include <accelmm/units.hpp>

#include <atomic>
#include <cstddef>
#include <functional>
#include <memory>
#include <span>

namespace accelmm {

/// How the pages of a place are made ahead of their first use.
enum class PrefaultMeans : std::uint8_t {
  populate_or_touch,  ///< by the system; where it cannot, by touching, which changes nothing
  populate,           ///< by the system, which reports what touching would meet as a SIGBUS
};

/// Pages that are being made. Belongs to the Prefaulter that started it, and ends before it.
///
/// Threads   any; destroyed by one.
/// Lifetime  the destructor cancels, and waits for the pieces that are being made just now: at most
///           1 MiB, or one huge page, a thread. The place must be there until then.
class Prefault {
 public:
  struct Job;

  Prefault(Prefault&&) noexcept;
  Prefault& operator=(Prefault&&) = delete;
  ~Prefault();

  /// How much of the place has been made. Never decreases; cheap enough to ask in a loop.
  [[nodiscard]] ByteCount progress() const noexcept;
  /// Whether it has ended, and how.
  [[nodiscard]] bool has_ended() const;
  /// Takes no further piece. It ends as `canceled`, unless it has ended or every piece is taken.
  void cancel() noexcept;
  /// Waits for the end.
  /// Errors  what the system refused a piece with; canceled.
  [[nodiscard]] Result<void> wait() const;

 private:
  friend class Prefaulter;
  explicit Prefault(std::unique_ptr<Job> job) noexcept;
  std::unique_ptr<Job> job_;
};

/// Makes pages in several threads. Places that are started while others are under way take turns,
/// piece by piece, so that a small one does not wait for a large one.
///
/// Owns      its threads, which begin with the first place and end with this.
/// Threads   any.
class Prefaulter {
 public:
  /// Told of the end of one place, in the thread that saw it: one of the Prefaulter's, or one that
  /// cancels. Must not call back into the Prefault.
  using Done = std::move_only_function<void(Result<void>)>;

  /// `threads`  0: one for each CPU, at most 16.
  explicit Prefaulter(std::uint32_t threads);
  Prefaulter(const Prefaulter&) = delete;
  Prefaulter& operator=(const Prefaulter&) = delete;
  /// Pre     every Prefault is destroyed.
  ~Prefaulter();

  /// Begins to make all pages of a place that is mapped writable.
  /// `page`  the place's largest page: no piece is smaller.
  /// Errors  no_memory, try_again: no thread could be started. `done` is not called then.
  [[nodiscard]] Result<Prefault> start(std::span<std::byte> place, Alignment page,
                                       PrefaultMeans means, Done done);

 private:
  friend class Prefault;
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace accelmm
