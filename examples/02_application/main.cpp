// SPDX-License-Identifier: Apache-2.0
// An application, in another process than the driver: a buffer, a job, and a job that faults.
//   02_application DIRECTORY    over the device of 01_driver
#include "01_driver/inverter.h"

#include <accelmm/client.hpp>

#include <cstdio>

using namespace accelmm;

namespace {

int give_up(const char* what, const Error& error) {
  std::fprintf(stderr, "%s: %s (%s)\n", what, error.what, error_text(error.code));
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  const auto client = Client::connect(0, NodeKind::compute, argc > 1 ? argv[1] : "");
  if (!client) return give_up("connect", client.error());

  // Memory that both the CPU and the device reach: 64 x 64 pixels.
  const auto buffer = client->allocate(4_KiB);
  if (!buffer) return give_up("allocate", buffer.error());
  const auto pixels = buffer->map_cpu();
  if (!pixels) return give_up("map for the CPU", pixels.error());
  const auto mapped = buffer->map_device();
  if (!mapped) return give_up("map for the device", mapped.error());
  for (std::size_t i = 0; i < pixels->bytes().size(); ++i)
    pixels->bytes()[i] = static_cast<std::byte>(i & 0xFF);

  // A job of the driver's own ioctl. The call returns at once; the point is reached when it is done.
  inverter_invert job{};
  job.address = mapped->address().value();
  job.width = job.height = 64;
  if (auto sent = client->ioctl(INVERTER_IOCTL_INVERT, job); !sent)
    return give_up("submit", sent.error());
  if (auto done = client->wait(Point::job(job.point.value)); !done)
    return give_up("job", done.error());
  for (std::size_t i = 0; i < pixels->bytes().size(); ++i) {
    if (pixels->bytes()[i] == static_cast<std::byte>(255 - (i & 0xFF))) continue;
    std::fprintf(stderr, "pixel %zu is wrong\n", i);
    return 1;
  }
  std::printf("inverted %zu pixels\n", pixels->bytes().size());

  // The device reaches what is mapped and nothing else.
  job.address += buffer->size().value();
  if (auto sent = client->ioctl(INVERTER_IOCTL_INVERT, job); !sent)
    return give_up("submit", sent.error());
  const auto done = client->wait(Point::job(job.point.value));
  if (done || done.error().code != Errc::fault) {
    std::fprintf(stderr, "a job beyond the buffer did not fault\n");
    return 1;
  }
  const auto fault = client->last_fault();
  if (!fault) return give_up("fault", fault.error());
  std::printf("as it should, the next job faulted at device address 0x%llx, hop %u\n",
              static_cast<unsigned long long>(fault->address), fault->level);
}
