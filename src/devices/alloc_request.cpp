// SPDX-License-Identifier: Apache-2.0
#include "devices/alloc_request.hpp"

#include <accelmm/backing.hpp>

namespace accelmm::devices {
namespace {

constexpr std::uint32_t known_alloc_flags =
    ACCELMM_ALLOC_CONTIGUOUS | ACCELMM_ALLOC_CPU_VISIBLE | ACCELMM_ALLOC_CPU_READ_ONLY;

constexpr std::uint32_t known_backing_flags =
    ACCELMM_BACKING_EXACT | ACCELMM_BACKING_LOCK | ACCELMM_BACKING_NO_DUMP |
    ACCELMM_BACKING_ZERO_ON_FREE | ACCELMM_BACKING_PREFAULT | ACCELMM_BACKING_IMPORTABLE;

// One flag as the second enumerator of a choice of two.
template <class Choice>
Choice chosen(std::uint32_t flags, std::uint32_t flag) {
  return static_cast<Choice>((flags & flag) != 0 ? 1 : 0);
}

// Kinds of pages and rules of nodes are checked where they are used.
Result<BackingRequest> backing_of(const accelmm_backing_request& args) {
  if ((args.flags & ~known_backing_flags) != 0)
    return fail(Errc::invalid_argument, "unknown backing flags");
  return BackingRequest{
      .pages = static_cast<PageSize>(args.pages),
      .nodes = {static_cast<NodeRule>(args.node_rule), {args.nodes}},
      .rule = chosen<BackingRule>(args.flags, ACCELMM_BACKING_EXACT),
      .lock = chosen<MemoryLock>(args.flags, ACCELMM_BACKING_LOCK),
      .dumps = chosen<CoreDumps>(args.flags, ACCELMM_BACKING_NO_DUMP),
      .zero_on_free = chosen<ZeroOnFree>(args.flags, ACCELMM_BACKING_ZERO_ON_FREE),
      .prefault = chosen<PrefaultPages>(args.flags, ACCELMM_BACKING_PREFAULT),
      .importable = chosen<Importable>(args.flags, ACCELMM_BACKING_IMPORTABLE)};
}

bool asks_for_nothing(const accelmm_backing_request& args) {
  return args.pages == 0 && args.node_rule == 0 && args.nodes == 0 && args.flags == 0;
}

}  // namespace

Result<Region::Request> request_of(const accelmm_alloc& args) {
  if ((args.flags & ~known_alloc_flags) != 0)
    return fail(Errc::invalid_argument, "unknown allocation flags");
  if (args.domain != ACCELMM_DOMAIN_HOST && args.domain != ACCELMM_DOMAIN_DEVICE)
    return fail(Errc::invalid_argument, "no such memory domain");
  const bool host = args.domain == ACCELMM_DOMAIN_HOST;
  const bool visible = host || (args.flags & ACCELMM_ALLOC_CPU_VISIBLE) != 0;
  const bool read_only = (args.flags & ACCELMM_ALLOC_CPU_READ_ONLY) != 0;
  if (read_only && !visible)
    return fail(Errc::invalid_argument, "a buffer that no CPU sees cannot be read-only for CPUs");
  const auto backing = backing_of(args.backing);
  if (!backing) return fail(backing.error());
  if (!host && !asks_for_nothing(args.backing))
    return fail(Errc::invalid_argument, "backing is chosen for host memory only");
  // Host addresses are plenty, so host buffers are always one extent of the window.
  const bool contiguous = host || (args.flags & ACCELMM_ALLOC_CONTIGUOUS) != 0;
  return Region::Request{
      .size = ByteCount(args.size),
      .contiguity = contiguous ? Region::Contiguity::contiguous : Region::Contiguity::scattered,
      .cpu_view = !visible    ? Region::CpuView::none
                  : read_only ? Region::CpuView::read_only
                              : Region::CpuView::read_write,
      .backing = *backing};
}

Result<Region::Request> device_request(ByteCount size, std::uint32_t flags) {
  accelmm_alloc args{};
  args.size = size.value();
  args.domain = ACCELMM_DOMAIN_DEVICE;
  args.flags = flags;
  return request_of(args);
}

std::uint32_t wire_flags(const Region::Request& request) {
  std::uint32_t flags = 0;
  if (request.contiguity == Region::Contiguity::contiguous) flags |= ACCELMM_ALLOC_CONTIGUOUS;
  if (request.cpu_view != Region::CpuView::none) flags |= ACCELMM_ALLOC_CPU_VISIBLE;
  if (request.cpu_view == Region::CpuView::read_only) flags |= ACCELMM_ALLOC_CPU_READ_ONLY;
  return flags;
}

}  // namespace accelmm::devices
