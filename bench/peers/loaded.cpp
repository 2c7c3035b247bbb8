// SPDX-License-Identifier: Apache-2.0
//
// The mallocs that come as shared objects, and the program's own. RTLD_LOCAL keeps their malloc out
// of everybody else's symbol lookup, so that loading one replaces nothing.
#include "peers/peer.hpp"

#include <cstddef>
#include <string>

#include <dlfcn.h>
#include <gnu/libc-version.h>

namespace accelmm::bench {
namespace {

template <class Function>
Function* find(void* library, const char* name) {
  return reinterpret_cast<Function*>(dlsym(library, name));
}

// Says what is wrong if one of the functions is absent or lies in another object than the first.
std::string flaw_of(const Peer& peer) {
  if (peer.allocate == nullptr || peer.allocate_aligned == nullptr || peer.free == nullptr)
    return "a function is not in it";
  const std::string object = object_of(reinterpret_cast<const void*>(peer.allocate));
  if (object_of(reinterpret_cast<const void*>(peer.allocate_aligned)) != object ||
      object_of(reinterpret_cast<const void*>(peer.free)) != object)
    return "its functions lie in several objects";
  return {};
}

struct Loaded {
  void* library;
  Peer peer;
};

Loaded load(const char* name, const char* file) {
  Loaded loaded{dlopen(file, RTLD_NOW | RTLD_LOCAL), {}};
  loaded.peer.name = name;
  if (loaded.library == nullptr) loaded.peer.missing = dlerror();
  return loaded;
}

// A malloc under its standard names, which must lie in the object that was loaded.
Loaded load_malloc(const char* name, const char* file) {
  Loaded loaded = load(name, file);
  Peer& peer = loaded.peer;
  if (loaded.library == nullptr) return loaded;
  peer.allocate = find<void*(std::size_t)>(loaded.library, "malloc");
  peer.allocate_aligned = find<void*(std::size_t, std::size_t)>(loaded.library, "aligned_alloc");
  peer.free = find<void(void*)>(loaded.library, "free");
  peer.object = object_of(reinterpret_cast<const void*>(peer.allocate));
  peer.missing = flaw_of(peer);
  if (peer.missing.empty() && peer.object.find(file) == std::string::npos)
    peer.missing.append("its malloc is in ").append(peer.object);
  return loaded;
}

void* (*tbb_aligned)(std::size_t size, std::size_t alignment) = nullptr;

}  // namespace

Peer glibc_peer() {
  Peer peer;
  peer.name = "glibc";
  peer.allocate = find<void*(std::size_t)>(RTLD_DEFAULT, "malloc");
  peer.allocate_aligned = find<void*(std::size_t, std::size_t)>(RTLD_DEFAULT, "aligned_alloc");
  peer.free = find<void(void*)>(RTLD_DEFAULT, "free");
  const std::string object = object_of(reinterpret_cast<const void*>(peer.allocate));
  peer.missing = flaw_of(peer);
  if (peer.missing.empty() && object != object_of(reinterpret_cast<const void*>(
                                            dlsym(RTLD_DEFAULT, "gnu_get_libc_version"))))
    peer.missing.append("the program's malloc is not libc's but in ").append(object);
  peer.object = object;
  peer.object.append(" ").append(gnu_get_libc_version());
  return peer;
}

Peer mimalloc_peer() {
  Loaded loaded = load_malloc("mimalloc", "libmimalloc.so.2");
  if (loaded.library == nullptr) return loaded.peer;
  if (auto* version = find<int()>(loaded.library, "mi_version"))
    loaded.peer.object.append(" ").append(std::to_string(version()));
  return loaded.peer;
}

Peer tcmalloc_peer() {
  Loaded loaded = load_malloc("tcmalloc", "libtcmalloc_minimal.so.4");
  if (loaded.library == nullptr) return loaded.peer;
  if (auto* version = find<const char*(int*, int*, const char**)>(loaded.library, "tc_version")) {
    int major = 0;
    int minor = 0;
    const char* patch = nullptr;
    loaded.peer.object.append(" ").append(version(&major, &minor, &patch));
  }
  return loaded.peer;
}

Peer tbb_peer() {
  Loaded loaded = load("tbb", "libtbbmalloc.so.2");
  Peer& peer = loaded.peer;
  if (loaded.library == nullptr) return peer;
  peer.allocate = find<void*(std::size_t)>(loaded.library, "scalable_malloc");
  peer.free = find<void(void*)>(loaded.library, "scalable_free");
  tbb_aligned = find<void*(std::size_t, std::size_t)>(loaded.library, "scalable_aligned_malloc");
  peer.object = object_of(reinterpret_cast<const void*>(peer.allocate));
  if (peer.allocate == nullptr || peer.free == nullptr || tbb_aligned == nullptr)
    peer.missing = "a function is not in it";
  peer.allocate_aligned = [](std::size_t alignment, std::size_t size) {
    return tbb_aligned(size, alignment);
  };
  return peer;
}

}  // namespace accelmm::bench
