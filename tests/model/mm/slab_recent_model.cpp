// SPDX-License-Identifier: Apache-2.0
//
// The recent object of a slot: whoever takes objects of a word, by the note or without, has each alone
// and knows where it lies, while the word is emptied from outside and its slab goes and another comes.
//
// The shipped sections are instructions (accelmm/slab_recent.hpp, mm/slab_quick.hpp) and cannot run
// here: they stand below step by step, in the same order. A section of a slot's thread runs behind the
// slot's lock, as one of a processor does, with each of its stores visible to threads elsewhere; at any
// store it may be abandoned, as the kernel does where it preempts a thread or a signal comes, and then
// its last store, which commits, never happens. What is around them is the shipped code.
#include "mm/slab_magazine.hpp"
#include "mm/slab_word.hpp"
#include "model/model_check.hpp"

#include <bit>
#include <cstdint>
#include <utility>

namespace accelmm::test {
namespace {

enum class Fault {
  none,
  no_interrupt,      // the slot is emptied without waiting for sections that began before
  no_exclusion,      // two threads are in sections of one slot at once
  note_outlives,     // a word that is installed does not make the note forgotten
  note_in_pieces,    // a note is overwritten without being forgotten meanwhile
  upper_not_looked,  // what strangers freed is not compared
  word_not_looked,   // whether the noted word is still the current one is not compared
};

template <Mutant mutant, Fault fault>
struct ModelSections {
  using Word = typename ModelAtomics<mutant>::template Atomic<std::uint64_t>;
  using Lock = rl::mutex;
  static constexpr unsigned cells = 2;

  static void enter(Lock& lock) {
    if (fault != Fault::no_exclusion) lock.lock($);
  }
  static bool leave(Lock& lock, bool committed) {
    if (fault != Fault::no_exclusion) lock.unlock($);
    return committed;
  }
  static bool abandoned() { return rl::rand(4) == 0; }

  static bool store_if(unsigned, Lock& lock, const Word& check, std::uint64_t check_expected,
                       Word& target, std::uint64_t expected, std::uint64_t desired) {
    enter(lock);
    if (check.load(std::memory_order_acquire) != check_expected ||
        target.load(std::memory_order_acquire) != expected || abandoned())
      return leave(lock, false);
    target.store(desired, std::memory_order_release);
    return leave(lock, true);
  }
  static bool push_if(unsigned, Lock& lock, Word& header, std::uint64_t expected, Word& cell,
                      std::uint64_t value, std::uint64_t desired) {
    enter(lock);
    if (header.load(std::memory_order_acquire) != expected) return leave(lock, false);
    if (fault != Fault::note_outlives) cell.store(value, std::memory_order_release);
    if (abandoned()) return leave(lock, false);
    header.store(desired, std::memory_order_release);
    return leave(lock, true);
  }
  static void interrupt(Lock& lock) {
    if (fault == Fault::no_interrupt) return;
    lock.lock($);
    lock.unlock($);
  }
};

/// A slot whose only word it may take from by the quick sections.
template <Mutant mutant, Fault fault>
struct QuickSlot {
  using Sections = ModelSections<mutant, fault>;
  using Word = typename Sections::Word;
  static constexpr std::uint64_t a_word = 4;  // 0 and 1 are no words, 2 and 3 no current ones

  // Stores to one half do not touch the other.
  void store_low(std::uint32_t low) {
    std::uint64_t seen = marks.load(std::memory_order_relaxed);
    while (!marks.compare_exchange_weak(seen, (seen >> 32 << 32) | low, std::memory_order_release,
                                        std::memory_order_relaxed)) {
    }
  }
  [[nodiscard]] std::uint32_t low() {
    return static_cast<std::uint32_t>(marks.load(std::memory_order_acquire));
  }
  [[nodiscard]] std::uint32_t high() {
    return static_cast<std::uint32_t>(marks.load(std::memory_order_acquire) >> 32);
  }
  [[nodiscard]] static std::uint64_t get(const Word& word) {
    return word.load(std::memory_order_acquire);
  }
  static void set(Word& word, std::uint64_t value) { word.store(value, std::memory_order_release); }

  // The note's word is what current is, or no word: where it is not compared it is a word.
  [[nodiscard]] bool note_counts() {
    const std::uint64_t noted = get(note.word);
    return fault == Fault::word_not_looked ? noted == a_word : get(cache.current) == noted;
  }

  bool take_recent(std::uint64_t& offset) {
    Sections::enter(lock);
    if (!note_counts() || low() != get(note.free) ||
        (fault != Fault::upper_not_looked && high() != get(note.high)))
      return Sections::leave(lock, false);
    offset = get(note.offset);
    const auto live = static_cast<std::uint32_t>(get(note.live));
    if (Sections::abandoned()) return Sections::leave(lock, false);
    store_low(live);
    return Sections::leave(lock, true);
  }

  bool give_recent(std::uint64_t offset) {
    Sections::enter(lock);
    if (get(note.offset) != offset || !note_counts() || low() != get(note.live) ||
        (fault != Fault::upper_not_looked && high() != get(note.high)))
      return Sections::leave(lock, false);
    const auto free = static_cast<std::uint32_t>(get(note.free));
    if (Sections::abandoned()) return Sections::leave(lock, false);
    store_low(free);
    return Sections::leave(lock, true);
  }

  /// Takes the lowest free object, unless it is the last. Returns its bit, or 0.
  std::uint32_t take_lowest() {
    Sections::enter(lock);
    std::uint32_t object = 0;
    if (get(cache.current) == a_word) {
      const std::uint32_t before = low();
      const std::uint32_t free = mm::free_objects({.low = before, .high = high()});
      object = free & (~free + 1);
      if (object == free || Sections::abandoned()) object = 0;
      if (object != 0) store_low(before ^ object);
    }
    Sections::leave(lock, object != 0);
    return object;
  }

  /// Frees an object of the current word, and notes it.
  bool give_to_current(std::uint64_t offset, std::uint32_t bit, const Word& base) {
    Sections::enter(lock);
    if (get(cache.current) != a_word || get(base) != offset / 32)
      return Sections::leave(lock, false);
    const std::uint32_t before = low();
    const std::uint32_t upper = high();
    if (((before ^ upper) & bit) == 0) return Sections::leave(lock, false);
    if (fault != Fault::note_in_pieces) set(note.word, mm::SlabRecent::forgotten);
    const std::pair<Word*, std::uint64_t> stores[] = {{&note.offset, offset},
                                                      {&note.live, before},
                                                      {&note.high, upper},
                                                      {&note.free, before ^ bit},
                                                      {&note.word, a_word}};
    for (const auto& [word, value] : stores) {
      if (Sections::abandoned()) return Sections::leave(lock, false);
      set(*word, value);
    }
    if (Sections::abandoned()) return Sections::leave(lock, false);
    store_low(before ^ bit);
    return Sections::leave(lock, true);
  }

  struct Note {
    Word word{mm::SlabRecent::forgotten};
    Word offset{0};
    Word free{0};
    Word live{0};
    Word high{0};
  };
  mm::SlabCacheOf<Sections> cache;
  Note note;
  Word marks{0};
  rl::mutex lock;
};

/// Two threads of the slot take and free objects of one word. A third empties the slot from outside,
/// takes and frees too, and replaces the slab where nothing of it is live.
template <Mutant mutant, Fault fault>
struct RecentObjects : rl::test_suite<RecentObjects<mutant, fault>, 3> {
  using Slot = QuickSlot<mutant, fault>;
  using Sections = typename Slot::Sections;
  using Word = typename Sections::Word;
  static constexpr unsigned objects = 4;
  static constexpr std::uint32_t all = (1U << objects) - 1;
  static constexpr std::uint64_t nothing = ~std::uint64_t{0};

  void before() {
    slot = new Slot;
    base = new Word(1);
    central = new Word(mm::SlabWordRef::none);
    for (auto& one : used) one($) = 0;
    // Object 0 is the first thread's, object 1 the second's; of the others one is free at least.
    slot->marks.store(mm::marks_of_free(all) ^ 3, std::memory_order_release);
    slot->cache.current.store(Slot::a_word, std::memory_order_release);
    mine[0] = 32;
    mine[1] = 33;
    mine[2] = nothing;
  }
  void after() {
    std::uint32_t live = 0;
    for (const std::uint64_t offset : mine)
      if (offset != nothing) live |= bit_of(offset);
    RL_ASSERT(mm::free_objects(slot->marks.load(std::memory_order_acquire)) == (all & ~live));
    delete central;
    delete base;
    delete slot;
  }
  void thread(unsigned thread) {
    if (thread == 2) return empty();
    for (unsigned step = 0; step < 4; ++step) {
      if (mine[thread] != nothing)
        give(thread);
      else
        take(thread);
    }
  }

  [[nodiscard]] static std::uint32_t bit_of(std::uint64_t offset) { return 1U << (offset % 32); }

  // What only an owner may do: two at once are a data race. And the object must lie in the slab that
  // is there.
  void own(unsigned thread, std::uint64_t offset) {
    RL_ASSERT(offset / 32 == base->load(std::memory_order_acquire) && offset % 32 < objects);
    used[offset % 32]($) += 1;
    mine[thread] = offset;
  }
  void own_bit(unsigned thread, std::uint32_t object) {
    own(thread, base->load(std::memory_order_acquire) * 32 +
                    static_cast<unsigned>(std::countr_zero(object)));
  }

  void take(unsigned thread) {
    std::uint64_t offset = nothing;
    if (slot->take_recent(offset)) return own(thread, offset);
    if (const std::uint32_t object = slot->take_lowest(); object != 0)
      return own_bit(thread, object);
    std::uint64_t word = central->exchange(mm::SlabWordRef::none, std::memory_order_acq_rel);
    if (word == mm::SlabWordRef::none) return;
    if (!slot->cache.install(0, slot->lock, mm::SlabWordRef(word), slot->note.word))
      central->store(word, std::memory_order_release);
  }

  void give(unsigned thread) {
    const std::uint64_t offset = mine[thread];
    const std::uint32_t bit = bit_of(offset);
    used[offset % 32]($) += 1;
    mine[thread] = nothing;
    if (slot->give_recent(offset) || slot->give_to_current(offset, bit, *base)) return;
    give_as_stranger(offset, bit);
  }
  void give_as_stranger(std::uint64_t offset, std::uint32_t bit) {
    const mm::Freed freed =
        mm::free_in_word(slot->marks, slot->marks.load(std::memory_order_acquire), bit,
                         [&] { return base->load(std::memory_order_acquire) == offset / 32; });
    RL_ASSERT(freed.done && freed.before != 0);
  }

  void empty() {
    mm::ClosedCacheOf<mm::SlabCacheOf<Sections>> closed;
    if (!closed.begin(slot->cache)) return;
    Sections::interrupt(slot->lock);
    (void)closed.finish(slot->cache, [&](mm::SlabWordRef word) { hold(word); });
  }
  // Takes an object of the word and frees it when the word is back with the slot; or, where all are
  // free, has another slab at the same record.
  void hold(mm::SlabWordRef word) {
    std::uint64_t marks = slot->marks.load(std::memory_order_acquire);
    if (mm::free_objects(marks) == all) {
      base->store(2, std::memory_order_release);
      central->store(word.raw(), std::memory_order_release);
      return;
    }
    const mm::Taken taken = mm::take_from_held(
        slot->marks, [](std::uint32_t free) { return mm::lowest_bits(free, 1); });
    RL_ASSERT(taken.objects != 0 && taken.left != 0);
    own_bit(2, taken.objects);
    central->store(word.raw(), std::memory_order_release);
    const std::uint64_t offset = mine[2];
    used[offset % 32]($) += 1;
    mine[2] = nothing;
    give_as_stranger(offset, bit_of(offset));
  }

  Slot* slot;
  Word* base;     // of the slab that the word's record is of
  Word* central;  // where the word is while no slot has it
  rl::var<int> used[objects];
  std::uint64_t mine[3];
};

}  // namespace
}  // namespace accelmm::test

int main() {
  using namespace accelmm::test;
  constexpr int executions = 60000;
  const auto mutant = []<Fault fault>(const char* name) {
    return is_caught<RecentObjects<Mutant::none, fault>>(name, executions);
  };
  return verdict({
      holds<RecentObjects<Mutant::none, Fault::none>>("recent objects", executions),
      mutant.operator()<Fault::no_interrupt>(
          "mutant: sections that began before are not waited for"),
      mutant.operator()<Fault::no_exclusion>("mutant: two threads in sections of one slot"),
      mutant.operator()<Fault::note_outlives>("mutant: the note outlives its word"),
      mutant.operator()<Fault::note_in_pieces>("mutant: a note is believed before it is whole"),
      mutant.operator()<Fault::upper_not_looked>("mutant: a stranger's free goes unnoticed"),
      mutant.operator()<Fault::word_not_looked>("mutant: a word is taken from that is elsewhere"),
  });
}
