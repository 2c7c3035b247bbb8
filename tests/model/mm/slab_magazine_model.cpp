// SPDX-License-Identifier: Apache-2.0
//
// A slot's words against a thread that empties the slot: each word is in one place at a time, and
// who holds it sees what its last holder did.
#include "mm/slab_magazine.hpp"
#include "model/model_check.hpp"

#include <cstdint>

namespace accelmm::test {
namespace {

enum class Fault {
  none,
  no_interrupt,       // the slot is emptied without waiting for sections that began before
  no_exclusion,       // two threads are in sections of one slot at once
  mark_not_looked_at  // whoever empties the slot takes for granted that no section was faster
};

/// Sections as they are where nothing restarts them: behind a lock, with each step visible to
/// threads outside of the slot.
template <Mutant mutant, Fault fault>
struct ModelSections {
  using Word = typename ModelAtomics<mutant>::template Atomic<std::uint64_t>;
  using Lock = rl::mutex;
  static constexpr unsigned cells = 3;

  static void enter(Lock& lock) {
    if (fault != Fault::no_exclusion) lock.lock($);
  }
  static void leave(Lock& lock) {
    if (fault != Fault::no_exclusion) lock.unlock($);
  }
  static bool store_if(unsigned, Lock& lock, const Word& check, std::uint64_t check_expected,
                       Word& target, std::uint64_t expected, std::uint64_t desired) {
    enter(lock);
    const bool same = check.load(std::memory_order_relaxed) == check_expected &&
                      target.load(std::memory_order_relaxed) == expected;
    if (same) target.store(desired, std::memory_order_release);
    leave(lock);
    return same;
  }
  static bool push_if(unsigned, Lock& lock, Word& header, std::uint64_t expected, Word& cell,
                      std::uint64_t value, std::uint64_t desired) {
    enter(lock);
    const bool same = header.load(std::memory_order_relaxed) == expected;
    if (same) {
      cell.store(value, std::memory_order_relaxed);
      header.store(desired, std::memory_order_release);
    }
    leave(lock);
    return same;
  }
  static void interrupt(Lock& lock) {
    if (fault == Fault::no_interrupt) return;
    lock.lock($);
    lock.unlock($);
  }
};

/// Two threads of one slot take words out and put them back; a third empties the slot.
template <Mutant mutant, Fault fault>
struct EmptyingASlot : rl::test_suite<EmptyingASlot<mutant, fault>, 3> {
  using Sections = ModelSections<mutant, fault>;
  using Cache = mm::SlabCacheOf<Sections>;
  static constexpr std::uint64_t first_word = 2;  // 0 and 1 are no words
  static constexpr unsigned words = 3;

  void before() {
    cache = new Cache;
    recent = new typename Sections::Word(first_word);
    for (unsigned i = 0; i < words; ++i) {
      used[i]($) = 0;
      places[i] = 0;
    }
    RL_ASSERT(cache->install(0, lock, mm::SlabWordRef(first_word), *recent));
    for (unsigned i = 1; i < words; ++i)
      RL_ASSERT(cache->push(0, lock, mm::SlabWordRef(first_word + i), Sections::cells) ==
                Cache::Push::done);
  }
  void after() {
    if (const mm::SlabWordRef word(cache->current.load(std::memory_order_acquire));
        word.names_a_word())
      ++places[word.raw() - first_word];
    mm::SlabWordRef word;
    while (cache->pop(0, lock, word) == Cache::Pop::done) ++places[word.raw() - first_word];
    for (const unsigned place : places) RL_ASSERT(place == 1);
    delete recent;
    delete cache;
  }
  void thread(unsigned thread) {
    if (thread == 2)
      empty();
    else
      use_words(thread);
  }

  // What only a holder may do: two at once are a data race.
  void use(mm::SlabWordRef word) { used[word.raw() - first_word]($) += 1; }

  void use_words(unsigned thread) {
    mm::SlabWordRef word = thread == 0 ? cache->detach(0, lock) : mm::SlabWordRef();
    if (!word.names_a_word()) {
      const auto popped = cache->pop(0, lock, word);
      if (popped != Cache::Pop::done) return;
    }
    use(word);
    if (thread == 1 && cache->install(0, lock, word, *recent)) return;
    if (cache->push(0, lock, word, Sections::cells) == Cache::Push::done) return;
    ++places[word.raw() - first_word];  // to the central store
  }

  void empty() {
    mm::ClosedCacheOf<Cache> closed;
    if (!closed.begin(*cache)) return;
    Sections::interrupt(lock);
    if (fault == Fault::mark_not_looked_at) {
      if (closed.current != mm::SlabWordRef::none) win(mm::SlabWordRef(closed.current));
      closed.current = mm::SlabWordRef::none;
      cache->current.store(mm::SlabWordRef::none, std::memory_order_release);
    }
    (void)closed.finish(*cache, [&](mm::SlabWordRef word) { win(word); });
  }
  void win(mm::SlabWordRef word) {
    use(word);
    ++places[word.raw() - first_word];
  }

  Cache* cache;
  typename Sections::Word* recent;
  rl::mutex lock;
  rl::var<int> used[words];
  unsigned places[words];
};

}  // namespace
}  // namespace accelmm::test

int main() {
  using namespace accelmm::test;
  constexpr int executions = 60000;
  return verdict({
      holds<EmptyingASlot<Mutant::none, Fault::none>>("emptying a slot", executions),
      is_caught<EmptyingASlot<Mutant::none, Fault::no_interrupt>>(
          "mutant: sections that began before are not waited for", executions),
      is_caught<EmptyingASlot<Mutant::none, Fault::no_exclusion>>(
          "mutant: two threads in sections of one slot", executions),
      is_caught<EmptyingASlot<Mutant::none, Fault::mark_not_looked_at>>(
          "mutant: a section that was faster goes unnoticed", executions),
      is_caught<EmptyingASlot<Mutant::release_add_is_relaxed, Fault::none>>(
          "mutant: what a holder did is not passed on", executions),
  });
}
