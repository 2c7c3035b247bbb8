// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "dmabuf/exporter.hpp"
#include "dmabuf/memory_source.hpp"

#include <accelmm/backing.hpp>
#include <accelmm/dmabuf.hpp>

#include <memory>
#include <string>
#include <vector>

namespace accelmm::dmabuf {

/// The ways to share that this machine has and the policy wants, found once.
///
/// Threads   any.
/// Lifetime  shared by the regions of a driver process.
class BackEnds {
 public:
  /// Where the kernel's files are; tests have others.
  struct Places {
    std::string udmabuf = "/dev/udmabuf";
    std::string udmabuf_parameters = "/sys/module/udmabuf/parameters";
    std::string dma_heaps = "/dev/dma_heap";
  };
  /// Opens what there is, and does nothing else to it. Never fails: memory files are always there.
  [[nodiscard]] static std::shared_ptr<BackEnds> probe(const SharingPolicy& policy,
                                                       HugeImportable huge_pages);
  [[nodiscard]] static std::shared_ptr<BackEnds> probe(const SharingPolicy& policy,
                                                       HugeImportable huge_pages,
                                                       const Places& places);
  /// Memory files and nothing else.
  [[nodiscard]] static std::shared_ptr<BackEnds> memory_files();

  /// Exports by the first back-end that can. What that does may fail: no other is tried then.
  /// Errors  as Exporter::export_view(); not_supported is what the last one said.
  [[nodiscard]] Result<std::vector<Piece>> export_view(const ExportRequest& request) const;

  /// The best first.
  [[nodiscard]] const std::vector<std::unique_ptr<Exporter>>& exporters() const {
    return exporters_;
  }
  [[nodiscard]] const std::vector<std::shared_ptr<MemorySource>>& sources() const {
    return sources_;
  }
  /// All that were looked for.
  [[nodiscard]] const std::vector<SharingBackEnd>& report() const { return report_; }

 private:
  BackEnds() = default;
  void add(std::unique_ptr<Exporter> exporter);
  void add(std::string name, Result<std::shared_ptr<MemorySource>> source);

  std::vector<std::unique_ptr<Exporter>> exporters_;
  std::vector<std::shared_ptr<MemorySource>> sources_;
  std::vector<SharingBackEnd> report_;
};

}  // namespace accelmm::dmabuf
