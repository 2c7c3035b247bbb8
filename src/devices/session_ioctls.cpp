// SPDX-License-Identifier: Apache-2.0
//
// What the common ioctls of a compute session do. Every argument comes from outside: it is checked
// here or by the layer that it is passed to, before anything changes.
#include "base/clock.hpp"
#include "base/mapping.hpp"
#include "devices/alloc_request.hpp"
#include "devices/compute_session.hpp"
#include "devices/hosted_device.hpp"
#include "dmabuf/importer.hpp"

#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <utility>

namespace accelmm::devices {
namespace {

constexpr std::uint8_t buffer_handle = 1;

Result<Access> access_of(std::uint32_t bits) {
  const auto access = static_cast<Access>(bits);
  if (bits > 0xff || !is_valid(access)) return fail(Errc::invalid_argument, "no such access");
  return access;
}

Result<mmu::Placement> placement_of(std::uint32_t rule, DeviceAddr address) {
  switch (rule) {
    case ACCELMM_PLACE_ANYWHERE:
      return mmu::Placement{mmu::Placement::Kind::anywhere, address};
    case ACCELMM_PLACE_HINT:
      return mmu::Placement{mmu::Placement::Kind::hint, address};
    case ACCELMM_PLACE_FIXED:
      return mmu::Placement{mmu::Placement::Kind::fixed, address};
    default:
      return fail(Errc::invalid_argument, "no such placement");
  }
}

__s32 wire_refusal(std::optional<Errc> code) {
  return code ? -std::to_underlying(*code) : 0;
}

void put_report(const BackingReport& report, accelmm_backing& args) {
  args.pages = std::to_underlying(report.pages);
  args.prefault = std::to_underlying(report.prefault);
  args.page_size = report.page_size.value();
  args.populated = report.populated.value();
  args.prefaulted = report.prefaulted.value();
  args.locked = report.locked.value();
  args.nodes = report.sample.nodes.bits;
  args.samples = report.sample.taken;
  args.samples_present = report.sample.present;
  args.samples_huge = report.sample.huge;
  args.refused_pages = wire_refusal(report.refused.pages);
  args.refused_nodes = wire_refusal(report.refused.nodes);
  args.refused_lock = wire_refusal(report.refused.lock);
  args.refused_dump = wire_refusal(report.refused.dumps);
  args.refused_prefault = wire_refusal(report.refused.prefault);
  args.refused_sample = wire_refusal(report.refused.sample);
}

}  // namespace

Result<View> ComputeSession::view(std::uint64_t handle, std::uint64_t offset,
                                  std::uint64_t length) {
  const auto found = buffers_.find(Handle::from_raw(handle), buffer_handle);
  if (!found) return fail(found.error());
  const std::uint64_t size = (**found)->size().value();
  if (length == 0) return fail(Errc::invalid_argument, "range is empty");
  if (offset > size || length > size - offset)
    return fail(Errc::invalid_argument, "range ends beyond the buffer");
  const Alignment page(host_page_size().value());
  if (!page.divides(offset) || !page.divides(length))
    return fail(Errc::invalid_argument, "range is not whole pages");
  return View{**found, ByteCount(offset), ByteCount(length)};
}

Result<Timeline*> ComputeSession::timeline(const accelmm_point& point) {
  if (point.timeline == ACCELMM_TIMELINE_JOBS) return session_.jobs().get();
  if (point.timeline == ACCELMM_TIMELINE_ADDRESS_SPACE)
    if (Timeline* const mappings = mapping_timeline()) return mappings;
  return fail(Errc::invalid_argument, "no such timeline");
}

Timeline* ComputeSession::mapping_timeline() {
  if (space_) return &space_->timeline();
  return bus_mappings_ ? &bus_mappings_->timeline() : nullptr;
}

Result<void> ComputeSession::allocate(accelmm_alloc& args) {
  const auto request = request_of(args);
  if (!request) return fail(request.error());
  const bool host = args.domain == ACCELMM_DOMAIN_HOST;
  if (!host && !memory_) return fail(Errc::not_supported, "device has no memory of its own");
  RegionOwner& owner = host ? host_ : *memory_;
  auto allocation = owner.region().allocate(*request, owner);
  if (!allocation) {
    if (!host) note_failure(*request, allocation.error());
    return fail(allocation.error());
  }
  const ByteCount size = (*allocation)->size();
  const auto handle = buffers_.insert(buffer_handle, std::move(*allocation));
  if (!handle) return fail(handle.error());
  args.size = size.value();
  args.handle = handle->raw();
  return {};
}

void ComputeSession::note_failure(const Region::Request& request, Error error) noexcept {
  if (error.code != Errc::no_memory && error.code != Errc::over_quota) return;
  const FailedRequest failed{.request = request,
                             .error = error,
                             .owner = Region::id_of(*memory_),
                             .session = session_.id(),
                             .uid = session_.peer().uid,
                             .time_ns = monotonic_ns()};
  failures_.add(failed);
  device_.note_failure(failed);
}

Result<void> ComputeSession::shortage(accelmm_shortage& args) const {
  const OwnerId owner = memory_ ? Region::id_of(*memory_) : OwnerId{};
  return device_.explain(args, failures_, owner, Disclosure::own);
}

Result<void> ComputeSession::free(const accelmm_free& args) {
  auto removed = buffers_.remove(Handle::from_raw(args.handle), buffer_handle);
  if (!removed) return fail(removed.error());
  return {};
}

Result<void> ComputeSession::map_cpu(IoctlCall& call, accelmm_map_cpu& args) {
  const auto access = access_of(args.access);
  if (!access) return fail(access.error());
  const auto piece = view(args.handle, args.offset, args.length);
  if (!piece) return fail(piece.error());
  const auto file = piece->allocation->file_range(piece->offset, piece->length);
  if (!file) return fail(file.error());
  if (!allows(piece->allocation->cpu_access(), *access))
    return fail(Errc::not_permitted, "buffer is read-only for CPUs");
  auto fd = duplicate(file->memfd);
  if (!fd) return fail(fd.error());
  args.fd = static_cast<std::uint32_t>(call.reply_fds.size());
  args.fd_offset = file->offset.value();
  call.reply_fds.push_back(std::move(*fd));
  return {};
}

auto ComputeSession::map(View view, mmu::Placement placement, Access access, Charge charge)
    -> Result<Mapped> {
  const auto mapped_at = [](const auto& mapped) -> Result<Mapped> {
    if (!mapped) return fail(mapped.error());
    return Mapped{mapped->address, mapped->point};
  };
  if (space_) return mapped_at(space_->map(std::move(view), placement, access, std::move(charge)));
  return mapped_at(bus_mappings_->map(std::move(view), placement, access, std::move(charge)));
}

Result<void> ComputeSession::map_device(accelmm_map_device& args) {
  if (mapping_timeline() == nullptr) return fail(Errc::not_supported, "device has no MMU");
  const auto access = access_of(args.access);
  if (!access) return fail(access.error());
  const auto placement = placement_of(args.placement, DeviceAddr(args.address));
  if (!placement) return fail(placement.error());
  auto charge = charge_mapping();
  if (!charge) return fail(charge.error());
  auto piece = view(args.handle, args.offset, args.length);
  if (!piece) return fail(piece.error());
  const auto mapped = map(std::move(*piece), *placement, *access, std::move(*charge));
  if (!mapped) return fail(mapped.error());
  args.address = mapped->address.value();
  args.point = {ACCELMM_TIMELINE_ADDRESS_SPACE, 0, mapped->point};
  return {};
}

Result<Charge> ComputeSession::charge_mapping() {
  if (mappings() >= device_.description().session_quota.mappings)
    return fail(Errc::over_quota, "session has too many mappings");
  auto charge = Charge::make(user_.mappings, ByteCount(0));
  if (!charge) return fail(Errc::over_quota, "user has too many mappings");
  return std::move(*charge);
}

Result<void> ComputeSession::map_memory(accelmm_map_memory& args) {
  if (session_.peer().memory != Peer::Memory::of_this_process)
    return fail(Errc::not_supported, "memory in place is another process's");
  if (!bus_mappings_) return fail(Errc::not_supported, "device does not reach memory in place");
  const auto access = access_of(args.access);
  if (!access) return fail(access.error());
  const auto placement = placement_of(args.placement, DeviceAddr(args.address));
  if (!placement) return fail(placement.error());
  if (args.length > std::numeric_limits<std::uintptr_t>::max() - args.memory)
    return fail(Errc::invalid_argument, "memory ends beyond all addresses");
  auto charge = charge_mapping();
  if (!charge) return fail(charge.error());
  const std::span memory(reinterpret_cast<std::byte*>(args.memory), args.length);
  const auto mapped = bus_mappings_->map_memory(memory, *placement, *access, std::move(*charge));
  if (!mapped) return fail(mapped.error());
  args.address = mapped->address.value();
  args.point = {ACCELMM_TIMELINE_ADDRESS_SPACE, 0, mapped->point};
  return {};
}

Result<void> ComputeSession::unmap_device(accelmm_unmap_device& args) {
  if (mapping_timeline() == nullptr) return fail(Errc::not_supported, "device has no MMU");
  const auto point = space_ ? space_->unmap(DeviceAddr(args.address))
                            : bus_mappings_->unmap(DeviceAddr(args.address));
  if (!point) return fail(point.error());
  args.point = {ACCELMM_TIMELINE_ADDRESS_SPACE, 0, *point};
  return {};
}

Result<void> ComputeSession::export_view(IoctlCall& call, accelmm_export& args) {
  if (args.flags != 0) return fail(Errc::invalid_argument, "unknown export flags");
  const auto exported = view(args.handle, args.offset, args.length);
  if (!exported) return fail(exported.error());
  Allocation& allocation = *exported->allocation;
  const std::string name = "accelmm" + std::to_string(device_.device().number()) + ":session" +
                           std::to_string(session_.id());
  auto pieces = allocation.region().export_view(
      allocation, exported->offset, exported->length,
      {.access = allocation.cpu_access(), .name = name, .most_pieces = ACCELMM_MAX_PIECES});
  if (!pieces) return fail(pieces.error());
  for (std::size_t i = 0; i < pieces->size(); ++i) {
    dmabuf::Piece& piece = (*pieces)[i];
    args.pieces[i] = {static_cast<std::uint32_t>(call.reply_fds.size()), 0, piece.offset.value(),
                      piece.length.value()};
    call.reply_fds.push_back(std::move(piece.fd));
  }
  args.count = static_cast<std::uint32_t>(pieces->size());
  allocation.note_export();
  device_.counters().exports += 1;
  return {};
}

Result<void> ComputeSession::import_view(IoctlCall& call, accelmm_import& args) {
  if (args.flags != 0) return fail(Errc::invalid_argument, "unknown import flags");
  if (args.count == 0 || args.count > ACCELMM_MAX_PIECES)
    return fail(Errc::invalid_argument, "count of pieces is out of range");
  std::vector<dmabuf::Piece> pieces;
  for (std::size_t i = 0; i < args.count; ++i) {
    const accelmm_piece& piece = args.pieces[i];
    if (piece.reserved != 0 || piece.fd >= call.fds.size() || !call.fds[piece.fd].valid())
      return fail(Errc::invalid_argument, "piece names no descriptor of this call");
    pieces.push_back(
        {std::move(call.fds[piece.fd]), ByteCount(piece.offset), ByteCount(piece.length)});
  }
  auto view = dmabuf::import_view(std::move(pieces), device_.description().import_needs);
  if (!view) return fail(view.error());
  auto allocation = host_.region().import(std::move(*view), host_);
  if (!allocation) return fail(allocation.error());
  const ByteCount size = (*allocation)->size();
  const Access access = (*allocation)->cpu_access();
  const auto handle = buffers_.insert(buffer_handle, std::move(*allocation));
  if (!handle) return fail(handle.error());
  args.handle = handle->raw();
  args.size = size.value();
  args.access = static_cast<std::uint32_t>(access);
  device_.counters().imports += 1;
  return {};
}

void ComputeSession::wait(const accelmm_wait& args, Completion done) {
  const auto line = timeline(args.point);
  if (!line) return done(fail(line.error()));
  waits_->wait(**line, args.point.value, args.deadline_ns, std::move(done));
}

Result<void> ComputeSession::open_events(IoctlCall& call, accelmm_events& args) {
  auto reader = waits_->open_events();
  if (!reader) return fail(reader.error());
  args.fd = static_cast<std::uint32_t>(call.reply_fds.size());
  call.reply_fds.push_back(std::move(*reader));
  return {};
}

Result<void> ComputeSession::watch(const accelmm_watch& args) {
  const auto line = timeline(args.point);
  if (!line) return fail(line.error());
  return waits_->watch(**line, args.point);
}

Result<void> ComputeSession::report_backing(accelmm_backing& args) {
  const auto found = buffers_.find(Handle::from_raw(args.handle), buffer_handle);
  if (!found) return fail(found.error());
  const auto report = (**found)->backing();
  if (!report) return fail(report.error());
  put_report(*report, args);
  return {};
}

void ComputeSession::backing(accelmm_backing& args, Completion done) {
  const auto found = buffers_.find(Handle::from_raw(args.handle), buffer_handle);
  if (!found) return done(fail(found.error()));
  // Held by the completion: the buffer may be freed while this waits.
  const std::shared_ptr<Timeline> prefaulted = (**found)->prefaulted();
  if (prefaulted == nullptr || args.deadline_ns == 0) return done(report_backing(args));
  auto ended = [this, &args, prefaulted, done = std::move(done)](Result<void> result) mutable {
    // How making the pages ended, or that it has not, is in the report.
    if (!result && result.error().code != Errc::timed_out && !prefaulted->outcome(1))
      return done(result);
    done(report_backing(args));
  };
  waits_->wait(*prefaulted, 1, args.deadline_ns, Completion(std::move(ended)));
}

}  // namespace accelmm::devices
