// SPDX-License-Identifier: Apache-2.0
#include "peers/peer.hpp"

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>

#include <dlfcn.h>

namespace accelmm::bench {

std::string object_of(const void* function) {
  Dl_info info{};
  if (function == nullptr || dladdr(function, &info) == 0 || info.dli_fname == nullptr)
    return "no object";
  return info.dli_fname;
}

namespace {

const std::array<Peer, malloc_peer_names.size()>& malloc_peers() {
  static const std::array<Peer, malloc_peer_names.size()> peers{
      glibc_peer(), jemalloc_peer(),    mimalloc_peer(),          tcmalloc_peer(),
      tbb_peer(),   dpdk_malloc_peer(), boost_interprocess_peer()};
  return peers;
}

}  // namespace

const Peer& malloc_peer(std::string_view name) {
  const auto found = std::ranges::find(malloc_peers(), name, &Peer::name);
  if (found == malloc_peers().end()) std::abort();
  return *found;
}

void print_peers() {
  for (const Peer& peer : malloc_peers())
    std::printf("%-20s %s%s%s\n", peer.name.c_str(), peer.object.c_str(),
                peer.missing.empty() ? "" : "MISSING: ", peer.missing.c_str());
}

}  // namespace accelmm::bench
