// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/error.hpp>
#include <accelmm/fd.hpp>
#include <accelmm/negotiation.hpp>
#include <accelmm/sharing_device.hpp>

#include <cstddef>
#include <cstdint>
#include <expected>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <tuple>
#include <vector>

namespace accelmm {

/// A source of dma-bufs, and how one is had from it.
struct BufferSource {
  SourceDescription description;
  std::function<Result<UniqueFd>(ByteCount size)> allocate;
};

/// What devices said to trial imports, so that each is asked once: by device, source, format, and
/// size up to the next power of two.
///
/// Remembered is only what the driver will say again: not that it was busy, or without memory or
/// descriptors.
/// Threads  externally synchronised.
class TrialImports {
 public:
  struct Statistics {
    std::uint64_t asked = 0;       // of the devices
    std::uint64_t remembered = 0;  // answered without one
  };

  /// What the device says to this buffer, or said to one like it.
  /// Throws  std::bad_alloc.
  [[nodiscard]] Result<void> try_import(SharingDevice& device, const SourceDescription& source,
                                        FdView buffer, const Agreement& agreement);
  /// What it said; nothing: it was not asked, or its answer may change.
  /// Throws  std::bad_alloc.
  [[nodiscard]] std::optional<Result<void>> remembered(const SharingDevice& device,
                                                       const SourceDescription& source,
                                                       const Agreement& agreement);
  [[nodiscard]] const Statistics& statistics() const { return statistics_; }

 private:
  using Key = std::tuple<std::string, std::string, int, PixelFormat>;
  [[nodiscard]] static Key key(const SharingDevice& device, const SourceDescription& source,
                               const Agreement& agreement);

  std::map<Key, Result<void>> verdicts_;
  Statistics statistics_;
};

/// What is shared, how it lies, and where it comes from.
struct Settlement {
  Agreement agreement;               // the size is a multiple of the source's granule
  std::size_t source = 0;            // an index
  std::vector<std::string> refused;  // sources that would have come first, and why not
};

/// Why nothing can be shared, with everybody who refused and what.
struct Refusal {
  Errc code = Errc::no_memory;
  std::string text;
};

/// Who wants to share, and what there is.
struct Round {
  std::span<SharingDevice* const> devices;
  std::span<const Participant> participants;  // others: our devices, processes
  std::span<const BufferSource> sources;
  ImageSize image;
};

/// Asks the devices what they demand, finds what satisfies all, and tries the sources that serve in
/// their order: a buffer of each is imported by each device, and the first that all take is it.
///
/// Errors  not_supported: they disagree, or no source serves all.  What a device answered that could
///         not be asked.  no_memory.
[[nodiscard]] std::expected<Settlement, Refusal> settle(const Round& round,
                                                        TrialImports& trials) noexcept;

}  // namespace accelmm
