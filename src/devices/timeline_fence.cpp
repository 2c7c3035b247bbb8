// SPDX-License-Identifier: Apache-2.0
#include <accelmm/timeline_fence.hpp>

#include <utility>

namespace accelmm {

Result<Fence> fence_of(Timeline& timeline, std::uint64_t point) {
  auto pair = Fence::create();
  if (!pair) return fail(pair.error());
  timeline.when_reached(point,
                        Completion([signal = std::move(pair->signal)](Result<void> result) mutable {
                          // Who waits learns of a failed send as of our death: the socket closes.
                          static_cast<void>(signal.signal(result));
                        }));
  return std::move(pair->fence);
}

void reach_with(FenceWatch& watch, Fence fence, std::shared_ptr<Timeline> timeline,
                std::uint64_t point, std::uint64_t deadline_ns) {
  watch.wait(std::move(fence),
             Completion([timeline = std::move(timeline), point](Result<void> result) {
               result ? timeline->reach(point) : timeline->fail(point, result.error().code);
             }),
             deadline_ns);
}

}  // namespace accelmm
