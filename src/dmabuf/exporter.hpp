// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "dmabuf/capabilities.hpp"

#include <accelmm/access.hpp>
#include <accelmm/error.hpp>
#include <accelmm/fd.hpp>
#include <accelmm/units.hpp>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string_view>
#include <vector>

namespace accelmm::dmabuf {

/// A range of a memory file.
struct FileRange {
  FdView memfd;
  ByteCount file_size;
  ByteCount offset;
  ByteCount length;
};

/// A piece of what was exported. Importers use exactly this range of the descriptor.
struct Piece {
  UniqueFd fd;
  ByteCount offset;
  ByteCount length;
};

/// How something is to be exported.
struct ExportOptions {
  Access access = Access::read_write;  ///< of who gets it
  std::string_view name = {};          ///< shown by the kernel, cut to 31 bytes
  std::size_t most_pieces = std::numeric_limits<std::size_t>::max();
};

/// What is to be exported: ranges, one after the other.
struct ExportRequest {
  std::span<const FileRange> ranges;
  ExportOptions options = {};
};

/// Turns memory that is there, in memory files, into descriptors for other processes and drivers.
/// The file stays what it was: CPUs go on using it, and the descriptors reach its pages.
///
/// Threads   any.
/// Invariant what is exported reaches the ranges and no byte more.
class Exporter {
 public:
  virtual ~Exporter() = default;
  [[nodiscard]] virtual const char* name() const = 0;
  [[nodiscard]] virtual Capabilities capabilities() const = 0;

  /// Errors  invalid_argument: no ranges, an empty one, or one that is no range of its file, and
  ///         what the back-end finds malformed.  overflow: their sum.  not_supported: the back-end
  ///         cannot export this, or only in more pieces.  not_permitted: writing is wanted of files
  ///         that are sealed against it.  Any errno of making descriptors: nothing was made then.
  [[nodiscard]] Result<std::vector<Piece>> export_view(const ExportRequest& request);

 private:
  /// The ranges were checked, and capabilities() allow them.
  [[nodiscard]] virtual Result<std::vector<Piece>> make_pieces(const ExportRequest& request) = 0;
};

}  // namespace accelmm::dmabuf
