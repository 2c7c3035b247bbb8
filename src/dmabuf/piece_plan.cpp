// SPDX-License-Identifier: Apache-2.0
#include "dmabuf/piece_plan.hpp"

#include <accelmm/check.hpp>

#include <algorithm>

namespace accelmm::dmabuf {

namespace {

bool follows(const FileRange& next, const FileRange& previous) {
  return next.memfd.get() == previous.memfd.get() &&
         next.offset.value() - previous.offset.value() == previous.length.value() &&
         next.offset >= previous.offset;
}

/// The pieces so far, of which only the last grows.
class Plan {
 public:
  explicit Plan(const PieceLimits& limits) : limits_(limits) {}

  void add(FileRange range) {
    while (range.length > ByteCount()) {
      if (!has_room_for(range)) start_piece();
      const ByteCount part = std::min(range.length, limits_.largest - length_);
      append({range.memfd, range.file_size, range.offset, part});
      range.offset += part;
      range.length -= part;
    }
  }
  [[nodiscard]] std::vector<std::vector<FileRange>> take() && { return std::move(pieces_); }

 private:
  [[nodiscard]] bool joins(const FileRange& range) const {
    return !pieces_.back().empty() && follows(range, pieces_.back().back());
  }
  [[nodiscard]] bool has_room_for(const FileRange& range) const {
    if (pieces_.empty() || length_ == limits_.largest) return false;
    return pieces_.back().size() < limits_.most_ranges || joins(range);
  }
  void start_piece() {
    pieces_.emplace_back();
    length_ = ByteCount();
  }
  void append(const FileRange& range) {
    if (joins(range)) {
      pieces_.back().back().length += range.length;
    } else {
      pieces_.back().push_back(range);
    }
    length_ += range.length;
  }

  PieceLimits limits_;
  std::vector<std::vector<FileRange>> pieces_;
  ByteCount length_;  // of the last piece
};

}  // namespace

std::vector<std::vector<FileRange>> plan_pieces(std::span<const FileRange> ranges,
                                                const PieceLimits& limits) {
  ACCELMM_CHECK(limits.largest > ByteCount() && limits.most_ranges > 0);
  Plan plan(limits);
  for (const FileRange& range : ranges) plan.add(range);
  return std::move(plan).take();
}

}  // namespace accelmm::dmabuf
