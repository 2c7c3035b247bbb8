// SPDX-License-Identifier: Apache-2.0
#include "base/system.hpp"
#include "dmabuf/kms_calls.hpp"

#include <accelmm/check.hpp>
#include <accelmm/drm_display.hpp>

#include <algorithm>
#include <array>
#include <bit>

#include <drm_fourcc.h>
#include <fcntl.h>

namespace accelmm {

namespace {

constexpr unsigned most_cards = 64;  // minors 0 to 63 are cards
// One is shown, and one waits for its turn.
constexpr std::uint32_t held_to_show = 2;

struct Pixel {
  std::uint32_t fourcc;
  std::uint32_t bytes;
};
// Formats of one plane whose pixels are whole bytes: others need more offsets than one.
constexpr std::array pixels = {
    Pixel{DRM_FORMAT_XRGB8888, 4}, Pixel{DRM_FORMAT_ARGB8888, 4}, Pixel{DRM_FORMAT_XBGR8888, 4},
    Pixel{DRM_FORMAT_ABGR8888, 4}, Pixel{DRM_FORMAT_BGRX8888, 4}, Pixel{DRM_FORMAT_BGRA8888, 4},
    Pixel{DRM_FORMAT_RGB888, 3},   Pixel{DRM_FORMAT_BGR888, 3},   Pixel{DRM_FORMAT_RGB565, 2},
    Pixel{DRM_FORMAT_YUYV, 2},     Pixel{DRM_FORMAT_UYVY, 2},     Pixel{DRM_FORMAT_R8, 1}};

bool within(const ImageSize& size, const kms::Limits& limits) {
  return size.width >= limits.min.width && size.width <= limits.max.width &&
         size.height >= limits.min.height && size.height <= limits.max.height;
}

// The largest power of two in it: rows of the driver's own buffers are aligned to that.
std::uint64_t alignment_of(std::uint32_t stride) {
  return stride == 0 ? 1 : std::uint64_t{1} << std::countr_zero(stride);
}

// A plane that names no modifiers takes what its driver makes itself, which is linear for whoever
// makes buffers without it.
std::set<std::uint64_t> usable(const std::set<std::uint64_t>& named) {
  if (!named.empty()) return named;
  return {DRM_FORMAT_MOD_LINEAR};
}

}  // namespace

struct DrmDisplay::Screen {
  kms::Pipe pipe;
  kms::Limits limits;
  kms::Modifiers modifiers = kms::Modifiers::implicit;
};

DrmDisplay::DrmDisplay(UniqueFd node, std::string name, std::unique_ptr<Screen> screen)
    : node_(std::move(node)), name_(std::move(name)), screen_(std::move(screen)) {}

Result<std::unique_ptr<DrmDisplay>> DrmDisplay::adopt(UniqueFd node, const std::string& path) {
  const auto driver = kms::driver_name(node.view());
  if (!driver) return fail(driver.error());
  const auto pipe = kms::find_pipe(node.view());
  if (!pipe) return fail(pipe.error());
  const auto limits = kms::limits(node.view());
  if (!limits) return fail(limits.error());
  const auto modifiers = kms::modifiers(node.view());
  if (!modifiers) return fail(modifiers.error());
  auto screen = std::make_unique<Screen>(Screen{*pipe, *limits, *modifiers});
  return std::unique_ptr<DrmDisplay>(
      new DrmDisplay(std::move(node), "display " + *driver + " (" + path + ")", std::move(screen)));
}

Result<std::unique_ptr<DrmDisplay>> DrmDisplay::open(const std::string& node) {
  auto fd = sys::open(node, O_RDWR);
  if (!fd) return fail(fd.error());
  return adopt(*std::move(fd), node);
}

// The node that is asked is the one that is kept: who opens a card first may set its modes, and a
// second descriptor may not.
Result<std::unique_ptr<DrmDisplay>> DrmDisplay::open_driver(const std::string& driver) {
  for (unsigned card = 0; card < most_cards; ++card) {
    const std::string path = "/dev/dri/card" + std::to_string(card);
    auto node = sys::open(path, O_RDWR);
    if (!node && node.error().code == Errc::no_entry) continue;
    if (!node) return fail(node.error());
    const auto found = kms::driver_name(node->view());
    if (!found) return fail(found.error());
    if (*found == driver) return adopt(*std::move(node), path);
  }
  return fail(Errc::no_device, "no card has this driver");
}

DrmDisplay::~DrmDisplay() {
  if (!shown_.empty()) (void)end();
}

Result<Constraints> DrmDisplay::constraints(const ImageSize& size) {
  if (!within(size, screen_->limits))
    return fail(Errc::not_supported, "images of this size are beyond the display's limits");
  const auto formats = kms::formats(node_.view(), screen_->pipe.plane);
  if (!formats) return fail(formats.error());
  Constraints wanted;
  wanted.needs = {Use::attach};
  wanted.domains = {CoherenceDomain::cpu, CoherenceDomain::ram};
  wanted.counts = {.camping = held_to_show};
  wanted.images.emplace();
  for (const auto& [fourcc, modifiers] : *formats) {
    const auto* const pixel = std::ranges::find(pixels, fourcc, &Pixel::fourcc);
    if (pixel == pixels.end()) continue;
    const auto narrowest = kms::narrowest_stride(node_.view(), pixel->bytes * 8);
    if (!narrowest) return fail(narrowest.error());
    const std::uint64_t line = std::uint64_t{size.width} * pixel->bytes;
    for (const std::uint64_t modifier : usable(modifiers))
      wanted.images->emplace(FormatPattern{.fourcc = fourcc, .modifier = modifier},
                             ImageConstraints{.min_stride = ByteCount(line),
                                              .stride_divisor = alignment_of(*narrowest),
                                              .rows = size.height});
  }
  if (wanted.images->empty())
    return fail(Errc::not_supported, "display has no format that others know");
  asked_ = size;
  return wanted;
}

Result<std::uint32_t> DrmDisplay::hold(FdView buffer) {
  const auto handle = kms::import_dma_buf(node_.view(), buffer);
  if (!handle) return handle;
  ++holders_[*handle];
  return handle;
}

void DrmDisplay::let_go(std::uint32_t handle) noexcept {
  const auto holders = holders_.find(handle);
  ACCELMM_CHECK(holders != holders_.end());
  if (--holders->second != 0) return;
  holders_.erase(holders);
  kms::close_handle(node_.view(), handle);
}

Result<DrmDisplay::Shown> DrmDisplay::add(FdView buffer, const Agreement& agreement) {
  if (!agreement.image || !asked_)
    return fail(Errc::invalid_argument, "the agreement is not on images of this display");
  const auto handle = hold(buffer);
  if (!handle) return fail(handle.error());
  const auto framebuffer =
      kms::add_framebuffer(node_.view(), *handle, *asked_, *agreement.image, screen_->modifiers);
  if (!framebuffer) {
    let_go(*handle);
    return fail(framebuffer.error());
  }
  return Shown{.framebuffer = *framebuffer, .handle = *handle};
}

void DrmDisplay::remove(const Shown& shown) noexcept {
  kms::remove_framebuffer(node_.view(), shown.framebuffer);
  let_go(shown.handle);
}

Result<void> DrmDisplay::try_import(FdView buffer, const Agreement& agreement) {
  const auto added = add(buffer, agreement);
  if (!added) return fail(added.error());
  remove(*added);
  return {};
}

Result<void> DrmDisplay::begin(const Agreement& agreement, std::span<const FdView> buffers) {
  if (!shown_.empty()) return fail(Errc::busy, "display shows other buffers");
  if (buffers.empty()) return fail(Errc::invalid_argument, "nothing to show");
  std::vector<Shown> added;
  for (const FdView buffer : buffers) {
    const auto one = add(buffer, agreement);
    if (!one) {
      for (const Shown& other : added) remove(other);
      return fail(one.error());
    }
    added.push_back(*one);
  }
  shown_ = std::move(added);
  return {};
}

Result<void> DrmDisplay::show(std::size_t buffer) {
  if (buffer >= shown_.size()) return fail(Errc::invalid_argument, "no such buffer is shown");
  return kms::show(node_.view(), screen_->pipe, shown_[buffer].framebuffer, *asked_);
}

Result<void> DrmDisplay::end() {
  if (shown_.empty()) return fail(Errc::invalid_argument, "display shows nothing");
  const auto dark = kms::darken(node_.view(), screen_->pipe);
  for (const Shown& one : shown_) remove(one);
  shown_.clear();
  return dark;
}

}  // namespace accelmm
