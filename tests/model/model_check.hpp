// SPDX-License-Identifier: Apache-2.0
//
// What a model test needs: lock-free code that takes its atomics as a template parameter runs here
// on those of the model checker Relacy, which tries many orders of its steps, with each value that
// the memory model lets a load see, and finds data races.
//
// One translation unit a binary includes this: Relacy replaces the operators new and delete.
#pragma once

#include <accelmm/check.hpp>

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <initializer_list>
#include <iostream>
#include <new>
#include <type_traits>
#include <utility>

#include <relacy/relacy.hpp>

#undef new
#undef delete
#undef malloc
#undef calloc
#undef realloc
#undef free
#undef assert
#undef errno
#undef memory_order_relaxed
#undef memory_order_consume
#undef memory_order_acquire
#undef memory_order_release
#undef memory_order_acq_rel
#undef memory_order_seq_cst

// Relacy replaces the plain operators new and delete, to find leaks and uses of freed memory; these
// are the others that code here uses, which must agree with them.
inline void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
  return operator new(size);
}
inline void* operator new[](std::size_t size, const std::nothrow_t&) noexcept {
  return operator new[](size);
}
inline void operator delete(void* block, std::size_t) noexcept {
  operator delete(block);
}
inline void operator delete[](void* block, std::size_t) noexcept {
  operator delete[](block);
}

namespace accelmm::test {

/// Each is a way of getting lock-free code wrong that a model must find, or it proves nothing.
enum class Mutant {
  none,
  release_add_is_relaxed,      // fetch_add and stores: what was written before is not passed on
  release_drop_is_relaxed,     // fetch_sub likewise
  acquire_swap_is_relaxed,     // compare_exchange: what others wrote is not taken over
  release_swap_is_relaxed,     // compare_exchange: what was written before is not passed on
  add_is_load_and_store,       // fetch_add loses what others do in between
  add_of_one_looks_first,      // fetch_add(1) shows the word as the last other fetch_add left it
  swap_compares_low_20_bits,   // compare_exchange does not see a changed version above them
  swap_is_load_and_store,      // compare_exchange loses what others do in between
  exchange_is_load_and_store,  // exchange likewise
};

/// The atomics of the model checker as StdAtomics has them, with a mutation or none.
template <Mutant mutant>
struct ModelAtomics {
  template <class T>
  class Atomic {
   public:
    Atomic() : word_(T{}) {}
    Atomic(T value) : word_(value) {}

    T load(std::memory_order order) const { return word_.load(model(order), $); }
    void store(T value, std::memory_order order) {
      word_.store(value, model(weakened(order, Mutant::release_add_is_relaxed)), $);
    }
    T fetch_add(T value, std::memory_order order) {
      if constexpr (mutant == Mutant::add_is_load_and_store) {
        const T before = word_.load(rl::mo_acquire, $);
        word_.store(before + value, rl::mo_release, $);
        return before;
      }
      if (order == std::memory_order::release)
        order = weakened(order, Mutant::release_add_is_relaxed);
      const T before = word_.fetch_add(value, model(order), $);
      if constexpr (mutant == Mutant::add_of_one_looks_first) {
        if (value == 1) return left_;
        left_ = before + value;
      }
      return before;
    }
    T fetch_sub(T value, std::memory_order order) {
      return word_.fetch_sub(value, model(weakened(order, Mutant::release_drop_is_relaxed)), $);
    }
    T fetch_or(T value, std::memory_order order) { return word_.fetch_or(value, model(order), $); }
    T exchange(T value, std::memory_order order) {
      if constexpr (mutant == Mutant::exchange_is_load_and_store) {
        const T before = word_.load(model(std::memory_order::acquire), $);
        word_.store(value, model(std::memory_order::release), $);
        return before;
      }
      return word_.exchange(value, model(order), $);
    }
    bool compare_exchange_weak(T& expected, T desired, std::memory_order order,
                               std::memory_order failed) {
      if constexpr (mutant == Mutant::swap_is_load_and_store) {
        const T before = word_.load(model(std::memory_order::acquire), $);
        if (before == expected) word_.store(desired, model(std::memory_order::release), $);
        return before == std::exchange(expected, before);
      }
      blind(expected);
      order = weakened_swap(order);
      if (order == std::memory_order::relaxed) failed = order;
      return word_.compare_exchange_weak(expected, desired, model(order), $, model(failed), $);
    }
    bool compare_exchange_strong(T& expected, T desired, std::memory_order order,
                                 std::memory_order failed) {
      blind(expected);
      order = weakened_swap(order);
      if (order == std::memory_order::relaxed) failed = order;
      return word_.compare_exchange_strong(expected, desired, model(order), $, model(failed), $);
    }

   private:
    static std::memory_order weakened(std::memory_order order, Mutant by) {
      return mutant == by ? std::memory_order::relaxed : order;
    }
    static std::memory_order weakened_swap(std::memory_order order) {
      if (order == std::memory_order::release)
        return weakened(order, Mutant::release_swap_is_relaxed);
      return weakened(order, Mutant::acquire_swap_is_relaxed);
    }
    static rl::memory_order model(std::memory_order order) {
      switch (order) {
        case std::memory_order::relaxed:
          return rl::mo_relaxed;
        case std::memory_order::consume:
          return rl::mo_consume;
        case std::memory_order::acquire:
          return rl::mo_acquire;
        case std::memory_order::release:
          return rl::mo_release;
        case std::memory_order::acq_rel:
          return rl::mo_acq_rel;
        case std::memory_order::seq_cst:
          return rl::mo_seq_cst;
      }
      return rl::mo_seq_cst;
    }
    void blind([[maybe_unused]] T& expected) const {
      if constexpr (mutant == Mutant::swap_compares_low_20_bits && sizeof(T) == 8 &&
                    std::is_integral_v<T>) {
        const T seen = word_.load(rl::mo_relaxed, $);
        if (((seen ^ expected) & 0xfffff) == 0) expected = seen;
      }
    }

    rl::atomic<T> word_;
    T left_{};  // for one mutant
  };
};

/// A stream without a buffer: Relacy writes where nothing may allocate.
inline std::ostream& nowhere() {
  static std::ostream stream(nullptr);
  return stream;
}

/// Runs a model that must hold. Prints the steps that lead to an error.
template <class Model>
bool holds(const char* name, rl::iteration_t executions) {
  rl::test_params params;
  params.iteration_count = executions;
  params.progress_stream = &nowhere();
  const bool fine = rl::simulate<Model>(params);
  std::cout << name << ": " << params.stop_iteration << " executions, "
            << rl::test_result_str(params.test_result) << std::endl;
  return fine;
}

/// Runs a mutant, in which an error must be found: one of the order of steps, not one that keeps the
/// model from ending.
template <class Model>
bool is_caught(const char* name, rl::iteration_t executions) {
  rl::test_params params;
  params.iteration_count = executions;
  params.output_stream = &nowhere();
  params.progress_stream = &nowhere();
  (void)rl::simulate<Model>(params);
  const bool caught = params.test_result == rl::test_result_data_race ||
                      params.test_result == rl::test_result_user_assert_failed ||
                      params.test_result == rl::test_result_unitialized_access ||
                      params.test_result == rl::test_result_access_to_freed_memory;
  std::cout << name << ": " << rl::test_result_str(params.test_result) << " after "
            << params.stop_iteration << " executions" << (caught ? "" : ": NOT CAUGHT")
            << std::endl;
  return caught;
}

/// The exit status of a model test: all of its runs must have gone as they should.
inline int verdict(std::initializer_list<bool> runs) {
  for (const bool run : runs)
    if (!run) return 1;
  return 0;
}

}  // namespace accelmm::test

/// A broken invariant of the code that is checked is an error of the model, at the step that broke it.
void accelmm::check_failed(const char* text, const char*, int) noexcept {
  rl::ctx().fail_test(text, rl::test_result_user_assert_failed, $);
  std::abort();  // not reached: the model is left for good
}
