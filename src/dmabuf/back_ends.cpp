// SPDX-License-Identifier: Apache-2.0
#include "dmabuf/back_ends.hpp"

#include "dmabuf/dma_heap.hpp"
#include "dmabuf/drm_device.hpp"
#include "dmabuf/memfd_exporter.hpp"
#include "dmabuf/udmabuf_exporter.hpp"

#include <cstring>
#include <string_view>

namespace accelmm {

namespace {

void append(std::string& line, std::string_view word) {
  if (!line.empty()) line += ", ";
  line += word;
}

}  // namespace

std::string describe(const std::vector<SharingBackEnd>& back_ends) {
  std::string used;
  std::string refused;
  for (const SharingBackEnd& back_end : back_ends) {
    if (!back_end.refused) {
      append(used, back_end.name);
      continue;
    }
    const char* const name = ::strerrorname_np(static_cast<int>(*back_end.refused));
    append(refused, back_end.name + " (" + (name != nullptr ? name : "unknown error") + ")");
  }
  return refused.empty() ? used : used + "; not " + refused;
}

namespace dmabuf {

std::shared_ptr<BackEnds> BackEnds::memory_files() {
  std::shared_ptr<BackEnds> found(new BackEnds);
  found->add(std::make_unique<MemfdExporter>());
  return found;
}

void BackEnds::add(std::unique_ptr<Exporter> exporter) {
  report_.push_back({exporter->name(), std::nullopt});
  exporters_.push_back(std::move(exporter));
}

void BackEnds::add(std::string name, Result<std::shared_ptr<MemorySource>> source) {
  if (!source) {
    report_.push_back({std::move(name), source.error().code});
    return;
  }
  report_.push_back({std::move(name), std::nullopt});
  sources_.push_back(std::move(*source));
}

std::shared_ptr<BackEnds> BackEnds::probe(const SharingPolicy& policy, HugeImportable huge_pages) {
  return probe(policy, huge_pages, {});
}

std::shared_ptr<BackEnds> BackEnds::probe(const SharingPolicy& policy, HugeImportable huge_pages,
                                          const Places& places) {
  std::shared_ptr<BackEnds> found(new BackEnds);
  if (policy.udmabuf == SharingPolicy::Udmabuf::if_present) {
    auto udmabuf = UdmabufExporter::open({.device = places.udmabuf,
                                          .parameters = places.udmabuf_parameters,
                                          .huge_pages = huge_pages});
    if (udmabuf) {
      found->add(std::move(*udmabuf));
    } else {
      found->report_.push_back({"udmabuf", udmabuf.error().code});
    }
  } else {
    found->report_.push_back({"udmabuf", Errc::not_permitted});
  }
  found->add(std::make_unique<MemfdExporter>());
  for (const std::string& heap : policy.dma_heaps)
    found->add(
        "dma-heap " + heap,
        DmaHeap::open(heap, {policy.largest_sourced, policy.total_sourced}, places.dma_heaps));
  if (!policy.drm_node.empty()) {
    auto device = DrmDevice::open(policy.drm_node, {policy.largest_sourced, policy.total_sourced});
    std::string name = "drm ";
    name += device ? (*device)->name() : policy.drm_node.c_str();
    found->add(std::move(name), std::move(device));
  }
  return found;
}

Result<std::vector<Piece>> BackEnds::export_view(const ExportRequest& request) const {
  Result<std::vector<Piece>> pieces = fail(Errc::not_supported, "no way to export");
  for (const std::unique_ptr<Exporter>& exporter : exporters_) {
    pieces = exporter->export_view(request);
    if (pieces || pieces.error().code != Errc::not_supported) return pieces;
  }
  return pieces;
}

}  // namespace dmabuf
}  // namespace accelmm
