// SPDX-License-Identifier: Apache-2.0
#include "loop/operation.hpp"

namespace accelmm {

void OperationQueue::push(Operation& operation) {
  operation.next_ = nullptr;
  (last_ != nullptr ? last_->next_ : first_) = &operation;
  last_ = &operation;
  ++size_;
}

Operation* OperationQueue::pop() {
  Operation* const operation = first_;
  if (operation == nullptr) return nullptr;
  first_ = operation->next_;
  if (first_ == nullptr) last_ = nullptr;
  operation->next_ = nullptr;
  --size_;
  return operation;
}

bool OperationQueue::remove(const Operation& operation) {
  Operation* previous = nullptr;
  for (Operation* at = first_; at != nullptr; previous = at, at = at->next_) {
    if (at != &operation) continue;
    (previous != nullptr ? previous->next_ : first_) = at->next_;
    if (last_ == at) last_ = previous;
    at->next_ = nullptr;
    --size_;
    return true;
  }
  return false;
}

}  // namespace accelmm
