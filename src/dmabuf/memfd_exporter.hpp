// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "dmabuf/exporter.hpp"

#include <limits>

namespace accelmm::dmabuf {

/// Exports a buffer as the sealed memfd that it lies in. Works on every kernel; importers must know
/// what a memfd is.
class MemfdExporter final : public Exporter {
 public:
  [[nodiscard]] const char* name() const override { return "memfd"; }
  [[nodiscard]] ExporterCapabilities capabilities() const override {
    return {.parts = ExporterCapabilities::Parts::whole_only,
            .largest = ByteCount(std::numeric_limits<std::int64_t>::max())};
  }

 private:
  [[nodiscard]] Result<std::vector<Piece>> make_pieces(const Source& source) override;
};

}  // namespace accelmm::dmabuf
