// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include <liburing.h>

namespace accelmm {

class Operation;

/// A queue of operations, linked through themselves: it allocates nothing, so that it cannot fail.
class OperationQueue {
 public:
  [[nodiscard]] bool empty() const { return first_ == nullptr; }
  [[nodiscard]] std::size_t size() const { return size_; }
  void push(Operation& operation);
  [[nodiscard]] Operation* pop();
  /// Takes out one from anywhere. Returns whether it was there. Cost O(size).
  bool remove(const Operation& operation);

 private:
  Operation* first_ = nullptr;
  Operation* last_ = nullptr;
  std::size_t size_ = 0;
};

/// One thing asked of the kernel, again and again: it owns all that its submission refers to until
/// the kernel is done.
///
/// Its owner (a connection, a listener) keeps it in a unique_ptr, starts it when it is idle, and
/// gives it to Ring::abandon() when the owner goes. An abandoned operation calls nobody any more.
/// Threads   the loop's thread.
class Operation {
 public:
  Operation() = default;
  Operation(const Operation&) = delete;
  Operation& operator=(const Operation&) = delete;
  virtual ~Operation() = default;

  /// Neither waiting for the kernel nor for complete(): it may be started.
  [[nodiscard]] bool idle() const { return state_ == State::idle; }
  /// Its owner is gone: nothing behind it may be touched.
  [[nodiscard]] bool abandoned() const { return abandoned_; }

 private:
  friend class OperationQueue;
  friend class Ring;

  /// Fills the submission. All it refers to lives in this object.
  virtual void prepare(io_uring_sqe& sqe) = 0;
  /// Takes the result, an errno if negative. May destroy the owner, and start this operation again.
  virtual void complete(int result) = 0;
  /// Gives back what came with a result that nobody takes.
  virtual void discard(int result) noexcept = 0;

  enum class State : std::uint8_t {
    idle,
    waiting,    // to be submitted
    in_flight,  // the kernel has it
    ready,      // its result waits for complete()
  };
  State state_ = State::idle;
  bool abandoned_ = false;
  bool completing_ = false;  // complete() is on the stack
  int result_ = 0;
  Operation* next_ = nullptr;
};

}  // namespace accelmm
