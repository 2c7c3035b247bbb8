// SPDX-License-Identifier: Apache-2.0
//
// Runs examples/05_camera in the guest, with the edu device beside the accelerator, and compares what
// the screen shows, photographed from outside, with what lies in the buffer and with what the camera,
// the accelerator and the edu device must have made of it.
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace accelmm::kernel_test {
namespace {

using std::filesystem::path;

constexpr int width = 640;
constexpr int height = 480;

path build_folder() {
  return std::filesystem::read_symlink("/proc/self/exe").parent_path().parent_path().parent_path();
}

// Where the host takes pictures: tools/guest_machine.py.
path photograph_folder() {
  const char* const share = std::getenv("ACCELMM_GUEST_SHARE");
  return path(share == nullptr ? "" : share) / "photograph";
}

std::vector<std::uint8_t> bytes_of(const path& file) {
  std::ifstream stream(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

// The pixels of a P6 picture, 3 bytes each.
std::vector<std::uint8_t> pixels_of(const path& picture) {
  const std::vector<std::uint8_t> bytes = bytes_of(picture);
  std::istringstream header(std::string(bytes.begin(), bytes.begin() + 32));
  std::string kind;
  int columns = 0;
  int rows = 0;
  int most = 0;
  header >> kind >> columns >> rows >> most;
  EXPECT_EQ("P6", kind);
  EXPECT_EQ(width, columns);
  EXPECT_EQ(height, rows);
  return {bytes.end() - std::ptrdiff_t{3} * width * height, bytes.end()};
}

using Colour = std::array<unsigned, 3>;

Colour colour(const std::vector<std::uint8_t>& picture, std::size_t pixel) {
  return {picture[3 * pixel], picture[3 * pixel + 1], picture[3 * pixel + 2]};
}

// A step of RGB565 is 8.
bool close(const Colour& a, const Colour& b) {
  for (std::size_t i = 0; i < 3; ++i) {
    if (a[i] > b[i] + 8 || b[i] > a[i] + 8) return false;
  }
  return true;
}

// A program that with_driver runs with the folder of the edu device's nodes: the example beside a
// driver process of its own.
path beside_edu(const path& with_driver, const path& driver, const path& example) {
  path script = path(testing::TempDir()) / "beside_edu";
  std::ofstream(script) << "#!/bin/sh\nACCELMM_EDU_DIRECTORY=$1 exec " << with_driver.string()
                        << " " << driver.string() << " " << example.string() << "\n";
  std::filesystem::permissions(script, std::filesystem::perms::owner_all);
  return script;
}

TEST(CameraExample, TheScreenShowsWhatTheCameraFilledTheAcceleratorInvertedAndEduMoved) {
  const path examples = build_folder() / "examples";
  const path with_driver = std::filesystem::weakly_canonical(
      build_folder() / path(__FILE__).parent_path() / "../../../examples/with_driver");
  const path photographs = photograph_folder();
  ASSERT_EQ(0, ::setenv("ACCELMM_PHOTOGRAPH_FOLDER", photographs.c_str(), 1));
  const path script =
      beside_edu(with_driver, examples / "example_01_driver", examples / "example_05_camera");
  const std::string command = with_driver.string() + " " +
                              (build_folder() / "apps" / "accelmm-edu").string() + " " +
                              script.string();
  ASSERT_EQ(0, std::system(command.c_str())) << command;

  const auto raw = bytes_of(photographs / "camera.raw");
  const auto shown = pixels_of(photographs / "camera.ppm");
  ASSERT_EQ(std::size_t{2} * width * height, raw.size())
      << "they agreed on another format than RG16";
  ASSERT_EQ(std::size_t{3} * width * height, shown.size());
  int wrong = 0;
  for (std::size_t pixel = 0; pixel < std::size_t{width} * height; ++pixel) {
    const auto word = static_cast<unsigned>(raw[2 * pixel] | raw[2 * pixel + 1] << 8);
    const Colour ours = {(word >> 11) * 255 / 31, (word >> 5 & 63) * 255 / 63,
                         (word & 31) * 255 / 31};
    if (!close(ours, colour(shown, pixel))) ++wrong;
  }
  EXPECT_EQ(0, wrong) << "pixels on the screen that are not those of the buffer";
  // Below vivid's text, the middle of each of its eight bars, which are 75 % bright: white, yellow,
  // cyan, green, magenta, red, blue, black. Shown is what is left of 100 %.
  for (std::size_t bar = 0; bar < 8; ++bar) {
    const auto channel = [bar](unsigned mask) { return (bar & mask) != 0 ? 255U : 64U; };
    const Colour expected = {channel(2), channel(4), channel(1)};
    const auto at = [bar](std::size_t row) { return row * width + bar * 80 + 40; };
    EXPECT_TRUE(close(expected, colour(shown, at(400)))) << bar;
    EXPECT_TRUE(close(expected, colour(shown, at(299)))) << bar << " above the strip";
    EXPECT_TRUE(close(expected, colour(shown, at(303)))) << bar << " below the strip";
    // The strip begins with the second bar, and goes on with the next row's first.
    const std::size_t before = ((bar + 7) % 8) * 80 + 40;
    for (std::size_t row = 300; row < 303; ++row)
      EXPECT_TRUE(close(expected, colour(shown, row * width + before))) << bar << " in row " << row;
  }
}

}  // namespace
}  // namespace accelmm::kernel_test
