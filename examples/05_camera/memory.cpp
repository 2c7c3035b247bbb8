// SPDX-License-Identifier: Apache-2.0
#include "memory.hpp"

#include <cerrno>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <thread>

#include <fcntl.h>
#include <linux/udmabuf.h>
#include <sys/ioctl.h>
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

Result<SharedMemory> share(const Client& accelerator, ByteCount size) {
  auto buffer = accelerator.allocate(size);
  if (!buffer) return fail(buffer.error());
  auto mapping = buffer->map_device();
  if (!mapping) return fail(mapping.error());
  if (auto usable = accelerator.wait(mapping->point()); !usable) return fail(usable.error());
  auto view = buffer->export_view();
  if (!view) return fail(view.error());
  if (view->pieces.size() != 1) return fail(Errc::not_supported, "the export has several pieces");
  auto dma_buf = dma_buf_of(std::move(view->pieces.front()));
  if (!dma_buf) return fail(dma_buf.error());
  return SharedMemory{*std::move(buffer), *std::move(mapping), *std::move(dma_buf)};
}

BufferSource memory_source(const Client& accelerator) {
  return {.description = {.heap = "udmabuf",
                          .largest = 64_MiB,  // its default limit
                          .can = {Use::cpu_map, Use::pin, Use::vmap, Use::attach, Use::charged}},
          .allocate = [&accelerator](ByteCount size) -> Result<UniqueFd> {
            auto made = share(accelerator, size);
            if (!made) return fail(made.error());
            return std::move(made->dma_buf);
          }};
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
