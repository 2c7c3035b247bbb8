// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "dmabuf/back_ends.hpp"
#include "dmabuf/dma_buf.hpp"

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace accelmm::dmabuf {

/// What a region exported as dma-bufs, so that the same range is the same dma-buf again and what
/// comes back is known.
///
/// Owns      one descriptor of each dma-buf that it knows: until its file is forgotten, or others
///           have all let go of it and sweep() finds that out. The pages are pinned that long.
/// Threads   externally synchronised.
class ExportTable {
 public:
  explicit ExportTable(std::shared_ptr<const BackEnds> back_ends)
      : back_ends_(std::move(back_ends)) {}

  /// A view of one file. What was exported the same way before, and is alive, is given again.
  /// `file`  of range.memfd.
  /// Errors  as BackEnds::export_view(); any value of fcntl(2).
  [[nodiscard]] Result<std::vector<Piece>> export_view(FileIdentity file, const FileRange& range,
                                                       const ExportOptions& options);

  [[nodiscard]] const std::shared_ptr<const BackEnds>& back_ends() const { return back_ends_; }

  /// Where the bytes of a dma-buf are that this exported.
  struct Origin {
    FileIdentity file;
    ByteCount offset;
    ByteCount length;
  };
  [[nodiscard]] std::optional<Origin> find(FileIdentity buffer) const;

  struct Record {
    FileIdentity buffer;
    Origin origin;
    std::string name;
  };
  /// The dma-bufs that are known.
  [[nodiscard]] std::vector<Record> list() const;
  [[nodiscard]] std::size_t size() const { return origins_.size(); }

  /// Lets go of all exports of a file, whose owner ends. Others keep what they hold.
  void forget(FileIdentity file) noexcept;
  /// Lets go of what nobody else holds any more.
  void sweep();

 private:
  struct Key {
    FileIdentity file;
    ByteCount offset;
    ByteCount length;
    constexpr auto operator<=>(const Key&) const = default;
  };
  struct Kept {
    DmaBuf buffer;
    ByteCount length;  // of the view
  };
  struct Entry {
    std::vector<Kept> pieces;
    std::string name;
  };
  using Entries = std::map<Key, Entry>;
  [[nodiscard]] static Result<std::vector<Piece>> give(const Entry& entry);
  [[nodiscard]] Result<Entry> keep(const std::vector<Piece>& pieces, std::string_view name) const;
  void enter(const Key& key, Entry entry);
  Entries::iterator drop(Entries::iterator entry) noexcept;

  std::shared_ptr<const BackEnds> back_ends_;
  Entries entries_;
  std::map<FileIdentity, Origin> origins_;  // by dma-buf
  std::size_t sweep_at_ = 64;               // entries
};

}  // namespace accelmm::dmabuf
