// SPDX-License-Identifier: Apache-2.0
#include "base/per_cpu.hpp"

#include <accelmm/check.hpp>

#include <thread>

#include <linux/membarrier.h>
#include <sys/rseq.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace accelmm::per_cpu {

namespace {

// Without restartable sequences. More than threads that are likely to be busy at once share a lock
// seldom; fewer keep less memory in caches.
constexpr unsigned shared_slots = 16;

long membarrier(int command, unsigned flags, int cpu) noexcept {
  return syscall(SYS_membarrier, command, flags, cpu);
}

// The number of processors if sections are restartable, and where the areas are; else 0.
unsigned find_processors() noexcept {
#if ACCELMM_RSEQ
  if (__rseq_size == 0) return 0;
  const bool registered = static_cast<std::int32_t>(detail::area(__rseq_offset).cpu_id) >= 0;
  const long processors = sysconf(_SC_NPROCESSORS_CONF);
  if (!registered || processors <= 0 ||
      membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_RSEQ, 0, 0) != 0)
    return 0;
  detail::area_offset.store(__rseq_offset, std::memory_order_relaxed);
  return static_cast<unsigned>(processors);
#else
  return 0;
#endif
}

}  // namespace

namespace detail {

unsigned slot_of_thread() noexcept {
  static std::atomic<unsigned> threads = 0;
  thread_local const unsigned number = threads.fetch_add(1, std::memory_order_relaxed);
  return number % shared_slots;
}

bool locked_store_if(SlotLock& lock, const Word& check, std::uint64_t check_expected, Word& target,
                     std::uint64_t expected, std::uint64_t desired) noexcept {
  lock.lock();
  const bool same = check.load(std::memory_order_relaxed) == check_expected &&
                    target.load(std::memory_order_relaxed) == expected;
  if (same) target.store(desired, std::memory_order_release);
  lock.unlock();
  return same;
}

bool locked_push_if(SlotLock& lock, Word& header, std::uint64_t expected, Word& cell,
                    std::uint64_t value, std::uint64_t desired) noexcept {
  lock.lock();
  const bool same = header.load(std::memory_order_relaxed) == expected;
  if (same) {
    cell.store(value, std::memory_order_relaxed);
    header.store(desired, std::memory_order_release);
  }
  lock.unlock();
  return same;
}

}  // namespace detail

void SlotLock::lock() noexcept {
  // Held for a few instructions; its holder may have been preempted.
  while (held_.exchange(true, std::memory_order_acquire)) std::this_thread::yield();
}

unsigned slots() noexcept {
  static const unsigned processors = find_processors();
  return processors != 0 ? processors : shared_slots;
}

bool restartable() noexcept {
  return detail::area_offset.load(std::memory_order_relaxed) != 0;
}

void interrupt(unsigned slot, SlotLock& lock) noexcept {
  if (!restartable()) {
    lock.lock();
    lock.unlock();
    return;
  }
  if (membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED_RSEQ, MEMBARRIER_CMD_FLAG_CPU,
                 static_cast<int>(slot)) == 0)
    return;
  // A forked child has a registration of its own to make.
  ACCELMM_CHECK(membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_RSEQ, 0, 0) == 0);
  ACCELMM_CHECK(membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED_RSEQ, MEMBARRIER_CMD_FLAG_CPU,
                           static_cast<int>(slot)) == 0);
}

}  // namespace accelmm::per_cpu
