// SPDX-License-Identifier: Apache-2.0
// A camera, an accelerator and a display share buffers: each frame is captured into memory that the
// accelerator turns into its negative in place and the display scans out. No CPU copies a byte.
//   05_camera DIRECTORY [FRAMES]    over the device of 01_driver
// With QEMU's edu device (accelmm-edu, whose folder ACCELMM_EDU_DIRECTORY names), its DMA moves a strip
// of each frame in between, within the same memory.
// Ends with status 77 where there is no camera, no display or no /dev/udmabuf.
#include "01_driver/inverter.h"
#include "memory.hpp"
#include "strip.hpp"

#include <accelmm/client.hpp>
#include <accelmm/device_constraints.hpp>
#include <accelmm/drm_display.hpp>
#include <accelmm/trial_import.hpp>
#include <accelmm/v4l2_camera.hpp>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <optional>
#include <string>
#include <vector>

using namespace accelmm;

namespace {

constexpr ImageSize vga = {640, 480};
constexpr int nothing_here = 77;
constexpr int frame_timeout_ms = 10000;

int give_up(const char* what, const Error& error) {
  std::fprintf(stderr, "%s: %s (%s)\n", what, error.what, error_text(error.code));
  return 1;
}

struct Devices {
  Engines engines;
  std::unique_ptr<V4l2Camera> camera;
  std::unique_ptr<DrmDisplay> display;
};

// What all three want, and memory that all three take.
std::expected<Settlement, Refusal> agree(const Devices& devices) {
  const auto facts = devices.engines.accelerator.device_info();
  if (!facts) return std::unexpected(Refusal{facts.error().code, facts.error().what});
  const std::vector<Participant> others = {{"accelerator", device_constraints(*facts)}};
  const std::vector<SharingDevice*> kernel_devices = {devices.camera.get(), devices.display.get()};
  const std::vector<BufferSource> sources = {memory_source(devices.engines)};
  TrialImports trials;
  return settle(
      {.devices = kernel_devices, .participants = others, .sources = sources, .image = vga},
      trials);
}

// In place.
Result<void> invert(const Client& accelerator, const SharedMemory& memory,
                    const AgreedImage& image) {
  inverter_invert job{};
  job.address = memory.mapping.address().value();
  job.width = static_cast<std::uint32_t>(image.stride.value());
  job.height = image.rows;
  if (auto sent = accelerator.ioctl(INVERTER_IOCTL_INVERT, job); !sent) return sent;
  return accelerator.wait(Point::job(job.point.value));
}

// Each frame: the camera fills, the accelerator inverts, the mover moves a strip, the display shows.
// The last one stays on the screen: its buffer is the answer.
Result<std::uint32_t> run(Devices& devices, std::vector<SharedMemory>& buffers,
                          const AgreedImage& image, int frames) {
  std::optional<V4l2Camera::Frame> shown;
  for (int i = 0; i < frames; ++i) {
    const auto frame = devices.camera->next(frame_timeout_ms);
    if (!frame) return fail(frame.error());
    const SharedMemory& memory = buffers[frame->buffer];
    if (auto done = invert(devices.engines.accelerator, memory, image); !done)
      return fail(done.error());
    if (devices.engines.mover)
      if (auto moved = move_strip(*devices.engines.mover, memory, image); !moved)
        return fail(moved.error());
    if (auto visible = devices.display->show(frame->buffer); !visible) return fail(visible.error());
    // What was shown before is the camera's again: the display reads another now.
    if (shown) {
      if (auto given = devices.camera->give_back(*shown); !given) return fail(given.error());
    }
    shown = *frame;
  }
  if (!shown) return fail(Errc::invalid_argument, "no frames are wanted");
  return shown->buffer;
}

}  // namespace

int main(int argc, char** argv) {
  const int frames = argc > 2 ? std::atoi(argv[2]) : 5;
  auto camera = first_camera();
  auto display = first_display();
  if (!camera || !display || !has_udmabuf()) {
    std::printf("no camera, no display or no /dev/udmabuf here\n");
    return nothing_here;
  }
  auto client = Client::connect(0, NodeKind::compute, argc > 1 ? argv[1] : "");
  if (!client) return give_up("connect", client.error());
  std::optional<Client> mover;
  if (const char* const folder = std::getenv("ACCELMM_EDU_DIRECTORY")) {
    auto connected = Client::connect(0, NodeKind::compute, folder);
    if (!connected) return give_up("connect to the mover", connected.error());
    mover = *std::move(connected);
  }
  Devices devices{{*std::move(client), std::move(mover)}, *std::move(camera), *std::move(display)};

  const auto settled = agree(devices);
  if (!settled) return std::fprintf(stderr, "no agreement: %s\n", settled.error().text.c_str()), 1;
  const Agreement& agreement = settled->agreement;
  const AgreedImage& image = *agreement.image;
  std::printf(
      "%s, %s and the accelerator agree: %u buffers of %llu bytes, format 0x%08x, stride %llu\n",
      devices.camera->name().c_str(), devices.display->name().c_str(), agreement.count,
      static_cast<unsigned long long>(agreement.size.value()), image.format.fourcc,
      static_cast<unsigned long long>(image.stride.value()));

  std::vector<SharedMemory> buffers;
  std::vector<FdView> views;
  for (std::uint32_t i = 0; i < agreement.count; ++i) {
    auto made = share(devices.engines, agreement.size);
    if (!made) return give_up("share a buffer", made.error());
    buffers.push_back(*std::move(made));
    views.push_back(buffers.back().dma_buf.view());
  }
  if (auto begun = devices.display->begin(agreement, views); !begun)
    return give_up("display", begun.error());
  if (auto begun = devices.camera->begin(agreement, views); !begun)
    return give_up("camera", begun.error());
  if (auto same = say_who_has_it(buffers.front()); !same)
    return give_up("one memory", same.error());
  const auto begin = std::chrono::steady_clock::now();
  const auto shown = run(devices, buffers, image, frames);
  if (!shown) return give_up("frame", shown.error());
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  std::printf("%d frames, %.1f frames per second\n", frames, frames / seconds.count());
  if (const char* const folder = std::getenv("ACCELMM_PHOTOGRAPH_FOLDER"))
    photograph(folder, buffers[*shown]);
  if (auto ended = devices.camera->end(); !ended) return give_up("camera", ended.error());
  if (auto ended = devices.display->end(); !ended) return give_up("display", ended.error());
}
