// SPDX-License-Identifier: Apache-2.0
#include "exchange.hpp"
#include "npu.hpp"

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace demo {
namespace {

using namespace accelmm;

/// What the second process holds until the first one has seen the drawing.
struct Drawing {
  Npu npu;
  NpuBuffer edges;
  NpuBuffer drawn;
  Export result;
};

std::uint64_t differing(std::span<const std::byte> bytes, const Picture& expected) {
  std::uint64_t count = 0;
  for (std::size_t i = 0; i < expected.pixels.size(); ++i)
    if (std::to_integer<std::uint8_t>(bytes[i]) != expected.pixels[i]) ++count;
  return count;
}

/// Receives a picture, runs accel1 on the very memory that was received, and checks the result.
Outcome<Drawing> draw(FdView socket, const std::string& directory, SecondReport& report) {
  SharedPicture shared{};
  if (auto heard = receive_bytes(socket, &shared, sizeof shared); !heard)
    return refuse(heard.error());
  const auto received = receive_export(socket);
  if (!received) return refuse("cannot receive the picture", received.error());
  const auto inode = inode_of(*received);
  if (!inode) return refuse(inode.error());
  report.inode = *inode;

  auto npu = Npu::open(1, directory);
  if (!npu) return refuse(npu.error());
  auto imported = npu->client().import_view(*received);
  if (!imported) return refuse("cannot import the picture into accel1", imported.error());
  const auto pixels = imported->map_cpu(Access::read);
  if (!pixels) return refuse("cannot look at the imported picture", pixels.error());
  auto edges = npu->map(std::move(*imported), Access::read);
  if (!edges) return refuse(edges.error());
  const ByteCount size(std::uint64_t{shared.width} * shared.height);
  if (edges->buffer.size() < size) return refuse("the picture that came is too small");
  auto drawn = npu->allocate(size, Domain::host);
  if (!drawn) return refuse(drawn.error());

  const Npu::Frame from{edges->address(), shared.width, shared.height};
  const Npu::Frame to{drawn->address(), shared.width, shared.height};
  if (auto submitted = npu->filter(draw_with_pencil, from, to); !submitted)
    return refuse(submitted.error());
  if (auto finished = npu->finish(); !finished) return refuse(finished.error());

  Picture input{shared.width, shared.height, std::vector<std::uint8_t>(size.value())};
  std::memcpy(input.pixels.data(), pixels->bytes().data(), input.pixels.size());
  const auto output = drawn->buffer.map_cpu(Access::read);
  if (!output) return refuse("cannot look at the drawing", output.error());
  report.differing_pixels = differing(output->bytes(), apply_on_cpu(draw_with_pencil, input));
  report.jobs = npu->jobs();
  auto result = drawn->buffer.export_view();
  if (!result) return refuse("cannot export the drawing", result.error());
  return Drawing{std::move(*npu), std::move(*edges), std::move(*drawn), std::move(*result)};
}

}  // namespace

int run_second_process(FdView socket, const std::string& directory) {
  SecondReport report{};
  const auto drawing = draw(socket, directory, report);
  if (!drawing) std::snprintf(report.failure, sizeof report.failure, "%s", drawing.error().c_str());
  if (!send_bytes(socket, &report, sizeof report) || !drawing) return EXIT_FAILURE;
  if (!send_export(socket, drawing->result)) return EXIT_FAILURE;
  // The session stays open until the first process has seen what it wants to see.
  char end = 0;
  (void)receive_bytes(socket, &end, sizeof end);
  return EXIT_SUCCESS;
}

}  // namespace demo
