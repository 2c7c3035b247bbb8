// SPDX-License-Identifier: Apache-2.0
#include "capi/guarded.hpp"
#include "capi/session.hpp"
#include "capi/view.hpp"
#include "client/buffer_calls.hpp"

namespace accelmm {

namespace {

Result<DevicePlacement> placement_from_c(const accelmm_placement* placement) {
  if (placement == nullptr) return DevicePlacement::anywhere();
  if (placement->reserved != 0) return fail(Errc::invalid_argument, "a reserved field is set");
  const DeviceAddr address(placement->address);
  switch (placement->rule) {
    case ACCELMM_PLACE_ANYWHERE:
      if (address != DeviceAddr())
        return fail(Errc::invalid_argument, "an address is given and not wanted");
      return DevicePlacement::anywhere();
    case ACCELMM_PLACE_HINT:
      return DevicePlacement::hint(address);
    case ACCELMM_PLACE_FIXED:
      return DevicePlacement::fixed(address);
    default:
      return fail(Errc::invalid_argument, "no such placement");
  }
}

}  // namespace

}  // namespace accelmm

extern "C" {

int accelmm_device_map(accelmm_session* session, const struct accelmm_view* view, uint32_t access,
                       const struct accelmm_placement* placement,
                       struct accelmm_device_mapping* mapping) {
  using namespace accelmm;
  if (session == nullptr || view == nullptr || mapping == nullptr) return -EINVAL;
  return guarded([&] {
    const auto piece = view_from_c(*view);
    if (!piece) return to_c(piece.error());
    const auto allowed = access_from_c(access);
    if (!allowed) return to_c(allowed.error());
    const auto place = placement_from_c(placement);
    if (!place) return to_c(place.error());
    const auto mapped = map_device(*session->link, *piece, *allowed, *place);
    if (!mapped) return to_c(mapped.error());
    *mapping = {.address = mapped->address.value(), .point = point_to_wire(mapped->point)};
    return 0;
  });
}

int accelmm_device_unmap(accelmm_session* session, uint64_t address, struct accelmm_point* point) {
  using namespace accelmm;
  if (session == nullptr) return -EINVAL;
  return guarded([&] {
    const auto gone = unmap_device(*session->link, DeviceAddr(address));
    if (!gone) return to_c(gone.error());
    if (point != nullptr) *point = point_to_wire(*gone);
    return 0;
  });
}

}  // extern "C"
