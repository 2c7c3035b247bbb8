// SPDX-License-Identifier: Apache-2.0
#include "dmabuf/memory_source.hpp"

#include "base/mapping.hpp"

namespace accelmm::dmabuf {

Result<SourcedBuffer> MemorySource::allocate(ByteCount size, Access access, std::string_view name) {
  if (size == ByteCount() || !Alignment(host_page_size().value()).divides(size))
    return fail(Errc::invalid_argument, "size of a dma-buf is not whole pages");
  const Capabilities can = capabilities();
  if (!allows(access, Access::read))
    return fail(Errc::invalid_argument, "exports can at least be read");
  if (access == Access::read && can.read_only == Can::no)
    return fail(Errc::not_supported, "this source's descriptors can be written through");
  // Before the kernel is asked: some of its heaps set no limit but the machine's memory.
  if (size > can.largest) return fail(Errc::no_memory, "larger than this source gives at once");
  auto charge = Charge::make(account_, size);
  if (!charge) return fail(charge.error());
  auto buffer = make(size, access);
  if (!buffer) return fail(buffer.error());
  if (buffer->size() < size) return fail(Errc::io_error, "source gave less than it was asked for");
  if (!name.empty())
    if (const auto named = name_dma_buf(buffer->fd(), name); !named) return fail(named.error());
  return SourcedBuffer{std::move(*buffer), std::move(*charge)};
}

}  // namespace accelmm::dmabuf
