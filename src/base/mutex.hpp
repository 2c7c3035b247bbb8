// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/check.hpp>

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>

#include <pthread.h>

// Annotations that let clang prove, with -Wthread-safety, which lock protects what. Other compilers
// ignore them. The mutexes of libstdc++ carry none, hence the wrappers below.
#if defined(__clang__)
#define ACCELMM_THREAD_ANNOTATION(x) __attribute__((x))
#else
#define ACCELMM_THREAD_ANNOTATION(x)
#endif

// On a member: read with the lock held (shared suffices), written with it held exclusively.
#define ACCELMM_GUARDED_BY(lock) ACCELMM_THREAD_ANNOTATION(guarded_by(lock))
// On a function: the caller holds the lock, exclusively or at least shared.
#define ACCELMM_REQUIRES(lock) ACCELMM_THREAD_ANNOTATION(requires_capability(lock))
#define ACCELMM_REQUIRES_SHARED(lock) ACCELMM_THREAD_ANNOTATION(requires_shared_capability(lock))
// On a function: the caller does not hold the lock, because the function takes it.
#define ACCELMM_EXCLUDES(lock) ACCELMM_THREAD_ANNOTATION(locks_excluded(lock))

namespace accelmm {

/// A mutual exclusion that clang's analysis understands. Held through MutexLock.
class ACCELMM_THREAD_ANNOTATION(capability("mutex")) Mutex {
 public:
  Mutex() = default;
  Mutex(const Mutex&) = delete;
  Mutex& operator=(const Mutex&) = delete;

  void lock() ACCELMM_THREAD_ANNOTATION(acquire_capability()) { mutex_.lock(); }
  void unlock() ACCELMM_THREAD_ANNOTATION(release_capability()) { mutex_.unlock(); }
  [[nodiscard]] bool try_lock() ACCELMM_THREAD_ANNOTATION(try_acquire_capability(true)) {
    return mutex_.try_lock();
  }

 private:
  friend class Condition;
  std::mutex mutex_;
};

/// Holds a Mutex for a scope.
class ACCELMM_THREAD_ANNOTATION(scoped_lockable) MutexLock {
 public:
  explicit MutexLock(Mutex& mutex) ACCELMM_THREAD_ANNOTATION(acquire_capability(mutex))
      : mutex_(mutex) {
    mutex_.lock();
  }
  ~MutexLock() ACCELMM_THREAD_ANNOTATION(release_capability()) { mutex_.unlock(); }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

 private:
  Mutex& mutex_;
};

/// What threads that hold a Mutex wait for. Waits may end early: look at the condition again, in a
/// loop.
class Condition {
 public:
  void notify_one() noexcept { condition_.notify_one(); }
  void notify_all() noexcept { condition_.notify_all(); }

  void wait(Mutex& mutex) ACCELMM_REQUIRES(mutex) {
    std::unique_lock<std::mutex> held(mutex.mutex_, std::adopt_lock);
    condition_.wait(held);
    held.release();
  }

  enum class Wake { notified, deadline };
  /// Waits until a time of sys::monotonic_ns().
  Wake wait_until(Mutex& mutex, std::uint64_t deadline_ns) ACCELMM_REQUIRES(mutex) {
    // The steady clock of libstdc++ is CLOCK_MONOTONIC.
    const std::chrono::steady_clock::time_point deadline{
        std::chrono::nanoseconds(static_cast<std::int64_t>(deadline_ns))};
    std::unique_lock<std::mutex> held(mutex.mutex_, std::adopt_lock);
    const auto status = condition_.wait_until(held, deadline);
    held.release();
    return status == std::cv_status::timeout ? Wake::deadline : Wake::notified;
  }

 private:
  std::condition_variable condition_;
};

/// A mutual exclusion between one writer and many readers, held through ReaderLock and WriterLock.
///
/// A waiting writer goes before new readers, unlike std::shared_mutex on Linux: devices that read
/// memory without a pause must not keep its owner waiting for ever. In return a reader must not
/// lock again what it already reads.
class ACCELMM_THREAD_ANNOTATION(capability("mutex")) SharedMutex {
 public:
  SharedMutex() {
    pthread_rwlockattr_t attributes;
    ACCELMM_CHECK(pthread_rwlockattr_init(&attributes) == 0);
    ACCELMM_CHECK(pthread_rwlockattr_setkind_np(&attributes,
                                                PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP) == 0);
    ACCELMM_CHECK(pthread_rwlock_init(&lock_, &attributes) == 0);
    ACCELMM_CHECK(pthread_rwlockattr_destroy(&attributes) == 0);
  }
  ~SharedMutex() { ACCELMM_CHECK(pthread_rwlock_destroy(&lock_) == 0); }
  SharedMutex(const SharedMutex&) = delete;
  SharedMutex& operator=(const SharedMutex&) = delete;

  void lock() ACCELMM_THREAD_ANNOTATION(acquire_capability()) {
    ACCELMM_CHECK(pthread_rwlock_wrlock(&lock_) == 0);
  }
  void unlock() ACCELMM_THREAD_ANNOTATION(release_capability()) {
    ACCELMM_CHECK(pthread_rwlock_unlock(&lock_) == 0);
  }
  void lock_shared() ACCELMM_THREAD_ANNOTATION(acquire_shared_capability()) {
    ACCELMM_CHECK(pthread_rwlock_rdlock(&lock_) == 0);
  }
  /// Fails while a writer holds the lock or waits for it.
  [[nodiscard]] bool try_lock_shared()
      ACCELMM_THREAD_ANNOTATION(try_acquire_shared_capability(true)) {
    return pthread_rwlock_tryrdlock(&lock_) == 0;
  }
  void unlock_shared() ACCELMM_THREAD_ANNOTATION(release_shared_capability()) {
    ACCELMM_CHECK(pthread_rwlock_unlock(&lock_) == 0);
  }

 private:
  pthread_rwlock_t lock_;
};

/// Holds a SharedMutex exclusively for a scope.
class ACCELMM_THREAD_ANNOTATION(scoped_lockable) WriterLock {
 public:
  explicit WriterLock(SharedMutex& mutex) ACCELMM_THREAD_ANNOTATION(acquire_capability(mutex))
      : mutex_(mutex) {
    mutex_.lock();
  }
  ~WriterLock() ACCELMM_THREAD_ANNOTATION(release_capability()) { mutex_.unlock(); }
  WriterLock(const WriterLock&) = delete;
  WriterLock& operator=(const WriterLock&) = delete;

 private:
  SharedMutex& mutex_;
};

/// Holds a SharedMutex shared for a scope.
class ACCELMM_THREAD_ANNOTATION(scoped_lockable) ReaderLock {
 public:
  explicit ReaderLock(SharedMutex& mutex)
      ACCELMM_THREAD_ANNOTATION(acquire_shared_capability(mutex))
      : mutex_(mutex) {
    mutex_.lock_shared();
  }
  ~ReaderLock() ACCELMM_THREAD_ANNOTATION(release_generic_capability()) { mutex_.unlock_shared(); }
  ReaderLock(const ReaderLock&) = delete;
  ReaderLock& operator=(const ReaderLock&) = delete;

 private:
  SharedMutex& mutex_;
};

}  // namespace accelmm
