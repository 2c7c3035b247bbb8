// SPDX-License-Identifier: Apache-2.0
//
// jemalloc's archive, linked with all its symbols renamed (CMakeLists.txt): the program's malloc
// stays the C library's. It cannot be loaded at run time, since it wants static TLS.
#include "peers/peer.hpp"

#include <cstddef>

extern "C" {
void* accelmm_peer_jemalloc_malloc(std::size_t size);
void* accelmm_peer_jemalloc_aligned_alloc(std::size_t alignment, std::size_t size);
void accelmm_peer_jemalloc_free(void* memory);
int accelmm_peer_jemalloc_mallctl(const char* name, void* old_value, std::size_t* old_size,
                                  void* new_value, std::size_t new_size);
}

namespace accelmm::bench {

Peer jemalloc_peer() {
  Peer peer;
  peer.name = "jemalloc";
  peer.allocate = accelmm_peer_jemalloc_malloc;
  peer.allocate_aligned = accelmm_peer_jemalloc_aligned_alloc;
  peer.free = accelmm_peer_jemalloc_free;
  const char* version = nullptr;
  std::size_t size = sizeof version;
  if (accelmm_peer_jemalloc_mallctl("version", &version, &size, nullptr, 0) != 0)
    peer.missing = "mallctl does not answer";
  else
    peer.object = object_of(reinterpret_cast<const void*>(peer.allocate)) +
                  " (libjemalloc_pic.a, renamed) " + version;
  return peer;
}

}  // namespace accelmm::bench
