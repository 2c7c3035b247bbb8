// SPDX-License-Identifier: Apache-2.0
#include "mm/slab_run.hpp"
#include "mm/slab_state.hpp"
#include "mm/slab_trusted.hpp"

#include <accelmm/slab.hpp>

#include <algorithm>

namespace accelmm {

using mm::SlabsReleased;
using mm::SlabWordRef;

namespace {

constexpr const char* not_live = "no live object begins there";

// How many of the offsets that follow the first continue it, each an object of `size` further, up
// to `limit` of them.
std::size_t length_of_run(std::span<const RegionOffset> offsets, std::uint64_t size,
                          std::size_t limit) {
  limit = std::min(limit, offsets.size());
  const std::uint64_t first = offsets[0].value();
  std::size_t length = 0;
  // Eight at a time: what differs in any of them.
  for (mm::SlabRun run(first, size); length + 8 <= limit; length += 8)
    if (run.differs(offsets.data() + length)) break;
  while (length < limit && offsets[length].value() == first + length * size) ++length;
  return length;
}

}  // namespace

bool Slab::State::is_live(const Place& place) const {
  if (place.entry == 0) return false;
  const mm::Halves marks = per_cpu::load_halves(place.marks());
  return (mm::free_objects(marks) & place.bit) == 0 && table.entry_at(place.offset) == place.entry;
}

// Frees objects of one word. Returns false, and does nothing, if one is not live.
bool Slab::State::give(const Place& place, std::uint32_t objects) {
  per_cpu::Word& marks = place.marks();
  // The slab may be gone, and its record another's, if no object of it is live.
  const mm::Freed freed = mm::free_in_word(marks, per_cpu::load_halves(marks).word(), objects, [&] {
    return table.entry_at(place.offset) == place.entry;
  });
  if (!freed.done) return false;
  const unsigned number = place.number();
  if (freed.before == 0) [[unlikely]] {
    // The word was nowhere, so it is in the hands of this thread now.
    shelve(number, SlabWordRef(&place.record(), place.word));
  } else if (freed.after == mm::slab_shapes[number].all_of(place.word) &&
             place.record().is_central(place.word)) [[unlikely]] {
    SlabsReleased released;
    const std::uint64_t base = place.offset & ~std::uint64_t{mm::slab_shapes[number].offset_mask};
    centrals[number].look(base, place.entry, table, released);
    give_back(number, released);
  }
  return true;
}

// Frees an object that is none of the slot's current word. Finds it once more, so that what the
// fast path knows of it need not leave the registers.
[[gnu::noinline]] bool Slab::State::free_elsewhere(std::uint64_t offset) {
  const Place place = find(offset);
  if (place.entry == 0) return false;
  return (!quick_to_free.exist() && give_to_current(place, place.bit)) || give(place, place.bit);
}

// What give_quickly() does, wherever sections are restartable or not.
bool Slab::State::give_to_current(const Place& place, std::uint32_t objects) const {
  const Slot slot = slot_of_thread();
  if (slot.words == nullptr) return false;
  const mm::SlabCache& cache = slot.words->caches[place.number()];
  const SlabWordRef word(&place.record(), place.word);
  if (cache.current.load(std::memory_order_acquire) != word.raw()) return false;
  const mm::Halves seen = per_cpu::load_halves(place.marks());
  return (mm::free_objects(seen) & objects) == 0 &&
         per_cpu::store_low_if(slot.number, *slot.lock, cache.current, word.raw(), place.marks(),
                               seen, seen.low ^ objects);
}

bool Slab::State::free_one(std::uint64_t offset) {
  const Place place = find(offset);
  if (place.entry != 0 && give_quickly(place)) [[likely]]
    return true;
  return free_elsewhere(offset);
}

bool Slab::State::free_quarantined(std::uint64_t offset) {
  // An object in quarantine is live by its marks: nobody else can have it, and its slab stays.
  if (!is_live(find(offset))) return false;
  const auto entered = quarantine.enter(offset);
  if (entered.outcome == mm::SlabQuarantine::Outcome::waits_already) return false;
  if (entered.leaves) ACCELMM_CHECK(free_one(*entered.leaves));
  return true;
}

void Slab::State::empty_quarantine() {
  while (const auto offset = quarantine.leave()) ACCELMM_CHECK(free_one(*offset));
}

bool Slab::give_back(RegionOffset offset) {
  const State::Place place = state_->find(offset.value());
  if (place.entry != 0 && state_->give_quickly(place)) [[likely]]
    return true;
  return state_->quarantine.enabled() ? state_->free_quarantined(offset.value())
                                      : state_->free_elsewhere(offset.value());
}

Result<ByteCount> Slab::usable_size(RegionOffset offset) const {
  const State::Place place = state_->find(offset.value());
  if (!state_->is_live(place) || state_->quarantine.has(offset.value()))
    return fail(Errc::invalid_argument, not_live);
  return ByteCount(mm::slab_shapes[place.number()].size);
}

Slab::State::Group Slab::State::next_group(std::span<const RegionOffset> offsets) const {
  Group group{.place = find(offsets[0].value())};
  if (group.place.entry == 0) return group;
  const mm::SlabClassShape& shape = mm::slab_shapes[group.place.number()];
  const auto shift = static_cast<unsigned>(std::countr_zero(group.place.bit));
  const std::uint32_t there = shape.objects - group.place.word * mm::objects_per_word;
  group.count = length_of_run(offsets, shape.size,
                              std::min<std::uint32_t>(there, mm::objects_per_word) - shift);
  group.objects = ~std::uint32_t{0} >> (mm::objects_per_word - group.count) << shift;
  return group;
}

bool Slab::State::is_live(const Group& group) const {
  if (group.place.entry == 0) return false;
  const mm::Halves marks = per_cpu::load_halves(group.place.marks());
  return (mm::free_objects(marks) & group.objects) == 0 &&
         table.entry_at(group.place.offset) == group.place.entry;
}

bool Slab::give_back_bulk(std::span<const RegionOffset> offsets) {
  if (offsets.empty()) return true;
  if (state_->trusts() && state_->free_trusted(offsets)) return true;
  const State::Group first = state_->next_group(offsets);
  if (first.count == offsets.size() &&
      !state_->quarantine.enabled()) {  // looked at and freed in one
    return first.place.entry != 0 && state_->give(first.place, first.objects);
  }
  return state_->free_groups(offsets);
}

bool Slab::State::free_groups(std::span<const RegionOffset> offsets) {
  // Looked at first, so that a wrong offset frees nothing; the groups of a batch of usual length
  // are kept for the second pass.
  std::array<Group, 4> groups;
  std::size_t count = 0;
  for (std::size_t i = 0; i < offsets.size();) {
    const Group group = next_group(offsets.subspan(i));
    if (!is_live(group)) return false;
    if (quarantine.enabled() && !is_outside_quarantine(group)) return false;
    if (count < groups.size()) groups[count] = group;
    ++count;
    i += group.count;
  }
  bool all = true;
  std::size_t done = 0;
  for (std::size_t i = 0; i < offsets.size(); ++done) {
    const Group group = done < groups.size() ? groups[done] : next_group(offsets.subspan(i));
    all = free_group(group) && all;
    i += group.count;
  }
  return all;
}

bool Slab::State::is_outside_quarantine(const Group& group) const {
  const std::uint64_t size = mm::slab_shapes[group.place.number()].size;
  for (std::size_t i = 0; i < group.count; ++i)
    if (quarantine.has(group.place.offset + i * size)) return false;
  return true;
}

// Frees a group at once; one by one if that fails, since one of them was freed meanwhile, or each
// must go to the quarantine. Returns whether all were live.
bool Slab::State::free_group(const Group& group) {
  if (group.place.entry == 0) return false;
  if (!quarantine.enabled() && give(group.place, group.objects)) [[likely]]
    return true;
  const std::uint64_t size = mm::slab_shapes[group.place.number()].size;
  bool all = true;
  for (std::size_t i = 0; i < group.count; ++i) {
    const std::uint64_t offset = group.place.offset + i * size;
    all = (quarantine.enabled() ? free_quarantined(offset) : free_one(offset)) && all;
  }
  return all;
}

}  // namespace accelmm
