// SPDX-License-Identifier: Apache-2.0
#include <accelmm/mmu/table_sink.hpp>
#include <accelmm/mmu/words.hpp>

#include <atomic>

namespace accelmm::mmu {

void WriteThroughSink::write(const WordRun& run) {
  void* const out = view_ + (run.at.value() - begin_.value());
  // A single word may be a link: what it leads to must not be left behind in write-combining buffers.
  if (run.count == 1) std::atomic_thread_fence(std::memory_order_seq_cst);
  if (run.word_bytes == sizeof(std::uint64_t))
    fill_words(static_cast<std::uint64_t*>(out), run.count, run.entry, run.step);
  else
    fill_words(static_cast<std::uint32_t*>(out), run.count, static_cast<std::uint32_t>(run.entry),
               static_cast<std::uint32_t>(run.step));
}

// Stores to write-combined memory wait in buffers of the processor until a full fence.
void WriteThroughSink::sync() {
  std::atomic_thread_fence(std::memory_order_seq_cst);
}

}  // namespace accelmm::mmu
