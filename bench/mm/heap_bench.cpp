// SPDX-License-Identifier: Apache-2.0
//
// heap-hot-SIZE and our side of heap-random-1k-16k (whose peers are in slab_bench.cpp): a heap over
// memory that the device has too, each piece with pointer and device address.
#include "heap_subject.hpp"
#include "rows.hpp"
#include "slab_sizes.hpp"
#include "subjects.hpp"
#include "workloads.hpp"

#include <accelmm/heap.hpp>
#include <accelmm/jemalloc_heap.hpp>

#include <cstdint>
#include <string>

#include <benchmark/benchmark.h>

namespace accelmm::bench {
namespace {

std::string heap_hot(std::size_t size) {
  return "heap-hot-" + std::to_string(size);
}

const bool registered = [] {
  for (const std::size_t size : slab_sizes) {
    add_malloc_rows(heap_hot(size), [=](benchmark::State& state, MallocSubject&& subject) {
      hot_pair(state, std::move(subject), {.size = size});
    });
    add_row(heap_hot(size), "ours", [=](benchmark::State& state) {
      HeapSubject<Heap> subject;
      hot_pair(state, subject, {.size = size});
      subject.heap().validate();
    });
    add_row(heap_hot(size), "ours-jemalloc", [=](benchmark::State& state) {
      HeapSubject<JemallocHeap> subject;
      hot_pair(state, subject, {.size = size});
    });
  }
  add_row("heap-random-1k-16k", "ours", [](benchmark::State& state) {
    HeapSubject<Heap> subject;
    random_replace(state, subject, {Mix::Kind::uniform, 1024, 16384}, {.pieces = 8192});
    subject.heap().validate();
  });
  add_row("heap-random-1k-16k", "ours-jemalloc", [](benchmark::State& state) {
    HeapSubject<JemallocHeap> subject;
    random_replace(state, subject, {Mix::Kind::uniform, 1024, 16384}, {.pieces = 8192});
  });
  return true;
}();

}  // namespace
}  // namespace accelmm::bench
