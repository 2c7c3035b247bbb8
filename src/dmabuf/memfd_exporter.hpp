// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "dmabuf/exporter.hpp"

namespace accelmm::dmabuf {

/// Exports a buffer as the sealed memfd that it lies in. Works on every kernel; importers must know
/// what a memfd is. Files that are sealed against writing are exported read-only, and no others.
class MemfdExporter final : public Exporter {
 public:
  [[nodiscard]] const char* name() const override { return "memfd"; }
  [[nodiscard]] Capabilities capabilities() const override {
    return {.kind = DescriptorKind::memory_file,
            .parts = Can::no,
            .scattered = Can::no,
            .read_only = Can::yes,
            .huge_pages = Can::yes,
            .accounted = Can::yes,
            .largest = ByteCount(std::numeric_limits<std::int64_t>::max()),
            .most_ranges = 1};
  }

 private:
  [[nodiscard]] Result<std::vector<Piece>> make_pieces(const ExportRequest& request) override;
};

}  // namespace accelmm::dmabuf
