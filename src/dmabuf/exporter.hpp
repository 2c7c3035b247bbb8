// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/access.hpp>
#include <accelmm/error.hpp>
#include <accelmm/fd.hpp>
#include <accelmm/units.hpp>

#include <vector>

namespace accelmm::dmabuf {

/// What is to be exported: a range of a memfd.
struct Source {
  FdView memfd;
  ByteCount memfd_size;
  ByteCount offset;
  ByteCount length;
};

/// A piece of what was exported. Importers use exactly this range of the descriptor.
struct Piece {
  UniqueFd fd;
  ByteCount offset;
  ByteCount length;
};

/// What one way of exporting can do. What it cannot is EOPNOTSUPP: never a wider descriptor, never
/// a silent copy.
struct ExporterCapabilities {
  enum class Parts : std::uint8_t { whole_only, page_ranges } parts;
  ByteCount largest;  ///< of one piece
};

/// Turns memory into descriptors that other processes and drivers can map.
class Exporter {
 public:
  virtual ~Exporter() = default;
  [[nodiscard]] virtual const char* name() const = 0;
  [[nodiscard]] virtual ExporterCapabilities capabilities() const = 0;

  /// Errors  not_supported: the back-end cannot export this range.  overflow, invalid_argument: it
  /// is no range of the
  ///         source.  Any errno of making descriptors.
  [[nodiscard]] Result<std::vector<Piece>> export_view(const Source& source);

 private:
  /// The range was checked, and capabilities() allow it.
  [[nodiscard]] virtual Result<std::vector<Piece>> make_pieces(const Source& source) = 0;
};

/// The best exporter that this machine has: sealed memfds everywhere for now.
[[nodiscard]] Exporter& default_exporter();

}  // namespace accelmm::dmabuf
