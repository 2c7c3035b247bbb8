// SPDX-License-Identifier: Apache-2.0
#include <accelmm/account.hpp>
#include <accelmm/check.hpp>

#include <algorithm>

namespace accelmm {

Account::Account(Options options)
    : options_(std::move(options)),
      lock_(options_.parent ? options_.parent->lock_ : std::make_shared<std::mutex>()) {}

Account::Usage Account::usage() const {
  const std::lock_guard held(*lock_);
  return usage_;
}

ByteCount Account::left() const {
  const std::lock_guard held(*lock_);
  ByteCount left = options_.limits.bytes - usage_.bytes;
  for (const Account* a = options_.parent.get(); a != nullptr; a = a->options_.parent.get())
    left = std::min(left, a->options_.limits.bytes - a->usage_.bytes);
  return left;
}

void Account::reset_peaks() {
  const std::lock_guard held(*lock_);
  usage_.peak = usage_.bytes;
  usage_.peak_allocations = usage_.allocations;
}

Result<void> Account::add(ByteCount bytes, std::uint64_t allocations) {
  const std::lock_guard held(*lock_);
  for (const Account* a = this; a != nullptr; a = a->options_.parent.get()) {
    if (bytes > a->options_.limits.bytes - a->usage_.bytes)
      return fail(Errc::over_quota, "allocation exceeds the quota of bytes");
    if (allocations > a->options_.limits.allocations - a->usage_.allocations)
      return fail(Errc::over_quota, "allocation exceeds the quota of allocations");
  }
  for (Account* a = this; a != nullptr; a = a->options_.parent.get()) {
    Usage& usage = a->usage_;
    usage.bytes += bytes;
    usage.allocations += allocations;
    usage.peak = std::max(usage.peak, usage.bytes);
    usage.peak_allocations = std::max(usage.peak_allocations, usage.allocations);
  }
  return {};
}

void Account::subtract(ByteCount bytes, std::uint64_t allocations) noexcept {
  const std::lock_guard held(*lock_);
  for (Account* a = this; a != nullptr; a = a->options_.parent.get()) {
    ACCELMM_CHECK(bytes <= a->usage_.bytes && allocations <= a->usage_.allocations);
    a->usage_.bytes -= bytes;
    a->usage_.allocations -= allocations;
  }
}

Result<Charge> Charge::make(std::shared_ptr<Account> account, ByteCount bytes,
                            std::uint64_t allocations) {
  if (auto added = account->add(bytes, allocations); !added) return fail(added.error());
  return Charge(std::move(account), bytes, allocations);
}

void Charge::shrink(ByteCount bytes) noexcept {
  ACCELMM_CHECK(bytes <= bytes_);
  account_->subtract(bytes, 0);
  bytes_ -= bytes;
}

}  // namespace accelmm
