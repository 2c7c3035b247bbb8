// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/mmu/invalidation.hpp>
#include <accelmm/mmu/invalidation_gather.hpp>

#include <cstddef>
#include <utility>
#include <vector>

namespace accelmm::mmu::test {

/// A device that forgets at once whatever it is told, and remembers that it was.
class InvalidationRecorder {
 public:
  [[nodiscard]] const std::vector<Invalidation>& all() const { return all_; }
  [[nodiscard]] std::size_t count() const { return all_.size(); }
  /// Pre: there was one.
  [[nodiscard]] const Invalidation& last() const { return all_.back(); }

  [[nodiscard]] InvalidationDone forget(const Invalidation& invalidation) {
    all_.push_back(invalidation);
    return InvalidationDone(invalidation);
  }
  /// Completes a gather: with one invalidation, or none where none is needed.
  void complete(InvalidationGather&& gather) {
    const InvalidationDone done =
        gather.is_needed() ? forget(gather.invalidation()) : InvalidationDone::never_shown();
    std::move(gather).release(done);
  }

 private:
  std::vector<Invalidation> all_;
};

}  // namespace accelmm::mmu::test
