// SPDX-License-Identifier: Apache-2.0
//
// Boost.Interprocess's best fit over one buffer, without its mutex: it is measured by one thread.
#include "peers/peer.hpp"

#include <cstdlib>
#include <new>
#include <string>

#include <boost/interprocess/indexes/iset_index.hpp>
#include <boost/interprocess/managed_external_buffer.hpp>
#include <boost/interprocess/mem_algo/rbtree_best_fit.hpp>
#include <boost/interprocess/sync/mutex_family.hpp>
#include <boost/version.hpp>

namespace accelmm::bench {
namespace {

namespace ipc = boost::interprocess;
using Segment =
    ipc::basic_managed_external_buffer<char, ipc::rbtree_best_fit<ipc::null_mutex_family>,
                                       ipc::iset_index>;

// Room for the largest work: 8 192 live pieces of 8.5 KiB, and 2 MiB aligned to 2 MiB.
constexpr std::size_t buffer_bytes = std::size_t{256} << 20;

Segment* segment = nullptr;

std::string start() {
  if (segment != nullptr) return {};
  void* buffer = std::aligned_alloc(4096, buffer_bytes);
  if (buffer == nullptr) return "no memory for its buffer";
  static Segment made(ipc::create_only, buffer, buffer_bytes);
  segment = &made;
  return {};
}

}  // namespace

Peer boost_interprocess_peer() {
  Peer peer;
  peer.name = "boost-interprocess";
  peer.allocate = [](std::size_t size) { return segment->allocate(size, std::nothrow); };
  peer.allocate_aligned = [](std::size_t alignment, std::size_t size) {
    return segment->allocate_aligned(size, alignment, std::nothrow);
  };
  peer.free = [](void* memory) { segment->deallocate(memory); };
  peer.start = start;
  peer.object = object_of(reinterpret_cast<const void*>(peer.allocate)) + " (Boost headers) " +
                BOOST_LIB_VERSION;
  return peer;
}

}  // namespace accelmm::bench
