// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/error.hpp>
#include <accelmm/units.hpp>

#include <memory>
#include <utility>

namespace accelmm::devices {

/// Bytes that someone holds now. What is charged to a session is charged to its device too.
///
/// Threads  the loop's.
class Account {
 public:
  explicit Account(ByteCount limit, std::shared_ptr<Account> parent = nullptr)
      : limit_(limit), parent_(std::move(parent)) {}

  [[nodiscard]] ByteCount used() const { return used_; }
  [[nodiscard]] ByteCount limit() const { return limit_; }

 private:
  friend class Charge;
  ByteCount limit_;
  ByteCount used_;
  std::shared_ptr<Account> parent_;
};

/// A part of accounts that is given back when this ends. It keeps the accounts alive: memory may
/// outlive its session.
class Charge {
 public:
  /// Errors  over_quota: the account, or one above it, would exceed its limit (nothing charged).
  [[nodiscard]] static Result<Charge> make(std::shared_ptr<Account> account, ByteCount bytes) {
    for (const Account* a = account.get(); a != nullptr; a = a->parent_.get())
      if (bytes > a->limit_ - a->used_)
        return fail(Errc::over_quota, "allocation exceeds the quota of bytes");
    for (Account* a = account.get(); a != nullptr; a = a->parent_.get()) a->used_ += bytes;
    return Charge(std::move(account), bytes);
  }
  Charge(Charge&& other) noexcept
      : account_(std::move(other.account_)), bytes_(std::exchange(other.bytes_, ByteCount(0))) {}
  Charge& operator=(Charge&&) = delete;
  ~Charge() {
    for (Account* a = account_.get(); a != nullptr; a = a->parent_.get()) a->used_ -= bytes_;
  }

 private:
  Charge(std::shared_ptr<Account> account, ByteCount bytes)
      : account_(std::move(account)), bytes_(bytes) {}
  std::shared_ptr<Account> account_;
  ByteCount bytes_;
};

/// Who is charged for an allocation.
struct Payer {
  std::shared_ptr<Account> bytes;
  std::shared_ptr<Account> locked;  ///< memory that may not be swapped out
};

}  // namespace accelmm::devices
