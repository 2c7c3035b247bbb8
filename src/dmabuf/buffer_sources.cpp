// SPDX-License-Identifier: Apache-2.0
#include "dmabuf/buffer_sources.hpp"

#include "mm/backing/sealed_memfd.hpp"

#include <accelmm/buffer_sources.hpp>

#include <new>
#include <span>
#include <utility>

namespace accelmm {

namespace dmabuf {

namespace {

// No memory of a dma-buf can be pinned by its address.
SourceDescription description_of(const char* name, const Capabilities& can) {
  SourceDescription description{
      .heap = name, .largest = can.largest, .can = {Use::cpu_map, Use::vmap, Use::attach}};
  if (can.accounted == Can::yes) description.can |= {Use::charged};
  return description;
}

Result<UniqueFd> allocate_by(Exporter& exporter, ByteCount size) {
  auto memory = SealedMemfd::create("accelmm", size);
  if (!memory) return fail(memory.error());
  if (const auto sealed = memory->seal(Sealing::fixed_size); !sealed) return fail(sealed.error());
  const FileRange whole{memory->fd(), size, {}, size};
  auto pieces =
      exporter.export_view({.ranges = std::span(&whole, 1), .options = {.most_pieces = 1}});
  if (!pieces) return fail(pieces.error());
  return std::move(pieces->front().fd);
}

Result<UniqueFd> allocate_from(MemorySource& source, ByteCount size) {
  auto made = source.allocate(size, Access::read_write, {});
  if (!made) return fail(made.error());
  return made->buffer.duplicate();
}

}  // namespace

std::vector<BufferSource> buffer_sources(const std::shared_ptr<const BackEnds>& from) {
  std::vector<BufferSource> found;
  for (const auto& exporter : from->exporters()) {
    const Capabilities can = exporter->capabilities();
    if (can.kind != DescriptorKind::dma_buf) continue;
    found.push_back({description_of(exporter->name(), can),
                     [from, &exporter](ByteCount size) { return allocate_by(*exporter, size); }});
  }
  for (const std::shared_ptr<MemorySource>& source : from->sources())
    found.push_back({description_of(source->name(), source->capabilities()),
                     [source](ByteCount size) { return allocate_from(*source, size); }});
  return found;
}

}  // namespace dmabuf

Result<BufferSources> find_buffer_sources(const SharingPolicy& policy) noexcept try {
  const auto back_ends = dmabuf::BackEnds::probe(policy, HugeImportable::refused);
  return BufferSources{dmabuf::buffer_sources(back_ends), back_ends->report()};
} catch (const std::bad_alloc&) {
  return fail(Errc::no_memory, "no memory to look for sources");
}

}  // namespace accelmm
