// SPDX-License-Identifier: Apache-2.0
#include "capi/guarded.hpp"
#include "capi/session.hpp"
#include "capi/view.hpp"
#include "client/shortage_calls.hpp"

#include <accelmm/client.hpp>

#include <algorithm>
#include <cerrno>
#include <cstring>

extern "C" {

int accelmm_shortage_read(accelmm_session* session, uint64_t bytes, uint32_t flags,
                          struct accelmm_shortage* shortage, size_t size) {
  if (session == nullptr || shortage == nullptr || size == 0) return -EINVAL;
  return accelmm::guarded([&] {
    const auto told = accelmm::read_shortage(*session->link, accelmm::ByteCount(bytes), flags);
    if (!told) return accelmm::to_c(told.error());
    accelmm::extend_to_c(*told, shortage, size);
    return 0;
  });
}

int accelmm_memory_defragment(accelmm_session* session, uint64_t budget, uint64_t run,
                              struct accelmm_defragment* outcome, size_t size) {
  if (session == nullptr || outcome == nullptr || size == 0) return -EINVAL;
  return accelmm::guarded([&] {
    const auto made =
        accelmm::make_room(*session->link, accelmm::ByteCount(budget), accelmm::ByteCount(run));
    if (!made) return accelmm::to_c(made.error());
    accelmm::extend_to_c(*made, outcome, size);
    return 0;
  });
}

int accelmm_shortage_text(const struct accelmm_shortage* shortage, size_t size, char* text,
                          size_t capacity) {
  if (shortage == nullptr || size == 0 || (text == nullptr && capacity != 0)) return -EINVAL;
  return accelmm::guarded([&] {
    accelmm_shortage known = {};
    std::memcpy(&known, shortage, std::min(size, sizeof known));
    const auto words = accelmm::shortage_text(known);
    if (!words) return accelmm::to_c(words.error());
    if (capacity != 0) {
      const size_t length = std::min(words->size(), capacity - 1);
      std::memcpy(text, words->data(), length);
      text[length] = '\0';
    }
    return static_cast<int>(words->size());
  });
}

}  // extern "C"
