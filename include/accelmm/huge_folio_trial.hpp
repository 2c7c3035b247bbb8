// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/backing.hpp>
#include <accelmm/error.hpp>
#include <accelmm/fd.hpp>
#include <accelmm/units.hpp>

#include <functional>

namespace accelmm {

/// Has a driver of the kernel write to every page of the first `length` bytes of a dma-buf by its own
/// mapping of it, and waits until it has: a camera that captures a frame.
using DriverWrite = std::function<Result<void>(FdView buffer, ByteCount length)>;

/// Whether the running kernel shows its drivers the pages of a dma-buf over huge pages where they
/// are: to be asked once, before HugeImportable::allowed goes into a policy. The dma-buf is over
/// pages of the kernel's pool of 2 MiB pages, two at least.
/// Errors  not_supported, no_memory: there is no such pool, or it is empty.  Those of making a
///         dma-buf.  What the write failed with.  Nothing was shown then: huge pages stay refused.
[[nodiscard]] Result<HugeImportable> try_huge_folios(const DriverWrite& write, ByteCount length);

}  // namespace accelmm
