// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "dmabuf/exporter.hpp"
#include "dmabuf/huge_folios.hpp"
#include "dmabuf/piece_plan.hpp"

#include <accelmm/backing.hpp>

#include <atomic>
#include <memory>
#include <string>
#include <utility>

namespace accelmm::dmabuf {

/// Makes dma-bufs over pages of memory files: /dev/udmabuf.
///
/// The file's pages are pinned as long as the dma-buf lives, whatever becomes of the file. What is
/// punched out of the file afterwards is another page there: whoever exports a file never does that.
/// Threads   any.
class UdmabufExporter final : public Exporter {
 public:
  struct Options {
    std::string device = "/dev/udmabuf";
    std::string parameters = "/sys/module/udmabuf/parameters";
    HugeImportable huge_pages = HugeImportable::refused;
  };
  /// Opens the device, and does nothing else.
  /// Errors  any value of open(2): no_entry where the kernel has no such thing.
  [[nodiscard]] static Result<std::unique_ptr<UdmabufExporter>> open(const Options& options);

  [[nodiscard]] const char* name() const override { return "udmabuf"; }
  [[nodiscard]] Capabilities capabilities() const override;

 private:
  UdmabufExporter(UniqueFd device, Options options);
  [[nodiscard]] Result<std::vector<Piece>> make_pieces(const ExportRequest& request) override;
  [[nodiscard]] Result<std::vector<Piece>> try_pieces(const ExportRequest& request,
                                                      const PieceLimits& limits) const;
  [[nodiscard]] Result<Piece> make_piece(std::span<const FileRange> ranges,
                                         std::string_view name) const;
  [[nodiscard]] Result<void> check_files(std::span<const FileRange> ranges) const;
  [[nodiscard]] PieceLimits read_limits() const;
  [[nodiscard]] Error explain(const ExportRequest& request, Error error) const;

  UniqueFd device_;
  Options options_;
  FolioSettings folios_;
  // The kernel's parameters as they were when it last said something about them; an administrator
  // changes them at any time.
  std::atomic<std::uint64_t> largest_;
  std::atomic<std::uint32_t> most_ranges_;
};

}  // namespace accelmm::dmabuf
