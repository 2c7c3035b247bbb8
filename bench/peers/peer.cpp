// SPDX-License-Identifier: Apache-2.0
#include "peers/peer.hpp"

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <system_error>

#include <boost/version.hpp>
#include <dlfcn.h>

namespace accelmm::bench {

std::string object_of(const void* function) {
  Dl_info info{};
  if (function == nullptr || dladdr(function, &info) == 0 || info.dli_fname == nullptr)
    return "no object";
  // Without the symbolic links, whose target's name has the version.
  std::error_code error;
  const auto file = std::filesystem::canonical(info.dli_fname, error);
  return error ? std::string(info.dli_fname) : file.string();
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
                peer.missing.empty() ? "" : " MISSING: ", peer.missing.c_str());
  std::printf("%-20s %s\n", "dpdk-mempool", dpdk_mempool_object().c_str());
  std::printf("%-20s inlined (Boost headers) %s\n", "boost-pool", BOOST_LIB_VERSION);
}

}  // namespace accelmm::bench
