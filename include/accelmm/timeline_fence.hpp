// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/error.hpp>
#include <accelmm/fence.hpp>
#include <accelmm/fence_watch.hpp>
#include <accelmm/timeline.hpp>

#include <cstdint>
#include <limits>
#include <memory>

namespace accelmm {

/// A fence that ends as a point of a timeline does, for who has no session: another driver process,
/// a program with a poll loop. It ends with canceled if nobody will reach the point any more.
/// Errors  any value of socketpair(2).
[[nodiscard]] Result<Fence> fence_of(Timeline& timeline, std::uint64_t point);

/// Ends a point of a timeline as a fence ends, or fails it with timed_out at a time of
/// CLOCK_MONOTONIC. Points before it must have their end of their own.
void reach_with(FenceWatch& watch, Fence fence, std::shared_ptr<Timeline> timeline,
                std::uint64_t point,
                std::uint64_t deadline_ns = std::numeric_limits<std::uint64_t>::max());

}  // namespace accelmm
