// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/error.hpp>
#include <accelmm/fd.hpp>
#include <accelmm/sharing_device.hpp>

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace accelmm {

/// A DRM device with a screen, which scans out dma-bufs of others (PRIME import, ADDFB2).
///
/// Its demands are the formats and modifiers of the screen's primary plane, its largest images, and
/// the strides of the buffers that the driver makes itself.
/// Owns      the open node; framebuffers and object handles, while it shows. The kernel gives one
///           handle to whoever imports a buffer twice and closes it at the first close: they are
///           counted here.
/// Threads   externally synchronised.
class DrmDisplay final : public SharingDevice {
 public:
  /// Errors  any errno of open(2).  not_supported: the node drives no screens.  no_device: none is
  ///         connected.
  [[nodiscard]] static Result<std::unique_ptr<DrmDisplay>> open(const std::string& node);
  /// The first node in /dev/dri with this driver: "cirrus".
  /// Errors  no_device: there is none.  Those of open().
  [[nodiscard]] static Result<std::unique_ptr<DrmDisplay>> open_driver(const std::string& driver);
  ~DrmDisplay() override;
  DrmDisplay(const DrmDisplay&) = delete;
  DrmDisplay& operator=(const DrmDisplay&) = delete;

  [[nodiscard]] const std::string& name() const override { return name_; }
  [[nodiscard]] Result<Constraints> constraints(const ImageSize& size) override;
  /// Errors  no_device, invalid_argument and others: what the driver says to foreign buffers.
  [[nodiscard]] Result<void> try_import(FdView buffer, const Agreement& agreement) override;

  /// Makes framebuffers of these, and shows none yet.
  /// Errors  busy: it shows.  What the driver says to the buffers.  Nothing has begun.
  [[nodiscard]] Result<void> begin(const Agreement& agreement, std::span<const FdView> buffers);
  /// Shows a buffer by its index, until another is shown.
  /// Errors  invalid_argument: there is none.  not_supported: the screen has no mode of this size.
  ///         access: another process holds the screen.
  [[nodiscard]] Result<void> show(std::size_t buffer);
  /// Turns the screen off and lets go of the buffers.
  [[nodiscard]] Result<void> end();

 private:
  struct Screen;  // what the driver said of it

  DrmDisplay(UniqueFd node, std::string name, std::unique_ptr<Screen> screen);
  [[nodiscard]] static Result<std::unique_ptr<DrmDisplay>> adopt(UniqueFd node,
                                                                 const std::string& path);
  [[nodiscard]] Result<std::uint32_t> hold(FdView buffer);
  void let_go(std::uint32_t handle) noexcept;
  /// {framebuffer, handle} of a buffer.
  struct Shown {
    std::uint32_t framebuffer;
    std::uint32_t handle;
  };
  [[nodiscard]] Result<Shown> add(FdView buffer, const Agreement& agreement);
  void remove(const Shown& shown) noexcept;

  UniqueFd node_;
  std::string name_;
  std::unique_ptr<Screen> screen_;
  std::optional<ImageSize> asked_;                // the size of constraints()
  std::map<std::uint32_t, std::size_t> holders_;  // of each handle
  std::vector<Shown> shown_;
};

}  // namespace accelmm
