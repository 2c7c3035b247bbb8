// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/account.hpp>
#include <accelmm/device.hpp>

#include <map>
#include <memory>
#include <utility>

#include <sys/types.h>

namespace accelmm::devices {

/// The accounts of the users of one device, below the device's. A user's lives while a session of
/// his, or memory that outlived one, is charged to it.
///
/// Threads  the loop's.
class UserAccounts {
 public:
  UserAccounts(const Quota& quota, std::shared_ptr<Account> device)
      : quota_(quota), device_(std::move(device)) {}

  struct Of {
    std::shared_ptr<Account> memory;
    std::shared_ptr<Account> mappings;  // a mapping is an allocation of no bytes
    std::shared_ptr<Account> waits;     // and so is a wait
  };
  /// Throws std::bad_alloc.
  [[nodiscard]] Of of(uid_t uid) {
    std::erase_if(kept_, [](const auto& entry) { return entry.second.expired(); });
    Kept& kept = kept_[uid];
    const AccountName name{AccountName::Level::user, uid};
    return {
        .memory = find(kept.memory,
                       {.name = name, .limits = {quota_.bytes, quota_.buffers}, .parent = device_}),
        .mappings = find(kept.mappings, {.name = name, .limits = {.allocations = quota_.mappings}}),
        .waits = find(kept.waits, {.name = name, .limits = {.allocations = quota_.waits}})};
  }

 private:
  struct Kept {
    std::weak_ptr<Account> memory;
    std::weak_ptr<Account> mappings;
    std::weak_ptr<Account> waits;
    [[nodiscard]] bool expired() const {
      return memory.expired() && mappings.expired() && waits.expired();
    }
  };
  static std::shared_ptr<Account> find(std::weak_ptr<Account>& kept, Account::Options options) {
    auto account = kept.lock();
    if (!account) kept = account = std::make_shared<Account>(std::move(options));
    return account;
  }

  const Quota quota_;
  const std::shared_ptr<Account> device_;
  std::map<uid_t, Kept> kept_;
};

}  // namespace accelmm::devices
