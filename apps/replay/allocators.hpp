// SPDX-License-Identifier: Apache-2.0
//
// What a trace can be played into. None of them has memory: they hold numbers, so that a pool may be
// of any size. Each is behind the same calls:
//
//   bool take(const TraceEvent&, bytes, Piece&)   false if it refuses
//   bool give(Piece&, Part)                       a part, where frees_parts; else the whole
//   void each_place(const Piece&, Part, f)        f(begin, bytes)
#pragma once

#include "mm/models/rmm_list.hpp"
#include "mm/models/tlsf.hpp"

#include <accelmm/page_allocator.hpp>
#include <accelmm/trace.hpp>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

namespace accelmm::replay {

/// Bytes of an allocation, from its beginning.
struct Part {
  std::uint64_t begin;
  std::uint64_t bytes;
};

/// Our page allocator, with pages of 4 KiB.
class OurPages {
 public:
  static constexpr bool frees_parts = true;
  static constexpr std::uint64_t page = 4096;
  enum class Pieces : std::uint8_t { one, many };  // whether a request may be served by many

  struct Piece {
    Extent first{};
    std::vector<Extent> rest{};
  };

  /// Nothing if the pool cannot be managed.
  [[nodiscard]] static std::optional<OurPages> create(ByteCount pool, Pieces pieces) {
    auto pages = PageAllocator::create({.size = ByteCount(pool.value() / page * page)});
    if (!pages) return std::nullopt;
    return OurPages(std::move(*pages), pieces);
  }

  [[nodiscard]] bool take(const TraceEvent& event, std::uint64_t bytes, Piece& piece) {
    const auto extent = ask(event, bytes);
    if (extent) {
      piece.first = *extent;
      return true;
    }
    if (pieces_ == Pieces::one) return false;
    auto extents = pages_.allocate_scattered(ByteCount(bytes), event.lifetime);
    if (!extents) return false;
    piece.first = extents->front();
    extents->erase(extents->begin());
    piece.rest = std::move(*extents);
    return true;
  }
  [[nodiscard]] bool give(const Piece& piece, Part part, Contents contents) {
    bool all = true;
    each_place(piece, part, [&](std::uint64_t begin, std::uint64_t bytes) {
      all &= pages_.free({RegionOffset(begin), ByteCount(bytes)}, contents).has_value();
    });
    return all;
  }
  template <class F>
  static void each_place(const Piece& piece, Part part, F f) {
    // A part that ends where the request did ends with the page.
    std::uint64_t left = (part.bytes + page - 1) / page * page;
    std::uint64_t skip = part.begin;
    const auto visit = [&](Extent extent) {
      const std::uint64_t skipped = std::min(skip, extent.length.value());
      const std::uint64_t bytes = std::min(left, extent.length.value() - skipped);
      skip -= skipped;
      left -= bytes;
      if (bytes > 0) f(extent.offset.value() + skipped, bytes);
    };
    visit(piece.first);
    for (const Extent& extent : piece.rest) visit(extent);
  }

  [[nodiscard]] const PageAllocator& allocator() const { return pages_; }
  /// Of what was just taken, the bytes that are known to be zeros.
  [[nodiscard]] std::uint64_t zeros(const Piece& piece) const {
    std::uint64_t known = 0;
    for (Extent rest = piece.first; rest.length > ByteCount(0);) {
      const Extent dirty = pages_.first_dirty(rest).value();
      if (dirty.length == ByteCount(0)) return known + rest.length.value();
      known += (dirty.offset - rest.offset).value();
      rest = {dirty.end(), rest.end() - dirty.end()};
    }
    return known;
  }

 private:
  OurPages(PageAllocator pages, Pieces pieces) : pages_(std::move(pages)), pieces_(pieces) {}

  [[nodiscard]] Result<Extent> ask(const TraceEvent& event, std::uint64_t bytes) {
    const ByteCount size(bytes);
    const Alignment alignment(std::uint64_t{1} << event.align_log2);
    if (event.lifetime != Lifetime::short_lived || event.placement != Placement::packed)
      return pages_.allocate({.size = size,
                              .alignment = alignment,
                              .lifetime = event.lifetime,
                              .placement = event.placement});
    if (event.align_log2 == 0) return pages_.allocate(size);
    return pages_.allocate(size, alignment);
  }

  PageAllocator pages_;
  Pieces pieces_;
};

/// The models that the benchmarks compare with. What they have no notion of is left out: lifetimes,
/// places, parts; alignment too, in the list of RMM.
template <class Model>
class ModelPages {
 public:
  static constexpr bool frees_parts = false;
  struct Piece {
    typename Model::Piece node{};
    std::uint64_t bytes = 0;
  };

  explicit ModelPages(ByteCount pool) : model_(pool.value()) {}

  [[nodiscard]] bool take(const TraceEvent& event, std::uint64_t bytes, Piece& piece) {
    piece.bytes = bytes;
    if constexpr (requires { model_.take(bytes, bytes, piece.node); })
      return model_.take(bytes, std::uint64_t{1} << event.align_log2, piece.node);
    else
      return model_.take(bytes, piece.node);
  }
  [[nodiscard]] bool give(const Piece& piece, Part, Contents) { return model_.give(piece.node); }
  template <class F>
  void each_place(const Piece& piece, Part part, F f) const {
    f(model_.address(piece.node) + part.begin, part.bytes);
  }

 private:
  Model model_;
};

using TlsfPages = ModelPages<bench::TlsfModel>;
using RmmListPages = ModelPages<bench::RmmListModel>;

}  // namespace accelmm::replay
