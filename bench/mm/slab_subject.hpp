// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/slab.hpp>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

namespace accelmm::bench {

/// Slabs side by side in a region without end. What comes back is used again, newest first.
class EndlessSource final : public SlabSource {
 public:
  static constexpr ByteCount region = 64_GiB;

  Result<Extent> grow(ByteCount size, Alignment alignment) override {
    const std::scoped_lock held(lock_);
    for (std::size_t i = returned_.size(); i-- > 0;)
      if (returned_[i].length == size) {
        const Extent extent = returned_[i];
        returned_.erase(returned_.begin() + static_cast<std::ptrdiff_t>(i));
        return extent;
      }
    const std::uint64_t at = (end_ + alignment.value() - 1) & ~(alignment.value() - 1);
    if (at + size.value() > region.value()) return fail(Errc::no_memory, "region is full");
    end_ = at + size.value();
    return Extent{.offset = RegionOffset(at), .length = size};
  }
  void give_back(Extent extent) override {
    const std::scoped_lock held(lock_);
    returned_.push_back(extent);
  }

 private:
  std::mutex lock_;
  std::uint64_t end_ = 0;
  std::vector<Extent> returned_;
};

/// Our slab over a region that it has for itself.
class SlabSubject {
 public:
  using Piece = RegionOffset;
  explicit SlabSubject(std::uint64_t /*region*/ = 0) {}
  explicit SlabSubject(Slab::Bulk frees) : slab_(make(*source_, frees)) {}

  [[nodiscard]] bool take(std::uint64_t size, Piece& piece) {
    const auto object = slab_.allocate(ByteCount(size));
    if (!object) return false;
    piece = object->offset;
    return true;
  }
  [[nodiscard]] bool take(std::uint64_t size, std::uint64_t /*alignment*/, Piece& piece) {
    return take(size, piece);
  }
  [[nodiscard]] bool give(Piece piece) { return slab_.free(piece).has_value(); }
  [[nodiscard]] static std::uint64_t address(Piece piece) { return piece.value(); }
  [[nodiscard]] Slab& slab() { return slab_; }
  /// Whether nothing is live. Aborts if an invariant is broken.
  [[nodiscard]] bool whole() const {
    slab_.validate();
    return slab_.statistics().live_objects == 0;
  }

 private:
  static Slab make(SlabSource& source, Slab::Bulk frees = Slab::Bulk::checked) {
    auto slab = Slab::create({.source = &source, .region = EndlessSource::region, .bulk = frees});
    if (!slab) std::abort();
    return std::move(*slab);
  }
  std::unique_ptr<EndlessSource> source_ = std::make_unique<EndlessSource>();
  Slab slab_ = make(*source_);
};

}  // namespace accelmm::bench
