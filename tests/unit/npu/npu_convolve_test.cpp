// SPDX-License-Identifier: Apache-2.0
#include "unit/npu/fake_memory.hpp"

#include <accelmm/sim/npu_model.hpp>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <memory>
#include <random>
#include <vector>

#include <gtest/gtest.h>

namespace accelmm::sim {
namespace {

using test::FakeMemory;
using test::HandTables;
using test::run;

constexpr std::uint32_t asid = 9;
constexpr std::uint64_t source = 0x10000000;
constexpr std::uint64_t destination = 0x20000000;
constexpr std::uint64_t source_memory = 0x400000;
constexpr std::uint64_t destination_memory = 0x800000;
constexpr std::uint64_t pages = 1024;

using Image = std::vector<std::uint8_t>;

/// The definition, pixel by pixel, in 64-bit arithmetic and without a thought of speed.
Image reference(const NpuConvolve& c, const Image& in, Image out) {
  const auto clamped = [](std::int64_t at, std::int64_t size) {
    return at < 0 ? 0 : at >= size ? size - 1 : at;
  };
  for (std::int64_t y = 0; y < c.height; ++y)
    for (std::int64_t x = 0; x < c.width; ++x) {
      std::int64_t sum = 0;
      for (std::int64_t dy = -1; dy <= 1; ++dy)
        for (std::int64_t dx = -1; dx <= 1; ++dx) {
          const std::int64_t from =
              clamped(y + dy, c.height) * static_cast<std::int64_t>(c.source_stride.value()) +
              clamped(x + dx, c.width);
          sum += std::int64_t{c.kernel[static_cast<std::size_t>((dy + 1) * 3 + dx + 1)]} *
                 in[static_cast<std::size_t>(from)];
        }
      // Division that rounds towards minus infinity.
      const std::int64_t divisor = std::int64_t{1} << c.shift;
      std::int64_t pixel = sum / divisor - (sum % divisor < 0 ? 1 : 0);
      if (c.sum == NpuSum::absolute) pixel = std::abs(pixel);
      const auto at =
          static_cast<std::size_t>(y * static_cast<std::int64_t>(c.destination_stride.value()) + x);
      pixel += c.bias;
      if (c.onto == NpuDestination::add) pixel += out[at];
      out[at] = static_cast<std::uint8_t>(std::clamp<std::int64_t>(pixel, 0, 255));
    }
  return out;
}

NpuConvolve identity(std::uint32_t width, std::uint32_t height) {
  return {.source = DeviceAddr(source),
          .destination = DeviceAddr(destination),
          .source_stride = ByteCount(width),
          .destination_stride = ByteCount(width),
          .width = width,
          .height = height,
          .kernel = {0, 0, 0, 0, 1, 0, 0, 0, 0}};
}

struct Convolve : testing::Test {
  FakeMemory memory{16 << 20};
  HandTables tables{memory, 0x100000};
  std::unique_ptr<NpuModel> model = *NpuModel::create(memory);
  std::mt19937 random{20240607};

  void SetUp() override {
    ASSERT_TRUE(model->set_root(asid, tables.root()).has_value());
    tables.map_pages(source, source_memory, pages);
    tables.map_pages(destination, destination_memory, pages);
  }
  std::uint32_t draw(std::uint32_t below) { return static_cast<std::uint32_t>(random()) % below; }
  Image noise(std::size_t size) {
    Image image(size);
    for (auto& pixel : image) pixel = static_cast<std::uint8_t>(draw(256));
    return image;
  }
  /// Runs the command over noise and compares the whole destination, gaps and surroundings too.
  void expect_right(const NpuConvolve& c) {
    const std::size_t in_size = c.source_stride.value() * c.height + 64;
    const std::size_t out_size = c.destination_stride.value() * c.height + 64;
    const Image in = noise(in_size);
    const Image before = noise(out_size);
    memory.fill(source_memory + c.source.value() - source, in);
    memory.fill(destination_memory + c.destination.value() - destination, before);
    const auto result = run(*model, asid, c);
    ASSERT_TRUE(result.status.has_value()) << result.status.error().what;
    EXPECT_EQ(reference(c, in, before),
              memory.bytes(destination_memory + c.destination.value() - destination, out_size));
  }
  Errc error_of(const NpuConvolve& c) {
    const auto result = run(*model, asid, c);
    EXPECT_FALSE(result.status.has_value());
    return result.status ? Errc{} : result.status.error().code;
  }
};

TEST_F(Convolve, RandomCommandsGiveWhatTheDefinitionSays) {
  for (int round = 0; round < 200; ++round) {
    NpuConvolve c = identity(1 + draw(90), 1 + draw(40));
    c.source += ByteCount(draw(5000));
    c.destination += ByteCount(draw(5000));
    c.source_stride = ByteCount(c.width + draw(50));
    c.destination_stride = ByteCount(c.width + draw(50));
    for (auto& weight : c.kernel) weight = static_cast<std::int8_t>(draw(256));
    c.shift = draw(12);
    c.bias = static_cast<std::int32_t>(draw(512)) - 256;
    c.sum = draw(2) != 0 ? NpuSum::absolute : NpuSum::as_is;
    c.onto = draw(2) != 0 ? NpuDestination::add : NpuDestination::replace;
    expect_right(c);
    if (HasFailure()) FAIL() << "round " << round;
  }
}

TEST_F(Convolve, TheSmallestImagesAreTheirOwnNeighbours) {
  for (const auto& [width, height] :
       {std::pair{1U, 1U}, {1U, 2U}, {2U, 1U}, {1U, 77U}, {77U, 1U}, {2U, 2U}, {3U, 3U}}) {
    NpuConvolve c = identity(width, height);
    c.kernel = {1, -2, 3, -4, 5, -6, 7, -8, 9};
    expect_right(c);
  }
}

TEST_F(Convolve, ARowMayFillALineOfItsMemory) {
  NpuConvolve c = identity(NpuModel::max_width, 4);
  c.kernel = {-1, -1, -1, -1, 8, -1, -1, -1, -1};
  c.sum = NpuSum::absolute;
  expect_right(c);
  ++c.width;
  c.source_stride = c.destination_stride = ByteCount(c.width);
  EXPECT_EQ(Errc::invalid_argument, error_of(c));
}

TEST_F(Convolve, TheExtremesOfEveryFactorDoNotOverflow) {
  NpuConvolve c = identity(8, 8);
  memory.fill(source_memory, Image(64, 255));
  const auto pixel = [&] {
    EXPECT_TRUE(run(*model, asid, c).status.has_value());
    return memory.bytes(destination_memory, 1)[0];
  };
  c.kernel.fill(-128);
  EXPECT_EQ(0, pixel());
  c.sum = NpuSum::absolute;
  c.bias = std::numeric_limits<std::int32_t>::max();
  EXPECT_EQ(255, pixel());
  c.bias = std::numeric_limits<std::int32_t>::min();
  EXPECT_EQ(0, pixel());
  c.bias = 0;
  c.shift = 31;
  EXPECT_EQ(1, pixel());  // -1 after the shift towards minus infinity
  c.sum = NpuSum::as_is;
  c.kernel.fill(127);
  EXPECT_EQ(0, pixel());
}

TEST_F(Convolve, AnImageMayBeItsOwnDestination) {
  NpuConvolve c = identity(300, 50);
  c.kernel = {1, 2, 1, 2, 4, 2, 1, 2, 1};
  c.shift = 4;
  const Image in = noise(300 * 50);
  memory.fill(source_memory, in);
  c.destination = c.source;
  ASSERT_TRUE(run(*model, asid, c).status.has_value());
  EXPECT_EQ(reference(c, in, in), memory.bytes(source_memory, in.size()));
}

TEST_F(Convolve, AddingNeedsTheRightToReadTheDestination) {
  tables.map_small(destination, destination_memory, test::leaf_write);
  NpuConvolve c = identity(4, 4);
  EXPECT_TRUE(run(*model, asid, c).status.has_value());
  c.onto = NpuDestination::add;
  const auto result = run(*model, asid, c);
  ASSERT_TRUE(result.fault.has_value());
  EXPECT_EQ(DeviceAddr(destination), result.fault->address);
  EXPECT_EQ(Access::read, result.fault->access);
  EXPECT_EQ(NpuFaultKind::not_permitted, result.fault->kind);
}

TEST_F(Convolve, FaultsAtTheFirstByteThatItCannotReach) {
  NpuConvolve c = identity(1000, 10);
  c.source = DeviceAddr(source + pages * 4096 - 5000);  // row 5 begins at the end of what is mapped
  const auto result = run(*model, asid, c);
  ASSERT_TRUE(result.fault.has_value());
  EXPECT_EQ(DeviceAddr(source + pages * 4096), result.fault->address);
  EXPECT_EQ(Access::read, result.fault->access);
}

TEST_F(Convolve, RefusesSizesThatMakeNoSense) {
  EXPECT_EQ(Errc::invalid_argument, error_of(identity(0, 4)));
  EXPECT_EQ(Errc::invalid_argument, error_of(identity(4, 0)));
  NpuConvolve c = identity(4, 4);
  c.shift = 32;
  EXPECT_EQ(Errc::invalid_argument, error_of(c));
  c = identity(4, 4);
  c.source_stride = 3_B;
  EXPECT_EQ(Errc::invalid_argument, error_of(c));
  c = identity(4, 4);
  c.destination_stride = 3_B;
  EXPECT_EQ(Errc::invalid_argument, error_of(c));
}

TEST_F(Convolve, RefusesImagesThatEndBeyondSixtyFourBits) {
  const std::uint64_t top = std::numeric_limits<std::uint64_t>::max();
  NpuConvolve c = identity(4, 4);
  c.source_stride = ByteCount(top);
  EXPECT_EQ(Errc::overflow, error_of(c));
  c = identity(4, 2);
  c.destination_stride = ByteCount(top);
  EXPECT_EQ(Errc::overflow, error_of(c));
  c = identity(4, 4);
  c.source = DeviceAddr(top - 14);
  EXPECT_EQ(Errc::overflow, error_of(c));
  c = identity(4, 4);
  c.destination = DeviceAddr(top - 14);
  EXPECT_EQ(Errc::overflow, error_of(c));
  EXPECT_EQ(0U, model->statistics().bytes_read);
}

}  // namespace
}  // namespace accelmm::sim
