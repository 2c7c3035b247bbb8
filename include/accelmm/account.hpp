// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/error.hpp>
#include <accelmm/units.hpp>

#include <cstdint>
#include <limits>
#include <memory>
#include <mutex>
#include <utility>

namespace accelmm {

/// Who an account belongs to, for reports.
struct AccountName {
  enum class Level : std::uint8_t { device, user, session, other };
  Level level = Level::other;
  std::uint64_t number = 0;  ///< of the device, the uid, or the session
  constexpr bool operator==(const AccountName&) const = default;
};

/// What someone holds now, held at most, and may hold. What is charged to an account is charged to
/// all above it: a session's is below its uid's, which is below the device's.
///
/// Threads   any; one lock for all accounts below one root.
/// Lifetime  shared; an account keeps the one above it.
/// Invariant what an account holds is at least what those below it hold; no charge takes it beyond
///           its limits.
class Account {
 public:
  struct Limits {
    ByteCount bytes{std::numeric_limits<std::uint64_t>::max()};
    std::uint64_t allocations = std::numeric_limits<std::uint64_t>::max();
  };
  struct Usage {
    ByteCount bytes;
    ByteCount peak;
    std::uint64_t allocations = 0;
    std::uint64_t peak_allocations = 0;
    bool operator==(const Usage&) const = default;
  };
  struct Options {
    AccountName name = {};
    Limits limits = {};
    std::shared_ptr<Account> parent = nullptr;
  };

  /// Throws std::bad_alloc only.
  explicit Account(Options options);
  Account(const Account&) = delete;
  Account& operator=(const Account&) = delete;

  [[nodiscard]] const AccountName& name() const { return options_.name; }
  [[nodiscard]] const Limits& limits() const { return options_.limits; }
  /// The account above; null: none.
  [[nodiscard]] const Account* parent() const { return options_.parent.get(); }
  [[nodiscard]] Usage usage() const;
  [[nodiscard]] ByteCount used() const { return usage().bytes; }
  /// What a charge could still have, here and in every account above.
  [[nodiscard]] ByteCount left() const;
  /// The peaks are what is held now.
  void reset_peaks();

 private:
  friend class Charge;
  [[nodiscard]] Result<void> add(ByteCount bytes, std::uint64_t allocations);
  void subtract(ByteCount bytes, std::uint64_t allocations) noexcept;

  const Options options_;
  const std::shared_ptr<std::mutex> lock_;  // of the root
  Usage usage_;                             // under the lock
};

/// A part of an account that is given back when this ends. It keeps the account alive: memory may
/// outlive its session.
class Charge {
 public:
  Charge() = default;
  /// Errors  over_quota: the account, or one above it, would exceed a limit (nothing is charged).
  [[nodiscard]] static Result<Charge> make(std::shared_ptr<Account> account, ByteCount bytes,
                                           std::uint64_t allocations = 1);
  Charge(Charge&& other) noexcept
      : account_(std::move(other.account_)),
        bytes_(std::exchange(other.bytes_, ByteCount(0))),
        allocations_(std::exchange(other.allocations_, 0)) {}
  Charge& operator=(Charge&& other) noexcept {
    Charge old(std::move(*this));
    account_ = std::move(other.account_);
    bytes_ = std::exchange(other.bytes_, ByteCount(0));
    allocations_ = std::exchange(other.allocations_, 0);
    return *this;
  }
  ~Charge() {
    if (account_) account_->subtract(bytes_, allocations_);
  }

  [[nodiscard]] ByteCount bytes() const { return bytes_; }
  [[nodiscard]] std::uint64_t allocations() const { return allocations_; }
  /// Gives a part of it back. Pre: bytes <= bytes().
  void shrink(ByteCount bytes) noexcept;

 private:
  Charge(std::shared_ptr<Account> account, ByteCount bytes, std::uint64_t allocations)
      : account_(std::move(account)), bytes_(bytes), allocations_(allocations) {}

  std::shared_ptr<Account> account_;
  ByteCount bytes_;
  std::uint64_t allocations_ = 0;
};

}  // namespace accelmm
