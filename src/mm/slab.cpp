// SPDX-License-Identifier: Apache-2.0
#include "base/per_cpu_area.hpp"
#include "mm/slab_run.hpp"
#include "mm/slab_state.hpp"
#include "mm/slab_trusted.hpp"

#include <accelmm/check.hpp>
#include <accelmm/slab.hpp>

#include <algorithm>
#include <new>
#include <utility>

#include <sys/auxv.h>

namespace accelmm {

using mm::SlabCache;
using mm::SlabsReleased;
using mm::SlabWordRef;

namespace {

constexpr const char* wrong_size = "size of an object is 1 byte to 16 KiB";

// No sum of an offset and a slab comes near 2^64.
constexpr std::uint64_t largest_region = std::uint64_t{1} << 60;

// The finaliser of SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators,
// 2014).
std::uint64_t mix(std::uint64_t x) noexcept {
  x = (x ^ (x >> 30)) * 0xbf58'476d'1ce4'e5b9;
  x = (x ^ (x >> 27)) * 0x94d0'49bb'1331'11eb;
  return x ^ (x >> 31);
}

// Bits that the kernel made for this process, and where this object lies.
std::uint64_t secret_for(const void* object) noexcept {
  std::array<std::uint64_t, 2> bits = {};
  if (const auto address = getauxval(AT_RANDOM); address != 0)
    std::copy_n(reinterpret_cast<const char*>(address), sizeof bits,
                reinterpret_cast<char*>(bits.data()));
  return mix(bits[0] ^ mix(bits[1] ^ reinterpret_cast<std::uintptr_t>(object)));
}

}  // namespace

Slab::State::State(const Options& given)
    : options(given),
      slot_count(per_cpu::slots()),
      slot_memory(slot_count * (sizeof(SlabSlot) + sizeof(mm::SlabRecent) + sizeof(SlabSlotLock))),
      table((given.region.value() + (std::uint64_t{1} << mm::slab_unit_log2) - 1) >>
            mm::slab_unit_log2) {
  if (!table.exists()) throw std::bad_alloc();
  slots = reinterpret_cast<SlabSlot*>(slot_memory.data());
  recents = reinterpret_cast<mm::SlabRecent*>(slots + slot_count);
  locks = reinterpret_cast<SlabSlotLock*>(recents + slot_count);
  for (unsigned slot = 0; slot < slot_count; ++slot) {
    new (slots + slot) SlabSlot;
    new (recents + slot) mm::SlabRecent(slots[slot].caches[0].current);
    new (locks + slot) SlabSlotLock;
  }
  for (unsigned number = 0; number < mm::slab_class_count; ++number)
    centrals[number].start(number, options.spare_slabs);
  // Every multiple of a cache line to 512 is a class, and every class above is one.
  const std::uint64_t step = options.spacing == Spacing::cache_lines ? mm::cache_line : 1;
  for (std::uint64_t i = 0; i < class_table.size(); ++i)
    class_table[i] = static_cast<std::uint8_t>(
        mm::slab_class_of((i * mm::slab_smallest + step - 1) / step * step));
  const std::uint64_t secret = secret_for(this);
  if (options.order == Order::random) order_key = secret | 1;
  // The slow ways obey the options.
  quarantine.start(options.quarantine.random, options.quarantine.queue, mix(secret));
  const mm::QuickSlots all{.caches = slots->caches.data(),
                           .recents = recents,
                           .count = per_cpu::restartable() ? slot_count : 0,
                           .area = per_cpu::thread_area()};
  quick_to_take = quick_to_free = all;
  // The slow ways obey the options.
  if (order_key != 0) quick_to_take.count = 0;
  if (quarantine.enabled()) quick_to_free.count = 0;
  if (options.bulk == Bulk::trusted && order_key == 0 && !quarantine.enabled()) start_trusting();
}

mm::SlabRecents Slab::State::recents_of_callers() const {
  return {.slots = recents,
          .to_take = quick_to_take.count,
          .to_free = quick_to_free.count,
          .area = per_cpu::thread_area()};
}

Slab::State::~State() {
  for (unsigned number = 0; number < mm::slab_class_count; ++number)
    centrals[number].for_each_slab([&](std::uint64_t base) {
      options.source->give_back({.offset = RegionOffset(base),
                                 .length = ByteCount(mm::slab_shapes[number].slab_bytes())});
    });
}

Slab::Slab(std::unique_ptr<State> state) noexcept
    : recents_(state->recents_of_callers()), state_(std::move(state)) {}
Slab::Slab(Slab&& other) noexcept = default;
Slab& Slab::operator=(Slab&& other) noexcept = default;
Slab::~Slab() = default;

Result<Slab> Slab::create(const Options& options) {
  if (options.source == nullptr) return fail(Errc::invalid_argument, "slab without a source");
  if (options.region.value() == 0 || options.region.value() > largest_region)
    return fail(Errc::invalid_argument, "region of a slab is 1 to 2^60 bytes");
  try {
    return Slab(std::make_unique<State>(options));
  } catch (const std::bad_alloc&) {
    return fail(Errc::no_memory, "no room for a slab's metadata");
  }
}

// Which objects to take where that must not be foretold.
std::uint32_t Slab::State::choose_secretly(std::uint32_t free, std::uint32_t count) const {
  const auto turn = static_cast<int>(mix(order_key ^ free) % mm::objects_per_word);
  return std::rotl(mm::lowest_bits(std::rotr(free, turn), count), turn);
}

// A word that the slot has, the current one first.
SlabWordRef Slab::State::hold_local_word(unsigned number) const {
  while (true) {
    const Slot slot = slot_of_thread();
    if (slot.words == nullptr) return {};
    SlabCache& cache = slot.words->caches[number];
    if (const SlabWordRef word = cache.detach(slot.number, *slot.lock); word.names_a_word())
      return word;
    SlabWordRef word{};
    switch (cache.pop(slot.number, *slot.lock, word)) {
      case SlabCache::Pop::done:
        return word;
      case SlabCache::Pop::empty:
        return {};
      case SlabCache::Pop::lost:
        break;
    }
  }
}

// A word with a free object, from wherever there is one.
Result<SlabWordRef> Slab::State::hold_word(unsigned number) {
  if (const SlabWordRef word = hold_local_word(number); word.names_a_word()) return word;
  return hold_central_word(number);
}

// A word with a free object from the central store, and some for the magazine.
[[gnu::noinline]] Result<SlabWordRef> Slab::State::hold_central_word(unsigned number) {
  std::array<SlabWordRef, mm::magazine_cells / 2> words;
  const std::span batch = std::span(words).first(mm::slab_shapes[number].batch_words);
  bool drained = false;
  unsigned count = 0;
  while ((count = centrals[number].take(batch)) == 0) {
    const Result<void> grown = grow(number);
    if (grown) continue;
    if (drained) return fail(grown.error());
    // What other processors have at hand may serve, or empty slabs of other classes.
    drain();
    static_cast<void>(release_empty(0));
    drained = true;
  }
  for (const SlabWordRef word : batch.first(count).subspan(1)) shelve(number, word);
  return words[0];
}

// Takes up to `count` objects of the slot's current word, all but its last, without a locked
// instruction where sections are restartable. Nothing if the slot has none, or the thread was
// interrupted.
SlabPiece Slab::State::take_from_current(unsigned number, std::uint32_t count) const {
  const Slot slot = slot_of_thread();
  if (slot.words == nullptr) return {};
  const SlabCache& cache = slot.words->caches[number];
  const SlabWordRef word(cache.current.load(std::memory_order_acquire));
  if (!word.names_a_word()) return {};
  const mm::Halves seen = per_cpu::load_halves(word.marks());
  const std::uint32_t free = mm::free_objects(seen);
  const std::uint32_t objects = choose(free, count);
  if (objects == free || !per_cpu::store_low_if(slot.number, *slot.lock, cache.current, word.raw(),
                                                word.marks(), seen, seen.low ^ objects))
    return {};
  return {.word = word, .objects = objects};
}

// Takes all free objects of a word of the slot's magazine: as many as wanted, more often than not,
// where the current word would keep one. Nothing if there is none at hand.
SlabPiece Slab::State::take_word(unsigned number) const {
  const Slot slot = slot_of_thread();
  if (slot.words == nullptr) return {};
  SlabWordRef word{};
  if (slot.words->caches[number].pop(slot.number, *slot.lock, word) != SlabCache::Pop::done)
    return {};
  const mm::Taken taken =
      mm::take_from_held(word.marks(), [&](std::uint32_t free) { return free; });
  return {.word = word, .objects = taken.objects};
}

// Takes up to `count` objects, at least one, of a word that the thread gets hold of if it must.
Result<SlabPiece> Slab::State::take_piece(unsigned number, std::uint32_t count) {
  if (!quick_to_take.exist()) {
    if (const SlabPiece piece = take_from_current(number, count); piece.objects != 0) return piece;
  }
  const auto word = hold_word(number);
  if (!word) return fail(word.error());
  const mm::Taken taken =
      mm::take_from_held(word->marks(), [&](std::uint32_t free) { return choose(free, count); });
  if (taken.left != 0) keep(number, *word, taken.left);
  return SlabPiece{.word = *word, .objects = taken.objects};
}

// Lets go of a word that the thread holds, of which `left` objects are free.
void Slab::State::keep(unsigned number, SlabWordRef word, std::uint32_t left) {
  const Slot slot = slot_of_thread();
  const bool several = (left & (left - 1)) != 0;
  if (slot.words != nullptr && several &&
      slot.words->caches[number].install(slot.number, *slot.lock, word, slot.recent->word))
    return;
  shelve(number, word);
}

// Puts a word that the thread holds into the slot's magazine, or, if that is full, elsewhere.
void Slab::State::shelve(unsigned number, SlabWordRef word) {
  while (true) {
    const Slot slot = slot_of_thread();
    if (slot.words == nullptr) break;
    const auto pushed = slot.words->caches[number].push(slot.number, *slot.lock, word,
                                                        mm::slab_shapes[number].cached_words);
    if (pushed == SlabCache::Push::done) return;
    if (pushed == SlabCache::Push::full) break;
  }
  shelve_centrally(number, word);
}

// Puts a word into the central store, with the upper half of the slot's magazine.
[[gnu::noinline]] void Slab::State::shelve_centrally(unsigned number, SlabWordRef word) {
  std::array<SlabWordRef, mm::magazine_cells> leaving;
  leaving[0] = word;
  std::size_t count = 1;
  if (const Slot slot = slot_of_thread(); slot.words != nullptr)
    while (count <= mm::slab_shapes[number].cached_words / 2U &&
           slot.words->caches[number].pop(slot.number, *slot.lock, leaving[count]) ==
               SlabCache::Pop::done)
      ++count;
  SlabsReleased released;
  centrals[number].put(std::span(leaving).first(count), table, released);
  give_back(number, released);
}

// Gets a slab from the source. No lock is held meanwhile: two threads may get one each.
Result<void> Slab::State::grow(unsigned number) {
  const ByteCount bytes(mm::slab_shapes[number].slab_bytes());
  const Alignment alignment(bytes.value());
  auto extent = options.source->grow(bytes, alignment);
  if (!extent) return fail(extent.error());
  if (extent->length != bytes || !alignment.divides(extent->offset) || bytes > options.region ||
      extent->offset.value() > options.region.value() - bytes.value()) {
    options.source->give_back(*extent);
    return fail(Errc::fault, "source gave another extent than it was asked for");
  }
  auto record = centrals[number].take_record();
  if (!record) {
    options.source->give_back(*extent);
    return fail(record.error());
  }
  centrals[number].add(**record, extent->offset.value(), table);
  return {};
}

void Slab::State::give_back(unsigned number, const SlabsReleased& released) {
  for (const std::uint64_t base : std::span(released.bases).first(released.count))
    options.source->give_back(
        {.offset = RegionOffset(base), .length = ByteCount(mm::slab_shapes[number].slab_bytes())});
}

mm::SlabObject Slab::take_quickly(ByteCount size) const noexcept {
  if (size.value() - 1 >= mm::slab_largest) [[unlikely]]  // 0, too
    return {};
  const unsigned number = state_->class_for(size);
  const mm::QuickTaken taken = mm::take_lowest(state_->quick_to_take, number);
  if (taken.object == 0) [[unlikely]]
    return {};
  const std::uint64_t bytes = mm::slab_shapes[number].size;
  return {.offset = SlabPiece{.word = taken.word, .objects = taken.object}.offset(bytes),
          .size = bytes};
}

Result<Extent> Slab::allocate_slowly(ByteCount size) {
  if (size.value() - 1 >= mm::slab_largest) return fail(Errc::invalid_argument, wrong_size);
  const unsigned number = state_->class_for(size);
  const auto piece = state_->take_piece(number, 1);
  if (!piece) return fail(piece.error());
  const std::uint64_t bytes = mm::slab_shapes[number].size;
  return Extent{.offset = RegionOffset(piece->offset(bytes)), .length = ByteCount(bytes)};
}

namespace {

// Writes the offsets of a piece's objects. Returns how many.
std::size_t write_offsets(SlabPiece piece, std::uint64_t size, std::span<RegionOffset> offsets) {
  const std::uint64_t first = piece.offset(size);
  const std::uint32_t run = piece.objects >> std::countr_zero(piece.objects);
  std::size_t count = 0;
  if ((run & (run + 1)) == 0) {
    const auto length = static_cast<std::size_t>(std::countr_one(run));
    mm::SlabRun two(first, size);
    for (; count + 2 <= length; count += 2) two.write(offsets.data() + count);
    if (count < length) offsets[count++] = RegionOffset(first + (length - 1) * size);
    return count;
  }
  for (std::uint32_t rest = run; rest != 0; rest &= rest - 1)
    offsets[count++] = RegionOffset(first + static_cast<unsigned>(std::countr_zero(rest)) * size);
  return count;
}

}  // namespace

bool Slab::take_trusted(ByteCount size, std::span<RegionOffset> offsets) const noexcept {
  return state_->trusts() && size.value() - 1 < mm::slab_largest &&
         state_->take_trusted(state_->class_for(size), offsets);
}

Result<void> Slab::allocate_bulk_slowly(ByteCount size, std::span<RegionOffset> offsets) {
  if (size.value() - 1 >= mm::slab_largest) return fail(Errc::invalid_argument, wrong_size);
  const unsigned number = state_->class_for(size);
  const std::uint64_t bytes = mm::slab_shapes[number].size;
  std::size_t done = 0;
  while (done < offsets.size()) {
    const auto wanted = static_cast<std::uint32_t>(
        std::min<std::size_t>(offsets.size() - done, mm::objects_per_word));
    SlabPiece piece = wanted == mm::objects_per_word ? state_->take_word(number)
                                                     : state_->take_from_current(number, wanted);
    if (piece.objects == 0) {
      const auto taken = state_->take_piece(number, wanted);
      if (!taken) {
        for (const RegionOffset offset : offsets.first(done))
          ACCELMM_CHECK(state_->free_one(offset.value()));
        return fail(taken.error());
      }
      piece = *taken;
    }
    done += write_offsets(piece, bytes, offsets.subspan(done));
  }
  return {};
}

}  // namespace accelmm
