// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "mm/slab_record.hpp"

#include <accelmm/check.hpp>

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <memory>

namespace accelmm::mm {

/// Which slab is where: an entry for each 64 KiB of the region, the record and, in the bits that
/// its alignment leaves, the class. An entry of 0 is no slab.
class SlabTable {
 public:
  /// Zeroed memory comes untouched from the kernel, so that a large region costs only what is used.
  explicit SlabTable(std::uint64_t units)
      : units_(units),
        entries_(static_cast<std::uint64_t*>(std::calloc(units, sizeof(std::uint64_t)))) {}

  [[nodiscard]] bool exists() const { return entries_ != nullptr; }
  [[nodiscard]] std::uint64_t bytes() const { return units_ * sizeof(std::uint64_t); }

  struct Found {
    const std::uint64_t* unit = nullptr;  ///< where the entry stands
    std::uint64_t entry = 0;
  };
  /// What is said of the place of `offset`; an entry of 0 outside the region.
  [[nodiscard]] Found find(std::uint64_t offset) const {
    const std::uint64_t unit = offset >> slab_unit_log2;
    if (unit >= units_) return {};
    std::uint64_t& at = entries_.get()[unit];
    return {.unit = &at, .entry = std::atomic_ref(at).load(std::memory_order_acquire)};
  }
  [[nodiscard]] std::uint64_t entry_at(std::uint64_t offset) const { return find(offset).entry; }

  void enter(const SlabRecord& record) {
    for_each_unit(record, [&](std::uint64_t& unit) {
      // A source that gives what it has given already would make two slabs of one.
      ACCELMM_CHECK(std::atomic_ref(unit).load(std::memory_order_relaxed) == 0);
      std::atomic_ref(unit).store(entry_of(record), std::memory_order_release);
    });
  }
  void erase(const SlabRecord& record) {
    for_each_unit(record, [&](std::uint64_t& unit) {
      std::atomic_ref(unit).store(0, std::memory_order_release);
    });
  }

  [[nodiscard]] static std::uint64_t entry_of(const SlabRecord& record) {
    return reinterpret_cast<std::uintptr_t>(&record) | record.number;
  }
  [[nodiscard]] static SlabRecord* record_of(std::uint64_t entry) {
    return reinterpret_cast<SlabRecord*>(entry & ~(std::uint64_t{cache_line} - 1));
  }
  [[nodiscard]] static unsigned class_of(std::uint64_t entry) {
    return static_cast<unsigned>(entry % cache_line);
  }

 private:
  struct Free {
    void operator()(std::uint64_t* entries) const { std::free(entries); }
  };

  template <class F>
  void for_each_unit(const SlabRecord& record, F f) {
    const std::uint64_t first = record.base >> slab_unit_log2;
    const std::uint64_t count = slab_shapes[record.number].slab_bytes() >> slab_unit_log2;
    for (std::uint64_t unit = first; unit < first + count; ++unit) f(entries_.get()[unit]);
  }

  std::uint64_t units_;
  std::unique_ptr<std::uint64_t, Free> entries_;
};
static_assert(slab_class_count <= cache_line);

}  // namespace accelmm::mm
