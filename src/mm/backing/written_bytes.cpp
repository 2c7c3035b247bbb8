// SPDX-License-Identifier: Apache-2.0
#include "mm/backing/written_bytes.hpp"

#include "base/system.hpp"
#include "mm/backing/word_copy.hpp"

#include <algorithm>

#include <unistd.h>

namespace accelmm {

void clear_written(std::span<std::byte> place, FdView file) noexcept {
  std::size_t at = 0;
  while (at < place.size()) {
    const auto data = sys::seek(file, at, SEEK_DATA);
    if (!data && data.error().code == static_cast<Errc>(ENXIO)) return;  // a hole up to the end
    const auto hole = data ? sys::seek(file, *data, SEEK_HOLE) : data;
    // Whoever holds the file may change it between the calls: an answer that does not lead on is
    // none.
    const bool said = hole && *data >= at && *hole > *data;
    const std::size_t begin = said ? std::min<std::size_t>(*data, place.size()) : at;
    const std::size_t end = said ? std::min<std::size_t>(*hole, place.size()) : place.size();
    zero_shared(place.data() + begin, end - begin);
    at = end;
  }
}

}  // namespace accelmm
