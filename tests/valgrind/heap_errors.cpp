// SPDX-License-Identifier: Apache-2.0
//
// A program with one error, for Valgrind to find: heap_errors CASE. tests/valgrind/CMakeLists.txt says
// what it must report.
#include <accelmm/heap.hpp>

#include <array>
#include <cstdio>
#include <cstring>
#include <string_view>

namespace {

using namespace accelmm::literals;

alignas(4096) std::array<std::byte, 4 << 20> memory;

// So that no compiler knows what becomes of it.
volatile char sink;

int run(std::string_view name, accelmm::Heap& heap, accelmm::ByteCount size) {
  const auto piece = heap.allocate(size);
  if (!piece) return 2;
  auto* const bytes = static_cast<volatile char*>(piece->pointer);
  if (name == "uninitialised") {
    if (bytes[3] != 0) sink = 1;
  } else {
    for (std::uint64_t i = 0; i < size.value(); ++i) bytes[i] = 7;
  }
  if (name == "overflow") bytes[size.value()] = 1;
  if (name == "leak") return 0;
  if (!heap.free(piece->pointer)) return 2;
  if (name == "use-after-free") sink = bytes[0];
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) return 2;
  auto source = accelmm::SpanHeapSource::create(memory);
  if (!source) return 2;
  auto heap = accelmm::Heap::create({.source = &*source});
  if (!heap) return 2;
  const int outcome = run(argv[1], *heap, std::string_view(argv[2]) == "small" ? 100_B : 100_KiB);
  // The heap lives on: what is not freed now is lost.
  heap->validate();
  std::puts("done");
  return outcome;
}
