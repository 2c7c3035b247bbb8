// SPDX-License-Identifier: Apache-2.0
#include "dmabuf/kms_calls.hpp"

#include "base/system_call.hpp"

#include <algorithm>
#include <array>
#include <limits>
#include <memory>
#include <span>
#include <string_view>

#include <drm_fourcc.h>
#include <xf86drm.h>
#include <xf86drmMode.h>

namespace accelmm::kms {

namespace {

template <auto free_function>
struct Freed {
  template <class Object>
  void operator()(Object* object) const {
    free_function(object);
  }
};
using Resources = std::unique_ptr<drmModeRes, Freed<&drmModeFreeResources>>;
using Connector = std::unique_ptr<drmModeConnector, Freed<&drmModeFreeConnector>>;
using Encoder = std::unique_ptr<drmModeEncoder, Freed<&drmModeFreeEncoder>>;
using Planes = std::unique_ptr<drmModePlaneRes, Freed<&drmModeFreePlaneResources>>;
using Plane = std::unique_ptr<drmModePlane, Freed<&drmModeFreePlane>>;
using Properties = std::unique_ptr<drmModeObjectProperties, Freed<&drmModeFreeObjectProperties>>;
using Property = std::unique_ptr<drmModePropertyRes, Freed<&drmModeFreeProperty>>;
using Blob = std::unique_ptr<drmModePropertyBlobRes, Freed<&drmModeFreePropertyBlob>>;

// An object of libdrm, which is null where its ioctl failed.
template <class Owner, class Call>
Result<Owner> object(const char* site, Call call, const char* failed) {
  if (const int injected = fault_injection::point(site); injected != 0)
    return fail_errno(injected, failed);
  Owner made(call());
  if (!made) return fail_errno(errno, failed);
  return made;
}

// A call of libdrm, which answers 0, or a negative errno or -1 with errno.
template <class Call>
Result<void> make(const char* site, Call call, const char* failed) {
  if (const int injected = fault_injection::point(site); injected != 0)
    return fail_errno(injected, failed);
  errno = 0;
  const int done = call();
  if (done == 0) return {};
  return fail_errno(errno != 0 ? errno : -done, failed);
}

Result<Resources> resources(FdView node) {
  return object<Resources>(
      "drmModeGetResources", [=] { return ::drmModeGetResources(node.get()); },
      "reading the display's resources failed");
}

Result<Connector> connector(FdView node, std::uint32_t id) {
  return object<Connector>(
      "drmModeGetConnector", [=] { return ::drmModeGetConnector(node.get(), id); },
      "reading a connector failed");
}

// The value of a property by its name; nothing: the object has none of that name.
Result<std::optional<std::uint64_t>> property(FdView node, std::uint32_t id, std::uint32_t type,
                                              std::string_view name) {
  auto all = object<Properties>(
      "drmModeObjectGetProperties",
      [=] { return ::drmModeObjectGetProperties(node.get(), id, type); },
      "reading properties failed");
  if (!all) return fail(all.error());
  for (std::uint32_t i = 0; i < (*all)->count_props; ++i) {
    auto one = object<Property>(
        "drmModeGetProperty", [&] { return ::drmModeGetProperty(node.get(), (*all)->props[i]); },
        "reading a property failed");
    if (!one) return fail(one.error());
    if (name == static_cast<const char*>((*one)->name)) return (*all)->prop_values[i];
  }
  return std::nullopt;
}

// The crtc that a connector can use, by the mask of its first encoder; its index numbers the bits of
// planes' masks too.
struct FoundCrtc {
  std::uint32_t crtc;
  std::uint32_t bit;
};
Result<FoundCrtc> crtc_for(FdView node, const drmModeRes& all, const drmModeConnector& screen) {
  for (int i = 0; i < screen.count_encoders; ++i) {
    auto encoder = object<Encoder>(
        "drmModeGetEncoder", [&] { return ::drmModeGetEncoder(node.get(), screen.encoders[i]); },
        "reading an encoder failed");
    if (!encoder) return fail(encoder.error());
    for (int crtc = 0; crtc < all.count_crtcs; ++crtc) {
      const std::uint32_t bit = std::uint32_t{1} << crtc;
      if (((*encoder)->possible_crtcs & bit) != 0) return FoundCrtc{all.crtcs[crtc], bit};
    }
  }
  return fail(Errc::no_device, "the screen has nothing to drive it");
}

Result<std::uint32_t> primary_plane(FdView node, std::uint32_t crtc_bit) {
  auto universal = make(
      "drmSetClientCap",
      [=] { return ::drmSetClientCap(node.get(), DRM_CLIENT_CAP_UNIVERSAL_PLANES, 1); },
      "driver shows no planes");
  if (!universal) return fail(universal.error());
  auto all = object<Planes>(
      "drmModeGetPlaneResources", [=] { return ::drmModeGetPlaneResources(node.get()); },
      "listing planes failed");
  if (!all) return fail(all.error());
  for (std::uint32_t i = 0; i < (*all)->count_planes; ++i) {
    const std::uint32_t id = (*all)->planes[i];
    auto plane = object<Plane>(
        "drmModeGetPlane", [=] { return ::drmModeGetPlane(node.get(), id); },
        "reading a plane failed");
    if (!plane) return fail(plane.error());
    if (((*plane)->possible_crtcs & crtc_bit) == 0) continue;
    const auto type = property(node, id, DRM_MODE_OBJECT_PLANE, "type");
    if (!type) return fail(type.error());
    if (*type == std::uint64_t{DRM_PLANE_TYPE_PRIMARY}) return id;
  }
  return fail(Errc::no_device, "the screen has no primary plane");
}

}  // namespace

Result<std::string> driver_name(FdView node) {
  auto version = object<std::unique_ptr<drmVersion, Freed<&drmFreeVersion>>>(
      "drmGetVersion", [=] { return ::drmGetVersion(node.get()); }, "not a DRM node");
  if (!version) return fail(version.error());
  return std::string((*version)->name, static_cast<std::size_t>((*version)->name_len));
}

Result<Modifiers> modifiers(FdView node) {
  std::uint64_t value = 0;
  auto done = make(
      "drmGetCap", [&] { return ::drmGetCap(node.get(), DRM_CAP_ADDFB2_MODIFIERS, &value); },
      "asking for a capability failed");
  if (!done) return fail(done.error());
  return value != 0 ? Modifiers::explicit_ones : Modifiers::implicit;
}

Result<Limits> limits(FdView node) {
  auto all = resources(node);
  if (!all) return fail(all.error());
  return Limits{.min = {(*all)->min_width, (*all)->min_height},
                .max = {(*all)->max_width, (*all)->max_height}};
}

Result<Pipe> find_pipe(FdView node) {
  auto all = resources(node);
  if (!all) {
    const Errc code = all.error().code;
    if (code == Errc::not_supported || code == Errc::invalid_argument)
      return fail(Errc::not_supported, "the node drives no screens");
    return fail(all.error());
  }
  for (int i = 0; i < (*all)->count_connectors; ++i) {
    auto screen = connector(node, (*all)->connectors[i]);
    if (!screen) return fail(screen.error());
    if ((*screen)->connection != DRM_MODE_CONNECTED) continue;
    const auto found = crtc_for(node, **all, **screen);
    if (!found) return fail(found.error());
    const auto plane = primary_plane(node, found->bit);
    if (!plane) return fail(plane.error());
    return Pipe{.connector = (*screen)->connector_id, .crtc = found->crtc, .plane = *plane};
  }
  return fail(Errc::no_device, "no screen is connected");
}

Result<Formats> formats(FdView node, std::uint32_t plane) {
  auto found = object<Plane>(
      "drmModeGetPlane", [=] { return ::drmModeGetPlane(node.get(), plane); },
      "reading a plane failed");
  if (!found) return fail(found.error());
  Formats all;
  for (const std::uint32_t fourcc : std::span((*found)->formats, (*found)->count_formats))
    all[fourcc];
  const auto id = property(node, plane, DRM_MODE_OBJECT_PLANE, "IN_FORMATS");
  if (!id) return fail(id.error());
  if (!*id || **id == 0) return all;
  auto blob = object<Blob>(
      "drmModeGetPropertyBlob",
      [&] { return ::drmModeGetPropertyBlob(node.get(), static_cast<std::uint32_t>(**id)); },
      "reading the plane's modifiers failed");
  if (!blob) return fail(blob.error());
  drmModeFormatModifierIterator at{};
  while (::drmModeFormatModifierBlobIterNext(blob->get(), &at)) all[at.fmt].insert(at.mod);
  return all;
}

Result<std::uint32_t> narrowest_stride(FdView node, std::uint32_t bits_per_pixel) {
  drm_mode_create_dumb request{};
  request.width = 1;
  request.height = 1;
  request.bpp = bits_per_pixel;
  auto made = make(
      "DRM_IOCTL_MODE_CREATE_DUMB",
      [&] { return ::drmIoctl(node.get(), DRM_IOCTL_MODE_CREATE_DUMB, &request); },
      "driver makes no buffers of its own");
  if (!made) return fail(made.error());
  drm_mode_destroy_dumb destroyed{};
  destroyed.handle = request.handle;
  auto gone = make(
      "DRM_IOCTL_MODE_DESTROY_DUMB",
      [&] { return ::drmIoctl(node.get(), DRM_IOCTL_MODE_DESTROY_DUMB, &destroyed); },
      "giving a buffer back failed");
  if (!gone) return fail(gone.error());
  return request.pitch;
}

Result<std::uint32_t> import_dma_buf(FdView node, FdView buffer) {
  std::uint32_t handle = 0;
  auto done = make(
      "drmPrimeFDToHandle", [&] { return ::drmPrimeFDToHandle(node.get(), buffer.get(), &handle); },
      "driver does not import the buffer");
  if (!done) return fail(done.error());
  return handle;
}

void close_handle(FdView node, std::uint32_t handle) noexcept {
  // Fails only for handles that are not open: then there is nothing to close.
  (void)::drmCloseBufferHandle(node.get(), handle);
}

Result<std::uint32_t> add_framebuffer(FdView node, std::uint32_t handle, const ImageSize& size,
                                      const AgreedImage& image, Modifiers modifiers) {
  if (image.stride.value() > std::numeric_limits<std::uint32_t>::max())
    return fail(Errc::overflow, "DRM knows no strides of 4 GiB and more");
  const std::array<std::uint32_t, 4> handles = {handle};
  const std::array<std::uint32_t, 4> strides = {static_cast<std::uint32_t>(image.stride.value())};
  const std::array<std::uint32_t, 4> offsets = {};
  const std::array<std::uint64_t, 4> layouts = {image.format.modifier};
  const bool named =
      modifiers == Modifiers::explicit_ones && image.format.modifier != DRM_FORMAT_MOD_INVALID;
  std::uint32_t framebuffer = 0;
  auto done = make(
      "drmModeAddFB2WithModifiers",
      [&] {
        return ::drmModeAddFB2WithModifiers(node.get(), size.width, size.height,
                                            image.format.fourcc, handles.data(), strides.data(),
                                            offsets.data(), named ? layouts.data() : nullptr,
                                            &framebuffer, named ? DRM_MODE_FB_MODIFIERS : 0);
      },
      "driver makes no framebuffer of the buffer");
  if (!done) return fail(done.error());
  return framebuffer;
}

void remove_framebuffer(FdView node, std::uint32_t framebuffer) noexcept {
  // Fails only for what is no framebuffer of this node.
  (void)::drmModeRmFB(node.get(), framebuffer);
}

Result<void> show(FdView node, const Pipe& pipe, std::uint32_t framebuffer, const ImageSize& size) {
  auto screen = connector(node, pipe.connector);
  if (!screen) return fail(screen.error());
  const std::span modes((*screen)->modes, static_cast<std::size_t>((*screen)->count_modes));
  const auto mode = std::ranges::find_if(modes, [&](const drmModeModeInfo& one) {
    return one.hdisplay == size.width && one.vdisplay == size.height;
  });
  if (mode == modes.end()) return fail(Errc::not_supported, "the screen has no mode of this size");
  std::uint32_t id = pipe.connector;
  return make(
      "drmModeSetCrtc",
      [&] { return ::drmModeSetCrtc(node.get(), pipe.crtc, framebuffer, 0, 0, &id, 1, &*mode); },
      "driver does not show the framebuffer");
}

Result<void> darken(FdView node, const Pipe& pipe) {
  return make(
      "drmModeSetCrtc",
      [&] { return ::drmModeSetCrtc(node.get(), pipe.crtc, 0, 0, 0, nullptr, 0, nullptr); },
      "turning the screen off failed");
}

}  // namespace accelmm::kms
