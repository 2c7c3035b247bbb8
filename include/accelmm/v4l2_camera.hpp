// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/error.hpp>
#include <accelmm/fd.hpp>
#include <accelmm/sharing_device.hpp>
#include <accelmm/units.hpp>

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace accelmm {

/// A V4L2 capture device that fills dma-bufs of others (V4L2_MEMORY_DMABUF), single-planar.
///
/// Its demands are what TRY_FMT answers for each format that drm_fourcc.h has too. Of contiguity and
/// address bits a V4L2 driver tells nothing: PREPARE_BUF does.
/// Owns      the open node; while it captures, the buffers' room in the driver.
/// Threads   externally synchronised.
class V4l2Camera final : public SharingDevice {
 public:
  /// Errors  any errno of open(2).  not_supported: it captures no images, single-planar.
  [[nodiscard]] static Result<std::unique_ptr<V4l2Camera>> open(const std::string& node);
  ~V4l2Camera() override;
  V4l2Camera(const V4l2Camera&) = delete;
  V4l2Camera& operator=(const V4l2Camera&) = delete;

  [[nodiscard]] const std::string& name() const override { return name_; }
  [[nodiscard]] Result<Constraints> constraints(const ImageSize& size) override;
  /// Errors  fault: the driver takes contiguous memory only.  busy: it captures.
  [[nodiscard]] Result<void> try_import(FdView buffer, const Agreement& agreement) override;

  /// Begins to capture into these, one after the other. Each keeps its index, so that the driver
  /// attaches it once.
  /// Pre     the buffers live until end().
  /// Errors  busy: it captures.  not_supported: the driver does not take the agreed format.  What
  ///         it says to the buffers.  Nothing has begun.
  [[nodiscard]] Result<void> begin(const Agreement& agreement, std::span<const FdView> buffers);
  /// A frame and the buffer it is in, which the driver leaves alone until it is given back.
  struct Frame {
    std::uint32_t buffer = 0;  // an index
    ByteCount used{};
    std::uint32_t sequence = 0;  // numbers that are left out are frames that were dropped
  };
  /// Errors  timed_out.  io_error: the frame is damaged, and its buffer is the driver's again.
  [[nodiscard]] Result<Frame> next(int timeout_ms);
  [[nodiscard]] Result<void> give_back(const Frame& frame);
  /// Ends what begin() began; the driver has let go of all buffers.
  [[nodiscard]] Result<void> end();

 private:
  V4l2Camera(UniqueFd node, std::string name) : node_(std::move(node)), name_(std::move(name)) {}
  [[nodiscard]] Result<void> add_format(std::uint32_t pixel_format, const ImageSize& size,
                                        Constraints& wanted);
  [[nodiscard]] Result<void> set_format(const Agreement& agreement);
  [[nodiscard]] Result<void> try_prepared(FdView buffer, ByteCount length);

  UniqueFd node_;
  std::string name_;
  std::optional<ImageSize> asked_;  // the size of constraints(), which agreements are for
  std::vector<FdView> buffers_;     // while it captures
  ByteCount length_{};
};

}  // namespace accelmm
