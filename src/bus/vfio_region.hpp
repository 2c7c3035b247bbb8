// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/mapping.hpp"
#include "bus/vfio_files.hpp"

#include <accelmm/vfio_device.hpp>

#include <memory>

namespace accelmm {

/// A BAR: mapped, or reached by pread(2) and pwrite(2).
struct VfioRegion::State {
  /// Errors  no_device: it has no such region.  protocol_error.  Any errno of mmap(2).
  [[nodiscard]] static Result<std::unique_ptr<State>> open(std::shared_ptr<const VfioFiles> files,
                                                           std::uint32_t index);
  template <class Word>
  [[nodiscard]] Result<Word> read(ByteCount offset) const;
  template <class Word>
  [[nodiscard]] Result<void> write(ByteCount offset, Word word);

  std::shared_ptr<const VfioFiles> files;
  VfioRegionPlace place{};
  Mapping mapping;  // empty: none was to be had. Goes before the files
};

}  // namespace accelmm
