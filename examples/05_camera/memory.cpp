// SPDX-License-Identifier: Apache-2.0
#include "memory.hpp"

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <thread>
#include <utility>

#include <fcntl.h>
#include <linux/udmabuf.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

using namespace accelmm;

namespace {

constexpr int most_nodes = 64;
constexpr long dma_buf_magic = 0x444d4142;  // "DMAB"

bool is_dma_buf(FdView fd) {
  struct statfs found{};
  return ::fstatfs(fd.get(), &found) == 0 && found.f_type == dma_buf_magic;
}

// A driver process that exports memory files: a dma-buf is made of the file here.
Result<UniqueFd> dma_buf_of(Export::Piece piece) {
  if (is_dma_buf(piece.fd.view())) return std::move(piece.fd);
  const UniqueFd node(::open("/dev/udmabuf", O_RDONLY | O_CLOEXEC));
  udmabuf_create request{};
  request.memfd = static_cast<std::uint32_t>(piece.fd.get());
  request.flags = UDMABUF_FLAGS_CLOEXEC;
  request.offset = piece.offset;
  request.size = piece.length.value();
  UniqueFd made(::ioctl(node.get(), UDMABUF_CREATE, &request));
  if (!made.valid()) return fail_errno(errno, "UDMABUF_CREATE failed");
  return made;
}

// To the accelerator's engines, and to drivers of the kernel.
Result<SharedMemory> give_out(const Engines& engines, Buffer buffer, UniqueFd memory_file) {
  auto mapping = buffer.map_device();
  if (!mapping) return fail(mapping.error());
  if (auto usable = engines.accelerator.wait(mapping->point()); !usable)
    return fail(usable.error());
  auto view = buffer.export_view();
  if (!view) return fail(view.error());
  if (view->pieces.size() != 1) return fail(Errc::not_supported, "the export has several pieces");
  auto dma_buf = dma_buf_of(std::move(view->pieces.front()));
  if (!dma_buf) return fail(dma_buf.error());
  return SharedMemory{.origin = {},
                      .origin_mapping = {},
                      .buffer = std::move(buffer),
                      .mapping = *std::move(mapping),
                      .dma_buf = *std::move(dma_buf),
                      .memory_file = std::move(memory_file)};
}

using Identity = std::pair<dev_t, ino_t>;

Identity identity_of(const UniqueFd& fd) {
  struct stat status{};
  ::fstat(fd.get(), &status);
  return {status.st_dev, status.st_ino};
}

std::string describe(const Identity& identity) {
  std::string text = "(";
  text += std::to_string(identity.first) + ", " + std::to_string(identity.second) + ")";
  return text;
}

}  // namespace

Result<std::unique_ptr<V4l2Camera>> first_camera() {
  for (int i = 0; i < most_nodes; ++i) {
    auto camera = V4l2Camera::open("/dev/video" + std::to_string(i));
    if (camera) return camera;
  }
  return fail(Errc::no_device, "no camera");
}

Result<std::unique_ptr<DrmDisplay>> first_display() {
  for (int i = 0; i < most_nodes; ++i) {
    auto display = DrmDisplay::open("/dev/dri/card" + std::to_string(i));
    if (display) return display;
  }
  return fail(Errc::no_device, "no display");
}

bool has_udmabuf() {
  return ::access("/dev/udmabuf", R_OK) == 0;
}

Result<SharedMemory> share(const Engines& engines, ByteCount size) {
  if (!engines.mover) {
    auto made = engines.accelerator.allocate(size);
    if (!made) return fail(made.error());
    return give_out(engines, *std::move(made), {});
  }
  auto origin = engines.mover->allocate(size);
  if (!origin) return fail(origin.error());
  auto reached = origin->map_device();
  if (!reached) return fail(reached.error());
  if (auto usable = engines.mover->wait(reached->point()); !usable) return fail(usable.error());
  auto view = origin->export_view();
  if (!view) return fail(view.error());
  auto taken = engines.accelerator.import_view(*view);
  if (!taken) return fail(taken.error());
  auto shared = give_out(engines, *std::move(taken), std::move(view->pieces.front().fd));
  if (!shared) return shared;
  shared->origin = *std::move(origin);
  shared->origin_mapping = *std::move(reached);
  return shared;
}

BufferSource memory_source(const Engines& engines) {
  return {.description = {.heap = "udmabuf",
                          .largest = 64_MiB,  // its default limit
                          .can = {Use::cpu_map, Use::pin, Use::vmap, Use::attach, Use::charged}},
          .allocate = [&engines](ByteCount size) -> Result<UniqueFd> {
            auto made = share(engines, size);
            if (!made) return fail(made.error());
            return std::move(made->dma_buf);
          }};
}

Result<void> say_who_has_it(const SharedMemory& memory) {
  const auto accelerators = memory.buffer.export_view();
  if (!accelerators) return fail(accelerators.error());
  if (memory.origin) {
    const auto movers = memory.origin->export_view();
    if (!movers) return fail(movers.error());
    if (identity_of(movers->pieces.front().fd) != identity_of(memory.memory_file))
      return fail(Errc::fault, "mover and accelerator have different memory");
    std::printf("mover and accelerator have memory file %s, ",
                describe(identity_of(memory.memory_file)).c_str());
  }
  if (is_dma_buf(accelerators->pieces.front().fd.view()) &&
      identity_of(accelerators->pieces.front().fd) != identity_of(memory.dma_buf))
    return fail(Errc::fault, "camera and display were given other memory than the accelerator's");
  std::printf("accelerator, camera and display dma-buf %s of it\n",
              describe(identity_of(memory.dma_buf)).c_str());
  return {};
}

void photograph(const std::string& folder, const SharedMemory& shown) {
  const std::filesystem::path name = std::filesystem::path(folder) / "camera";
  if (const auto pixels = shown.buffer.map_cpu()) {
    const auto bytes = std::as_bytes(pixels->bytes());
    std::ofstream(name.string() + ".raw", std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes.data()),
               static_cast<std::streamsize>(bytes.size()));
  }
  const std::filesystem::path wanted = name.string() + ".wanted";
  std::ofstream(wanted).close();
  for (int tries = 0; std::filesystem::exists(wanted) && tries < 600; ++tries)
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
}
