// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/error.hpp>
#include <accelmm/fd.hpp>
#include <accelmm/negotiation.hpp>
#include <accelmm/sharing_device.hpp>
#include <accelmm/units.hpp>

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

/// What accelmm asks libdrm about displays, each once: errno turned into Error, a fault-injection
/// point passed first, libdrm's own memory given back.
namespace accelmm::kms {

/// One way from memory to a screen.
struct Pipe {
  std::uint32_t connector = 0;
  std::uint32_t crtc = 0;
  std::uint32_t plane = 0;  // the crtc's primary one
};

/// The largest and smallest images that a display takes.
struct Limits {
  ImageSize min;
  ImageSize max;
};

enum class Modifiers : std::uint8_t { implicit, explicit_ones };

[[nodiscard]] Result<std::string> driver_name(FdView node);
/// Whether ADDFB2 takes modifiers.
[[nodiscard]] Result<Modifiers> modifiers(FdView node);
[[nodiscard]] Result<Limits> limits(FdView node);
/// The first connected screen.
/// Errors  not_supported: the node drives no screens.  no_device: none is connected.
[[nodiscard]] Result<Pipe> find_pipe(FdView node);
/// Formats of a plane with their modifiers; empty modifiers: the driver names none.
using Formats = std::map<std::uint32_t, std::set<std::uint64_t>>;
[[nodiscard]] Result<Formats> formats(FdView node, std::uint32_t plane);
/// The stride of an image that is one pixel wide, as the driver itself makes one: what its strides
/// are multiples of.
[[nodiscard]] Result<std::uint32_t> narrowest_stride(FdView node, std::uint32_t bits_per_pixel);

[[nodiscard]] Result<std::uint32_t> import_dma_buf(FdView node, FdView buffer);
void close_handle(FdView node, std::uint32_t handle) noexcept;
/// A framebuffer over one object, from its first byte.
[[nodiscard]] Result<std::uint32_t> add_framebuffer(FdView node, std::uint32_t handle,
                                                    const ImageSize& size, const AgreedImage& image,
                                                    Modifiers modifiers);
void remove_framebuffer(FdView node, std::uint32_t framebuffer) noexcept;
/// Shows a framebuffer in the screen's mode of this size.
/// Errors  not_supported: the screen has no such mode.
[[nodiscard]] Result<void> show(FdView node, const Pipe& pipe, std::uint32_t framebuffer,
                                const ImageSize& size);
/// Turns the screen off.
[[nodiscard]] Result<void> darken(FdView node, const Pipe& pipe);

}  // namespace accelmm::kms
