// SPDX-License-Identifier: Apache-2.0
//
// How memory of a region leaves it as descriptors, and how that of others comes in.
#include "devices/region.hpp"

#include <accelmm/check.hpp>

#include <algorithm>
#include <iterator>
#include <ranges>
#include <utility>

namespace accelmm::devices {
namespace {

FileIdentity identity_of(const Allocation& allocation) {
  const dmabuf::Import* const import = allocation.imported();
  return import != nullptr ? import->pieces.front().file.identity()
                           : allocation.memfd()->identity();
}

bool is_same(const dmabuf::ImportedPiece& a, const dmabuf::ImportedPiece& b) {
  return a.file.identity() == b.file.identity() && a.offset == b.offset && a.length == b.length;
}

}  // namespace

Result<dmabuf::FileRange> Allocation::file_range(ByteCount offset, ByteCount length) const {
  if (memfd_) return dmabuf::FileRange{memfd_->fd(), memfd_->size(), offset, length};
  if (!import_) return accelmm::fail(Errc::not_supported, "no CPU can reach this buffer");
  for (const dmabuf::ImportedPiece& piece : import_->pieces) {
    if (offset >= piece.length) {
      offset -= piece.length;
      continue;
    }
    if (length > piece.length - offset) break;
    return dmabuf::FileRange{piece.file.fd(), piece.file.size(), piece.offset + offset, length};
  }
  return accelmm::fail(Errc::not_supported, "range lies in several files");
}

void Region::enter_file(Allocation& allocation) {
  files_.emplace(identity_of(allocation), &allocation);
}

void Region::forget_file(Allocation& allocation) noexcept {
  const FileIdentity identity = identity_of(allocation);
  const auto [begin, end] = files_.equal_range(identity);
  const auto found =
      std::ranges::find(std::ranges::subrange(begin, end), &allocation, &Files::value_type::second);
  if (found != end) files_.erase(found);
  if (allocation.memfd() != nullptr) exports_.forget(identity);
}

// The same pieces of the same files, with the same rights: who brings them has what they are.
std::shared_ptr<Allocation> Region::find_import(const dmabuf::Import& view) const {
  const auto [begin, end] = files_.equal_range(view.pieces.front().file.identity());
  for (const auto& [identity, allocation] : std::ranges::subrange(begin, end)) {
    const dmabuf::Import* const import = allocation->imported();
    if (import == nullptr || allocation->device_access() != view.access) continue;
    if (std::ranges::equal(import->pieces, view.pieces, is_same))
      return allocation->weak_from_this().lock();
  }
  return nullptr;
}

// All bytes of an allocation that was made here, by its own file or by dma-bufs over that. Only
// with all its rights: who brings a read-only file must not come to more.
std::shared_ptr<Allocation> Region::find_origin(const dmabuf::Import& view) const {
  std::optional<FileIdentity> file;
  ByteCount expected;
  for (const dmabuf::ImportedPiece& piece : view.pieces) {
    dmabuf::ExportTable::Origin origin{piece.file.identity(), piece.offset, piece.length};
    if (piece.file.kind() == dmabuf::DescriptorKind::dma_buf) {
      const auto found = exports_.find(piece.file.identity());
      if (!found || piece.offset != ByteCount() || piece.length != found->length) return nullptr;
      origin = *found;
    }
    if ((file && origin.file != *file) || origin.offset != expected) return nullptr;
    file = origin.file;
    expected += origin.length;
  }
  const auto [begin, end] = files_.equal_range(*file);
  for (const auto& [identity, allocation] : std::ranges::subrange(begin, end)) {
    if (allocation->memfd() == nullptr || allocation->size() != expected) continue;
    if (view.access == allocation->cpu_access() && view.access == allocation->device_access())
      return allocation->weak_from_this().lock();
  }
  return nullptr;
}

Result<std::shared_ptr<Allocation>> Region::import(dmabuf::Import view, RegionOwner& owner) {
  if (auto known = find_origin(view)) return known;
  if (auto known = find_import(view)) return known;
  auto taken = take_pages({view.length, Contiguity::contiguous, Alignment(1)}, owner);
  if (!taken) return taken;
  Allocation& allocation = **taken;
  // What ends an import needs no memory.
  std::map<RegionOffset, Allocation::Emptying> emptying;
  const Extent whole = allocation.extents_.front();
  emptying.emplace(whole.offset, Allocation::Emptying{whole, allocation.owner_});
  allocation.places_.reserve(view.pieces.size());
  allocation.emptying_ = emptying.extract(emptying.begin());
  allocation.cpu_access_ = view.access;
  allocation.device_access_ = view.access;
  allocation.import_ = std::move(view);
  enter_file(allocation);
  if (auto placed = place_import(allocation); !placed) return fail(placed.error());
  allocation.backing_.emplace(HostBacking::imported(place_of(allocation)));
  return taken;
}

Result<void> Region::place_import(Allocation& allocation) {
  RegionOffset at = allocation.extents_.front().offset;
  for (const dmabuf::ImportedPiece& piece : allocation.import_->pieces) {
    const Extent place{at, piece.length};
    auto placed = window_.place(place, piece.file.fd(), piece.offset, allocation.import_->access);
    if (!placed) return placed;
    allocation.places_.push_back(place);
    at += piece.length;
  }
  return {};
}

void Region::give_back_import(Allocation& allocation) noexcept {
  // Given up before its first place: the extent is all there is.
  Allocation::Emptying& emptying = allocation.emptying_.mapped();
  for (const Extent& place : allocation.places_)
    if (window_.remove(place) == Removal::pending) ++emptying.places;
  if (emptying.places > 0) {
    emptying_.insert(std::move(allocation.emptying_));
    return;
  }
  ACCELMM_CHECK(heap_.free(allocation.owner_, emptying.whole).has_value());
}

// Whether the place was an import's, which is free again when all its places are empty.
bool Region::settle_import(Extent place) noexcept {
  auto next = emptying_.upper_bound(place.offset);
  if (next == emptying_.begin()) return false;
  const auto found = std::prev(next);
  Allocation::Emptying& emptying = found->second;
  if (place.offset >= emptying.whole.end()) return false;
  if (--emptying.places == 0) {
    // Its owner may have ended meanwhile, and be another's number.
    ACCELMM_CHECK(heap_.free(heap_.owner_of(emptying.whole).value(), emptying.whole).has_value());
    emptying_.erase(found);
  }
  return true;
}

void Region::list_exports(std::vector<ExportedBuffer>& list) {
  exports_.sweep();
  for (const dmabuf::ExportTable::Record& record : exports_.list())
    list.push_back({.device = record.buffer.device,
                    .inode = record.buffer.inode,
                    .offset = record.origin.offset,
                    .length = record.origin.length,
                    .name = record.name});
}

Result<std::vector<dmabuf::Piece>> Region::export_view(Allocation& allocation, ByteCount offset,
                                                       ByteCount length,
                                                       const dmabuf::ExportOptions& how) {
  if (const dmabuf::Import* const import = allocation.imported()) {
    if (offset != ByteCount() || length != import->length)
      return fail(Errc::not_supported, "what was imported is passed on whole");
    if (import->pieces.size() > how.most_pieces)
      return fail(Errc::not_supported, "export has too many pieces");
    std::vector<dmabuf::Piece> pieces;
    pieces.reserve(import->pieces.size());
    for (const dmabuf::ImportedPiece& piece : import->pieces) {
      auto fd = duplicate(piece.file.fd());
      if (!fd) return fail(fd.error());
      pieces.push_back({std::move(*fd), piece.offset, piece.length});
    }
    return pieces;
  }
  const auto range = allocation.file_range(offset, length);
  if (!range) return fail(range.error());
  return exports_.export_view(allocation.memfd()->identity(), *range, how);
}

}  // namespace accelmm::devices
