// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/constraints.hpp>
#include <accelmm/error.hpp>
#include <accelmm/fd.hpp>
#include <accelmm/negotiation.hpp>

#include <cstdint>
#include <string>

namespace accelmm {

/// How many pixels an image has.
struct ImageSize {
  std::uint32_t width = 0;
  std::uint32_t height = 0;
  bool operator==(const ImageSize&) const = default;
};

/// A device of a kernel driver that uses dma-bufs which others made, as negotiation asks it.
///
/// What a driver can import only an import tells: capabilities that it shows are no promise, and each
/// kind of driver has its own error.
class SharingDevice {
 public:
  virtual ~SharingDevice() = default;

  /// As explanations call it; one device has one name.
  [[nodiscard]] virtual const std::string& name() const = 0;

  /// What it demands of buffers with images of this size.
  /// Errors  not_supported: it has no such images.  Any errno of asking the driver.
  [[nodiscard]] virtual Result<Constraints> constraints(const ImageSize& size) = 0;

  /// Imports a buffer as it would be used, and lets it go again.
  /// Pre     the agreement is on images that constraints() has.
  /// Errors  what the driver answered, with what it means for this kind of driver.  The device is
  ///         as it was.
  [[nodiscard]] virtual Result<void> try_import(FdView buffer, const Agreement& agreement) = 0;
};

}  // namespace accelmm
