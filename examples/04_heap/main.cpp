// SPDX-License-Identifier: Apache-2.0
// An application that makes many small things: a heap over the session's buffers, from which each
// comes with a pointer and a device address, and without a call to the driver process.
//   04_heap DIRECTORY    over the device of 01_driver
#include "01_driver/inverter.h"

#include <accelmm/client.hpp>
#include <accelmm/client_heap.hpp>
#include <accelmm/heap_resource.hpp>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <memory_resource>
#include <vector>

using namespace accelmm;

namespace {

int give_up(const char* what, const Error& error) {
  std::fprintf(stderr, "%s: %s (%s)\n", what, error.what, error_text(error.code));
  return 1;
}

// Has the device invert a row of pixels, and waits for it.
Result<void> invert(const Client& client, DeviceAddr pixels, std::uint32_t width) {
  inverter_invert job{};
  job.address = pixels.value();
  job.width = width;
  job.height = 1;
  if (auto sent = client.ioctl(INVERTER_IOCTL_INVERT, job); !sent) return sent;
  return client.wait(Point::job(job.point.value));
}

}  // namespace

int main(int argc, char** argv) {
  const auto client = Client::connect(0, NodeKind::compute, argc > 1 ? argv[1] : "");
  if (!client) return give_up("connect", client.error());

  // The heap takes buffers of 2 MiB and more as it needs them. A processor that writes to one piece
  // while the device writes to its neighbour wants them on cache lines of their own.
  auto heap = ClientHeap::create(*client, {.heap = {.spacing = Slab::Spacing::cache_lines}});
  if (!heap) return give_up("heap", heap.error());

  std::vector<HeapPiece> rows;
  for (std::uint32_t width = 16; width <= 4096; width += 16) {
    const auto row = (*heap)->allocate(ByteCount(width));
    if (!row) return give_up("allocate", row.error());
    std::fill_n(static_cast<std::uint8_t*>(row->pointer), width, std::uint8_t{7});
    if (auto done = invert(*client, row->address, width); !done)
      return give_up("job", done.error());
    rows.push_back(*row);
  }
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const auto* const pixels = static_cast<const std::uint8_t*>(rows[i].pointer);
    if (std::count(pixels, pixels + 16 * (i + 1), 248) != static_cast<std::ptrdiff_t>(16 * (i + 1)))
      return std::fprintf(stderr, "row %zu is wrong\n", i), 1;
    if (auto freed = (*heap)->free(rows[i].pointer); !freed) return give_up("free", freed.error());
  }
  std::printf("inverted %zu rows\n", rows.size());

  // A mistake is an error, not a crash later.
  const auto twice = (*heap)->free(rows[0].pointer);
  if (twice || twice.error().code != Errc::invalid_argument)
    return std::fprintf(stderr, "a double free was not refused\n"), 1;

  // Containers of the standard library can live there as well.
  HeapResource resource(heap->heap());
  std::pmr::vector<std::uint8_t> pixels(1000, 1, &resource);
  const auto address = (*heap)->device_address(pixels.data());
  if (!address) return give_up("device address", address.error());
  if (auto done = invert(*client, *address, 1000); !done) return give_up("job", done.error());
  if (pixels != std::pmr::vector<std::uint8_t>(1000, 254))
    return std::fprintf(stderr, "the vector is wrong\n"), 1;
  std::printf("inverted a vector; the heap has %llu KiB of buffers\n",
              static_cast<unsigned long long>((*heap)->statistics().from_source.value() >> 10));
}
