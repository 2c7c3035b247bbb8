// SPDX-License-Identifier: Apache-2.0
#include "capi/guarded.hpp"
#include "capi/session.hpp"
#include "capi/view.hpp"
#include "client/buffer_calls.hpp"

#include <memory>
#include <utility>

/// What an application's accelmm_mapping points to.
struct accelmm_mapping {
  accelmm::CpuMapping pages;
};

extern "C" {

int accelmm_buffer_allocate(accelmm_session* session, uint64_t size, uint32_t domain,
                            uint32_t flags, struct accelmm_buffer* buffer) {
  return accelmm_buffer_allocate_backed(session, size, domain, flags, nullptr, buffer);
}

int accelmm_buffer_allocate_backed(accelmm_session* session, uint64_t size, uint32_t domain,
                                   uint32_t flags, const struct accelmm_backing_request* backing,
                                   struct accelmm_buffer* buffer) {
  using namespace accelmm;
  if (session == nullptr || buffer == nullptr) return -EINVAL;
  return guarded([&] {
    const accelmm_backing_request wanted =
        backing == nullptr ? accelmm_backing_request{} : *backing;
    const auto made = allocate_buffer(*session->link, {ByteCount(size), domain, flags, wanted});
    if (!made) return to_c(made.error());
    *buffer = buffer_to_c(*made);
    return 0;
  });
}

int accelmm_buffer_get_backing(accelmm_session* session, uint64_t handle, uint64_t deadline_ns,
                               struct accelmm_backing* backing, size_t size) {
  using namespace accelmm;
  if (session == nullptr || backing == nullptr || size == 0) return -EINVAL;
  return guarded([&] {
    const auto facts = read_backing(*session->link, handle, deadline_ns);
    if (!facts) return to_c(facts.error());
    extend_to_c(*facts, backing, size);
    return 0;
  });
}

int accelmm_buffer_free(accelmm_session* session, uint64_t handle) {
  if (session == nullptr) return -EINVAL;
  return accelmm::guarded(
      [&] { return accelmm::to_c(accelmm::free_buffer(*session->link, handle)); });
}

int accelmm_buffer_map(accelmm_session* session, const struct accelmm_view* view, uint32_t access,
                       accelmm_mapping** mapping) {
  using namespace accelmm;
  if (session == nullptr || view == nullptr || mapping == nullptr) return -EINVAL;
  return guarded([&] {
    const auto piece = view_from_c(*view);
    if (!piece) return to_c(piece.error());
    const auto allowed = access_from_c(access);
    if (!allowed) return to_c(allowed.error());
    auto pages = map_cpu(*session->link, *piece, *allowed);
    if (!pages) return to_c(pages.error());
    *mapping = new accelmm_mapping{std::move(*pages)};
    return 0;
  });
}

void* accelmm_mapping_address(const accelmm_mapping* mapping) {
  return mapping == nullptr ? nullptr : mapping->pages.bytes().data();
}

uint64_t accelmm_mapping_length(const accelmm_mapping* mapping) {
  return mapping == nullptr ? 0 : mapping->pages.bytes().size();
}

void accelmm_mapping_close(accelmm_mapping* mapping) {
  delete mapping;
}

}  // extern "C"
