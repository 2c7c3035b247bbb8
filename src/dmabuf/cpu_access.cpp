// SPDX-License-Identifier: Apache-2.0
#include "dmabuf/cpu_access.hpp"

#include "base/system_dmabuf.hpp"
#include "dmabuf/deadline.hpp"

#include <accelmm/check.hpp>

#include <utility>

#include <poll.h>

namespace accelmm::dmabuf {

namespace {

// A driver may answer "again" for as long as its fence is held up; the wait before was bounded, so
// that this one is not made endless here.
constexpr int most_tries = 16;

Result<void> sync(FdView buffer, Access access, sys::SyncEdge edge) {
  Result<void> done;
  for (int tries = 0; tries < most_tries; ++tries) {
    done = sys::dma_buf_sync(buffer, access, edge);
    if (done || done.error().code != Errc::try_again) return done;
  }
  return done;
}

std::size_t index_of(Access access) {
  return static_cast<std::size_t>(access);
}

}  // namespace

std::shared_ptr<CpuBrackets> CpuBrackets::create(UniqueFd buffer) {
  return std::shared_ptr<CpuBrackets>(new CpuBrackets(std::move(buffer)));
}

// udmabuf keeps the direction of its first bracket for good: a first one that only reads would
// leave what is written later unseen by devices without a view of the caches.
Result<void> CpuBrackets::prepare() {
  const MutexLock lock(mutex_);
  if (direction_ == Direction::both) return {};
  if (const auto begun = sync(buffer_.view(), Access::read_write, sys::SyncEdge::start); !begun)
    return begun;
  direction_ = Direction::both;
  return sync(buffer_.view(), Access::read_write, sys::SyncEdge::end);
}

Result<CpuAccess> CpuBrackets::begin(Access access, std::uint64_t deadline_ns) {
  if (!is_valid(access)) return fail(Errc::invalid_argument, "no such access");
  // Readers wait for the last writer, writers for everyone.
  const short events = allows(access, Access::write) ? POLLOUT : POLLIN;
  if (const auto ready = poll_until(buffer_.view(), events, deadline_ns); !ready)
    return fail(ready.error());
  if (const auto prepared = prepare(); !prepared) return fail(prepared.error());
  if (const auto begun = sync(buffer_.view(), access, sys::SyncEdge::start); !begun)
    return fail(begun.error());
  const MutexLock lock(mutex_);
  ++open_[index_of(access)];
  return CpuAccess(shared_from_this(), access);
}

Result<void> CpuBrackets::end(Access access) {
  {
    const MutexLock lock(mutex_);
    ACCELMM_CHECK(open_[index_of(access)] > 0);
    --open_[index_of(access)];
  }
  return sync(buffer_.view(), access, sys::SyncEdge::end);
}

std::uint32_t CpuBrackets::open(Access access) const {
  const MutexLock lock(mutex_);
  std::uint32_t count = 0;
  for (const Access one : {Access::read, Access::write, Access::read_write})
    if (allows(one, access)) count += open_[index_of(one)];
  return count;
}

}  // namespace accelmm::dmabuf

namespace accelmm {

CpuAccess::CpuAccess(std::shared_ptr<dmabuf::CpuBrackets> brackets, Access access)
    : brackets_(std::move(brackets)), access_(access) {}

CpuAccess::CpuAccess(CpuAccess&& other) noexcept
    : brackets_(std::move(other.brackets_)),
      access_(other.access_),
      state_(std::exchange(other.state_, State::ended)) {}

CpuAccess& CpuAccess::operator=(CpuAccess&& other) noexcept {
  if (this == &other) return *this;
  if (state_ == State::open) static_cast<void>(end());
  brackets_ = std::move(other.brackets_);
  access_ = other.access_;
  state_ = std::exchange(other.state_, State::ended);
  return *this;
}

CpuAccess::~CpuAccess() {
  if (state_ == State::open) static_cast<void>(end());
}

Result<void> CpuAccess::end() {
  if (state_ == State::ended) return fail(Errc::invalid_argument, "the access is ended");
  state_ = State::ended;
  const auto brackets = std::exchange(brackets_, nullptr);
  return brackets != nullptr ? brackets->end(access_) : Result<void>{};
}

}  // namespace accelmm
