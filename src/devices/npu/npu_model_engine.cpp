// SPDX-License-Identifier: Apache-2.0
#include "npu_model_engine.hpp"

#include <accelmm/check.hpp>

#include <algorithm>
#include <limits>
#include <utility>

namespace accelmm::sim {
namespace {

constexpr std::size_t source_lines = 3;
constexpr std::size_t destination_line = source_lines;
constexpr std::uint32_t max_shift = 31;

/// Bytes from `address` to the end of its page, at most `wanted`.
std::size_t burst_size(DeviceAddr address, std::size_t wanted) {
  const std::uint64_t to_page_end = NpuWalker::page_size - address.value() % NpuWalker::page_size;
  return static_cast<std::size_t>(std::min<std::uint64_t>(wanted, to_page_end));
}

Result<void> check_end(DeviceAddr begin, std::uint64_t length) {
  if (length > std::numeric_limits<std::uint64_t>::max() - begin.value())
    return fail(Errc::overflow, "data ends beyond 64 bits");
  return {};
}

Result<void> check_image(DeviceAddr begin, ByteCount stride, const NpuConvolve& convolve) {
  if (stride.value() < convolve.width)
    return fail(Errc::invalid_argument, "stride is shorter than a row");
  std::uint64_t length = 0;
  if (__builtin_mul_overflow(stride.value(), std::uint64_t{convolve.height} - 1, &length) ||
      __builtin_add_overflow(length, std::uint64_t{convolve.width}, &length))
    return fail(Errc::overflow, "image is larger than 64 bits can say");
  return check_end(begin, length);
}

using Rows = std::array<std::span<const std::byte>, source_lines>;

int weigh(const Rows& rows, const std::array<std::int8_t, 9>& kernel,
          const std::array<std::size_t, 3>& columns) {
  int sum = 0;
  for (std::size_t r = 0; r < rows.size(); ++r)
    for (std::size_t c = 0; c < columns.size(); ++c)
      sum += kernel[r * 3 + c] * std::to_integer<int>(rows[r][columns[c]]);
  return sum;
}

/// Computes one row; `line` holds the old pixels and receives the new ones.
void convolve_row(const NpuConvolve& convolve, const Rows& rows, std::span<std::byte> line) {
  const std::size_t last = line.size() - 1;
  for (std::size_t x = 0; x <= last; ++x) {
    const int sum = weigh(rows, convolve.kernel, {x == 0 ? 0 : x - 1, x, x == last ? last : x + 1});
    std::int64_t pixel = sum >> convolve.shift;
    if (convolve.sum == NpuSum::absolute && pixel < 0) pixel = -pixel;
    pixel += convolve.bias;
    if (convolve.onto == NpuDestination::add) pixel += std::to_integer<int>(line[x]);
    line[x] = static_cast<std::byte>(std::clamp<std::int64_t>(pixel, 0, 255));
  }
}

}  // namespace

NpuEngine::NpuEngine(NpuMmu& mmu, BetweenBursts between_bursts)
    : mmu_(mmu),
      between_bursts_(std::move(between_bursts)),
      sram_((source_lines + 1) * NpuModel::max_width) {}

Result<void> NpuEngine::check(const NpuCopy& copy) {
  if (copy.length == ByteCount(0)) return fail(Errc::invalid_argument, "nothing to copy");
  if (auto fits = check_end(copy.source, copy.length.value()); !fits) return fits;
  return check_end(copy.destination, copy.length.value());
}

Result<void> NpuEngine::check(const NpuMove& move) {
  if (move.length == ByteCount(0)) return fail(Errc::invalid_argument, "nothing to move");
  constexpr std::uint64_t most = std::numeric_limits<std::uint64_t>::max();
  if (move.length.value() > most - std::max(move.source, move.destination).value())
    return fail(Errc::overflow, "data ends beyond 64 bits");
  const auto apart = move.source < move.destination ? move.destination - move.source
                                                    : move.source - move.destination;
  if (apart < move.length) return fail(Errc::invalid_argument, "places overlap");
  return {};
}

Result<void> NpuEngine::check(const NpuConvolve& convolve) {
  if (convolve.width == 0 || convolve.height == 0)
    return fail(Errc::invalid_argument, "image has no pixels");
  if (convolve.width > NpuModel::max_width)
    return fail(Errc::invalid_argument, "row is longer than a line of the NPU's memory");
  if (convolve.shift > max_shift) return fail(Errc::invalid_argument, "shift is larger than 31");
  if (auto fits = check_image(convolve.source, convolve.source_stride, convolve); !fits)
    return fits;
  return check_image(convolve.destination, convolve.destination_stride, convolve);
}

NpuEngine::Progress NpuEngine::execute(std::uint32_t asid, const NpuCopy& copy) {
  std::uint64_t done = 0;
  while (done < copy.length.value()) {
    const DeviceAddr from = copy.source + ByteCount(done);
    const std::uint64_t left = copy.length.value() - done;
    const Line page = line(0, burst_size(from, std::min(left, NpuWalker::page_size)));
    if (auto loaded = load(asid, from, page); !loaded) return loaded;
    if (auto stored = store(asid, copy.destination + ByteCount(done), page); !stored) return stored;
    done += page.size();
  }
  return {};
}

NpuEngine::Progress NpuEngine::execute(std::uint32_t /*asid*/, const NpuMove& move) {
  for (std::uint64_t done = 0; done < move.length.value();) {
    const Line burst = line(0, std::min(move.length.value() - done, NpuWalker::page_size));
    if (between_bursts_() == Verdict::stop) return std::unexpected(Interruption{});
    if (auto moved =
            mmu_.move(move.source + ByteCount(done), move.destination + ByteCount(done), burst);
        !moved)
      return std::unexpected(Interruption{moved.error()});
    done += burst.size();
  }
  return {};
}

NpuEngine::Progress NpuEngine::execute(std::uint32_t asid, const NpuConvolve& convolve) {
  const auto row_of = [](DeviceAddr image, ByteCount stride, std::uint64_t y) {
    return image + ByteCount(stride.value() * y);
  };
  // Row y lies in line y % 3, so that the three rows around y are there without being moved.
  const auto source_line = [&](std::uint64_t y) { return line(y % source_lines, convolve.width); };
  const auto load_source = [&](std::uint64_t y) {
    return load(asid, row_of(convolve.source, convolve.source_stride, y), source_line(y));
  };
  const std::uint64_t last = std::uint64_t{convolve.height} - 1;
  if (auto loaded = load_source(0); !loaded) return loaded;
  for (std::uint64_t y = 0; y <= last; ++y) {
    if (y < last)
      if (auto loaded = load_source(y + 1); !loaded) return loaded;
    const DeviceAddr to = row_of(convolve.destination, convolve.destination_stride, y);
    const Line result = line(destination_line, convolve.width);
    if (convolve.onto == NpuDestination::add)
      if (auto loaded = load(asid, to, result); !loaded) return loaded;
    const Rows rows{source_line(y == 0 ? 0 : y - 1), source_line(y),
                    source_line(y == last ? last : y + 1)};
    convolve_row(convolve, rows, result);
    if (auto stored = store(asid, to, result); !stored) return stored;
  }
  return {};
}

NpuEngine::Progress NpuEngine::load(std::uint32_t asid, DeviceAddr from, Line line) {
  while (!line.empty()) {
    const Line burst = line.first(burst_size(from, line.size()));
    if (between_bursts_() == Verdict::stop) return std::unexpected(Interruption{});
    if (auto moved = mmu_.read(asid, from, burst); !moved)
      return std::unexpected(Interruption{moved.error()});
    line = line.subspan(burst.size());
    if (!line.empty()) from += ByteCount(burst.size());
  }
  return {};
}

NpuEngine::Progress NpuEngine::store(std::uint32_t asid, DeviceAddr to, Line line) {
  while (!line.empty()) {
    const Line burst = line.first(burst_size(to, line.size()));
    if (between_bursts_() == Verdict::stop) return std::unexpected(Interruption{});
    if (auto moved = mmu_.write(asid, to, burst); !moved)
      return std::unexpected(Interruption{moved.error()});
    line = line.subspan(burst.size());
    if (!line.empty()) to += ByteCount(burst.size());
  }
  return {};
}

NpuEngine::Line NpuEngine::line(std::size_t number, std::size_t size) {
  ACCELMM_DCHECK(number <= destination_line && size <= NpuModel::max_width);
  return Line(sram_).subspan(number * NpuModel::max_width, size);
}

}  // namespace accelmm::sim
