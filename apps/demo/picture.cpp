// SPDX-License-Identifier: Apache-2.0
#include "picture.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <memory>
#include <new>

#include <png.h>

namespace demo {
namespace {

struct CloseFile {
  void operator()(std::FILE* file) const { std::fclose(file); }
};
using File = std::unique_ptr<std::FILE, CloseFile>;

/// libpng's own picture, which it wants freed on every path.
struct PngImage : png_image {
  PngImage() : png_image{} { version = PNG_IMAGE_VERSION; }
  PngImage(const PngImage&) = delete;
  PngImage& operator=(const PngImage&) = delete;
  ~PngImage() { png_image_free(this); }
};

std::vector<std::uint8_t> luma_of(std::span<const std::uint8_t> rgb) {
  std::vector<std::uint8_t> luma(rgb.size() / 3);
  for (std::size_t i = 0; i < luma.size(); ++i) {
    const unsigned sum = 299U * rgb[3 * i] + 587U * rgb[3 * i + 1] + 114U * rgb[3 * i + 2];
    luma[i] = static_cast<std::uint8_t>((sum + 500) / 1000);
  }
  return luma;
}

}  // namespace

Outcome<LoadedPicture> load_png(const std::string& path) try {
  const File file(std::fopen(path.c_str(), "rbe"));
  if (!file) return refuse_errno("cannot open " + path, errno);
  PngImage image;
  if (png_image_begin_read_from_stdio(&image, file.get()) == 0)
    return refuse(path + " cannot be read as a PNG: " + image.message);
  const bool colour = (image.format & PNG_FORMAT_FLAG_COLOR) != 0;
  image.format = colour ? PNG_FORMAT_RGB : PNG_FORMAT_GRAY;
  const std::size_t size = std::size_t{image.width} * image.height * (colour ? 3 : 1);
  std::vector<std::uint8_t> pixels(size);
  constexpr png_color white{255, 255, 255};
  if (png_image_finish_read(&image, &white, pixels.data(), 0, nullptr) == 0)
    return refuse(path + " cannot be read as a PNG: " + image.message);
  return LoadedPicture{
      .luma = {image.width, image.height, colour ? luma_of(pixels) : std::move(pixels)},
      .kind = colour ? LoadedPicture::Kind::colour : LoadedPicture::Kind::grey};
} catch (const std::bad_alloc&) {
  return refuse(path + " does not fit in this machine's memory");
}

Outcome<void> save_png(const std::string& path, const Picture& picture) {
  File file(std::fopen(path.c_str(), "wbe"));
  if (!file) return refuse_errno("cannot write " + path, errno);
  PngImage image;
  image.width = picture.width;
  image.height = picture.height;
  image.format = PNG_FORMAT_GRAY;
  if (png_image_write_to_stdio(&image, file.get(), 0, picture.pixels.data(), 0, nullptr) == 0)
    return refuse("cannot write " + path + ": " + image.message);
  if (std::fclose(file.release()) != 0) return refuse_errno("cannot write " + path, errno);
  return {};
}

Picture side_by_side(std::initializer_list<const Picture*> pictures) {
  constexpr std::uint32_t gap = 8;
  Picture all{.height = (*pictures.begin())->height, .pixels = {}};
  for (const Picture* picture : pictures) all.width += picture->width + (all.width == 0 ? 0 : gap);
  all.pixels.assign(std::size_t{all.width} * all.height, 255);
  std::size_t left = 0;
  for (const Picture* picture : pictures) {
    for (std::size_t y = 0; y < all.height; ++y)
      std::copy_n(picture->pixels.data() + y * picture->width, picture->width,
                  all.pixels.data() + y * all.width + left);
    left += picture->width + gap;
  }
  return all;
}

}  // namespace demo
