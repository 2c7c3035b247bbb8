// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

/// Pictures of what the guest's display scans out, taken by the host from outside the guest.
namespace accelmm::kernel_test {

class Photograph {
 public:
  using Pixel = std::array<std::uint8_t, 3>;  // red, green, blue

  /// Asks the host and waits. The picture stays with the results of the run, as photograph/NAME.ppm.
  /// Nothing where none came within a minute.
  [[nodiscard]] static std::optional<Photograph> take(const std::string& name) {
    const char* share = std::getenv("ACCELMM_GUEST_SHARE");
    if (share == nullptr) return std::nullopt;
    const auto wanted = std::filesystem::path(share) / "photograph" / (name + ".wanted");
    std::ofstream(wanted).put('\n');
    const auto end = std::chrono::steady_clock::now() + std::chrono::minutes(1);
    while (std::filesystem::exists(wanted)) {
      if (std::chrono::steady_clock::now() > end) return std::nullopt;
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    return read(std::filesystem::path(wanted).replace_extension("ppm"));
  }

  [[nodiscard]] std::size_t width() const { return width_; }
  [[nodiscard]] std::size_t height() const { return height_; }
  [[nodiscard]] const Pixel& at(std::size_t x, std::size_t y) const {
    return pixels_.at(y * width_ + x);
  }

 private:
  static std::optional<Photograph> read(const std::filesystem::path& path) {
    std::ifstream file(path, std::ios::binary);
    std::string magic;
    std::size_t depth = 0;
    Photograph picture;
    file >> magic >> picture.width_ >> picture.height_ >> depth;
    if (!file || magic != "P6" || depth != 255) return std::nullopt;
    file.ignore(1);
    picture.pixels_.resize(picture.width_ * picture.height_);
    file.read(reinterpret_cast<char*>(picture.pixels_.data()),
              static_cast<std::streamsize>(picture.pixels_.size() * sizeof(Pixel)));
    if (!file) return std::nullopt;
    return picture;
  }

  std::size_t width_ = 0;
  std::size_t height_ = 0;
  std::vector<Pixel> pixels_;
};

}  // namespace accelmm::kernel_test
