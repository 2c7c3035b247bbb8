// SPDX-License-Identifier: Apache-2.0
//
// The heaps from the installed package: jemalloc is in it, and the program's malloc stays its own.
#include <accelmm/heap.hpp>
#include <accelmm/jemalloc_heap.hpp>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include <dlfcn.h>

namespace {

alignas(4096) std::array<std::byte, 8 << 20> memory;

int failed(const char* what) {
  std::fprintf(stderr, "consumer_cpp: %s\n", what);
  return 1;
}

template <class SomeHeap>
bool serves(SomeHeap& heap) {
  const auto piece = heap.allocate(accelmm::ByteCount(100));
  return piece && piece->pointer >= memory.data() &&
         piece->pointer < memory.data() + memory.size() && heap.free(piece->pointer);
}

}  // namespace

int main() {
  auto source = accelmm::SpanHeapSource::create(memory);
  if (!source) return failed(source.error().what);
  {
    auto heap = accelmm::Heap::create({.source = &*source});
    if (!heap || !serves(*heap)) return failed("the heap does not serve");
  }
  auto jemalloc = accelmm::JemallocHeap::create({.source = &*source});
  if (!jemalloc || !serves(*jemalloc)) return failed("jemalloc does not serve");

  // Where this program's malloc is: in the C library, or in the sanitizer's that replaced it.
  void* (*volatile own)(std::size_t) = &std::malloc;
  Dl_info info{};
  if (dladdr(reinterpret_cast<void*>(own), &info) == 0) return failed("malloc is nowhere");
  if (std::strstr(info.dli_fname, "libc.so") == nullptr &&
      std::strstr(info.dli_fname, "san.so") == nullptr)
    return failed("malloc is not the C library's");
  return 0;
}
