// SPDX-License-Identifier: Apache-2.0
#include "dmabuf/export_table.hpp"

#include "base/system.hpp"
#include "dmabuf/buffer_info.hpp"
#include "dmabuf/buffer_name.hpp"

#include <algorithm>

namespace accelmm::dmabuf {

Result<std::vector<Piece>> ExportTable::export_view(FileIdentity file, const FileRange& range,
                                                    const ExportOptions& options) {
  const Key key{file, range.offset, range.length};
  // Read-only views are never dma-bufs over files, so that those that are here can be written.
  if (const auto found = entries_.find(key); found != entries_.end() &&
                                             allows(options.access, Access::write) &&
                                             found->second.pieces.size() <= options.most_pieces)
    return give(found->second);
  if (entries_.size() >= sweep_at_) sweep();
  auto pieces = back_ends_->export_view({.ranges = std::span(&range, 1), .options = options});
  if (!pieces) return pieces;
  const auto kind = is_dma_buf(pieces->front().fd.view());
  if (!kind) return fail(kind.error());
  // Each descriptor of a memory file is of the same file: nothing to remember.
  if (!*kind) return pieces;
  auto entry = keep(*pieces, options.name);
  if (!entry) return fail(entry.error());
  enter(key, std::move(*entry));
  return pieces;
}

Result<ExportTable::Entry> ExportTable::keep(const std::vector<Piece>& pieces,
                                             std::string_view name) const {
  Entry entry{.pieces = {}, .name = buffer_name(name)};
  entry.pieces.reserve(pieces.size());
  for (const Piece& piece : pieces) {
    auto fd = sys::duplicate(piece.fd.view());
    if (!fd) return fail(fd.error());
    auto buffer = DmaBuf::adopt(std::move(*fd));
    if (!buffer) return fail(buffer.error());
    entry.pieces.push_back({std::move(*buffer), piece.length});
  }
  return entry;
}

void ExportTable::enter(const Key& key, Entry entry) {
  std::map<FileIdentity, Origin> origins;
  ByteCount offset = key.offset;
  for (const Kept& piece : entry.pieces) {
    origins.emplace(piece.buffer.identity(), Origin{key.file, offset, piece.length});
    offset += piece.length;
  }
  // An entry of more pieces than could be taken goes; who holds its dma-bufs keeps them.
  if (const auto found = entries_.find(key); found != entries_.end()) drop(found);
  entries_.emplace(key, std::move(entry));
  origins_.merge(origins);
}

Result<std::vector<Piece>> ExportTable::give(const Entry& entry) {
  std::vector<Piece> pieces;
  pieces.reserve(entry.pieces.size());
  for (const Kept& kept : entry.pieces) {
    auto fd = kept.buffer.duplicate();
    if (!fd) return fail(fd.error());
    pieces.push_back({std::move(*fd), ByteCount(), kept.length});
  }
  return pieces;
}

std::optional<ExportTable::Origin> ExportTable::find(FileIdentity buffer) const {
  const auto found = origins_.find(buffer);
  if (found == origins_.end()) return std::nullopt;
  return found->second;
}

std::vector<ExportTable::Record> ExportTable::list() const {
  std::vector<Record> records;
  records.reserve(origins_.size());
  for (const auto& [key, entry] : entries_)
    for (const Kept& piece : entry.pieces)
      records.push_back(
          {piece.buffer.identity(), origins_.at(piece.buffer.identity()), entry.name});
  return records;
}

ExportTable::Entries::iterator ExportTable::drop(Entries::iterator entry) noexcept {
  for (const Kept& piece : entry->second.pieces) origins_.erase(piece.buffer.identity());
  return entries_.erase(entry);
}

void ExportTable::forget(FileIdentity file) noexcept {
  auto entry = entries_.lower_bound(Key{file, ByteCount(), ByteCount()});
  while (entry != entries_.end() && entry->first.file == file) entry = drop(entry);
}

void ExportTable::sweep() {
  for (auto entry = entries_.begin(); entry != entries_.end();) {
    const bool held = std::ranges::any_of(entry->second.pieces, [](const Kept& piece) {
      const auto info = buffer_info(piece.buffer.fd());
      return !info || info->holders > 1;
    });
    entry = held ? std::next(entry) : drop(entry);
  }
  // Looked at again when as many have come as stayed: a share of the cost of each export.
  constexpr std::size_t fewest = 64;
  sweep_at_ = std::max(fewest, 2 * entries_.size());
}

}  // namespace accelmm::dmabuf
