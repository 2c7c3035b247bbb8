// SPDX-License-Identifier: Apache-2.0
#include "base/fork_guard.hpp"

#include "base/mutex.hpp"
#include "base/system.hpp"

#include <accelmm/check.hpp>

#include <atomic>
#include <new>

#include <pthread.h>
#include <sys/mman.h>

namespace accelmm {

struct ForkGuard::Entry {
  // Changed by the handler in a child only, while that has one thread; atomic so that nobody has to
  // reason about it.
  std::atomic<int> fd{-1};
  std::uint64_t token = 0;
  std::uint64_t forks = 0;
  Entry* previous = nullptr;
  Entry* next = nullptr;
};

// All guards of the process. Held over fork(), so that the child finds the list whole and the lock
// its own.
class ForkRegistry {
 public:
  using Entry = ForkGuard::Entry;

  [[nodiscard]] Result<void> prepare() {
    const MutexLock held(lock_);
    return prepare_locked();
  }

  [[nodiscard]] Result<void> add(Entry& entry) {
    const MutexLock held(lock_);
    if (const auto prepared = prepare_locked(); !prepared) return prepared;
    entry.token = page_->load(std::memory_order_relaxed);
    entry.forks = forks_;
    entry.next = first_;
    if (first_ != nullptr) first_->previous = &entry;
    first_ = &entry;
    return {};
  }

  // Closes under the lock: a fork between leaving the list and closing would leave the child a
  // copy.
  void remove(Entry& entry) noexcept {
    const MutexLock held(lock_);
    (entry.previous != nullptr ? entry.previous->next : first_) = entry.next;
    if (entry.next != nullptr) entry.next->previous = entry.previous;
    UniqueFd(entry.fd.exchange(-1, std::memory_order_relaxed)).reset();
  }

  [[nodiscard]] std::uint64_t forks() {
    const MutexLock held(lock_);
    return forks_;
  }

  // Only for those who hold a guard: the page is there before the first one.
  [[nodiscard]] std::uint64_t token() const noexcept {
    return page_->load(std::memory_order_relaxed);
  }

  // The lock is held from the first of these to the second or third, which the analysis cannot
  // follow.
  void before_fork() ACCELMM_THREAD_ANNOTATION(no_thread_safety_analysis) {
    lock_.lock();
    ++forks_;
  }
  void after_fork_in_parent() ACCELMM_THREAD_ANNOTATION(no_thread_safety_analysis) {
    lock_.unlock();
  }
  // Runs where only async-signal-safe calls are allowed: it closes and does nothing else.
  void after_fork_in_child() ACCELMM_THREAD_ANNOTATION(no_thread_safety_analysis) {
    for (Entry* entry = first_; entry != nullptr; entry = entry->next)
      UniqueFd(entry->fd.exchange(-1, std::memory_order_relaxed)).reset();
    lock_.unlock();
  }

 private:
  [[nodiscard]] Result<void> prepare_locked() ACCELMM_REQUIRES(lock_);
  [[nodiscard]] Result<void> make_page() ACCELMM_REQUIRES(lock_);

  Mutex lock_;
  Entry* first_ ACCELMM_GUARDED_BY(lock_) = nullptr;
  std::uint64_t forks_ ACCELMM_GUARDED_BY(lock_) = 0;
  std::uint64_t last_token_ ACCELMM_GUARDED_BY(lock_) = 0;
  bool handlers_installed_ ACCELMM_GUARDED_BY(lock_) = false;
  // Holds the token of the process, and 0 in a child that has made no guard yet. Never unmapped.
  std::atomic<std::uint64_t>* page_ = nullptr;
};

namespace {

constinit ForkRegistry registry;

}  // namespace

Result<void> ForkRegistry::make_page() {
  const ByteCount size(sizeof(std::atomic<std::uint64_t>));
  const auto page =
      sys::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, FdView(), 0);
  if (!page) return fail(page.error());
  if (const auto wiped = sys::madvise(*page, size, MADV_WIPEONFORK); !wiped) {
    sys::munmap(*page, size);
    return wiped;
  }
  page_ = new (*page) std::atomic<std::uint64_t>(0);
  return {};
}

Result<void> ForkRegistry::prepare_locked() {
  if (page_ == nullptr) {
    if (const auto made = make_page(); !made) return made;
  }
  if (!handlers_installed_) {
    const int error =
        pthread_atfork([] { registry.before_fork(); }, [] { registry.after_fork_in_parent(); },
                       [] { registry.after_fork_in_child(); });
    if (error != 0) return fail_errno(error, "installing the fork handlers failed");
    handlers_installed_ = true;
  }
  if (page_->load(std::memory_order_relaxed) == 0)
    page_->store(++last_token_, std::memory_order_relaxed);
  return {};
}

ForkGuard::ForkGuard(std::unique_ptr<Entry> entry) noexcept : entry_(std::move(entry)) {}
ForkGuard::ForkGuard(ForkGuard&& other) noexcept = default;

ForkGuard& ForkGuard::operator=(ForkGuard&& other) noexcept {
  if (this == &other) return *this;
  if (entry_ != nullptr) registry.remove(*entry_);
  entry_ = std::move(other.entry_);
  return *this;
}

ForkGuard::~ForkGuard() {
  if (entry_ != nullptr) registry.remove(*entry_);
}

Result<ForkGuard> ForkGuard::adopt(UniqueFd fd) {
  ACCELMM_CHECK(fd.valid());
  std::unique_ptr<Entry> entry(new (std::nothrow) Entry);
  if (entry == nullptr) return fail(Errc::no_memory, "no memory for a fork guard");
  entry->fd.store(fd.get(), std::memory_order_relaxed);
  if (const auto added = registry.add(*entry); !added) return fail(added.error());
  static_cast<void>(fd.release());
  return ForkGuard(std::move(entry));
}

FdView ForkGuard::fd() const noexcept {
  return FdView(entry_->fd.load(std::memory_order_relaxed));
}

bool ForkGuard::in_forked_child() const noexcept {
  return registry.token() != entry_->token;
}

Result<std::uint64_t> ForkGuard::fork_count() {
  if (const auto prepared = registry.prepare(); !prepared) return fail(prepared.error());
  return registry.forks();
}

std::uint64_t ForkGuard::forks_before() const noexcept {
  return entry_->forks;
}

}  // namespace accelmm
