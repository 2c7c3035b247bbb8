// SPDX-License-Identifier: Apache-2.0
#include "mm/slab_state.hpp"

#include <accelmm/slab.hpp>

#include <algorithm>

namespace accelmm {

using mm::SlabsReleased;
using mm::SlabWordRef;

namespace {

constexpr const char* not_live = "no live object begins there";

// How many of the offsets that follow the first continue it, each an object of `size` further, up to
// `limit` of them.
std::size_t length_of_run(std::span<const RegionOffset> offsets, std::uint64_t size,
                          std::size_t limit) {
  limit = std::min(limit, offsets.size());
  const std::uint64_t first = offsets[0].value();
  std::size_t length = 1;
  while (length < limit && offsets[length].value() == first + length * size) ++length;
  return length;
}

}  // namespace

[[gnu::always_inline]] inline Slab::State::Place Slab::State::find(std::uint64_t offset) const {
  const std::uint64_t entry = table.find(offset);
  if (entry == 0) return {};
  const mm::SlabClassShape& shape = mm::slab_shapes[mm::SlabTable::class_of(entry)];
  const std::uint32_t inside = static_cast<std::uint32_t>(offset) & shape.offset_mask;
  const std::uint32_t object = shape.object_at(inside);
  if (object * shape.size != inside || object >= shape.objects) return {};
  return {.entry = entry,
          .offset = offset,
          .word = object / mm::objects_per_word,
          .bit = std::uint32_t{1} << (object % mm::objects_per_word)};
}

bool Slab::State::is_live(const Place& place) const {
  if (place.entry == 0) return false;
  const mm::Halves marks = per_cpu::load_halves(place.marks());
  return (mm::free_objects(marks) & place.bit) == 0 && table.find(place.offset) == place.entry;
}

// Frees objects of one word. Returns false, and does nothing, if one is not live.
bool Slab::State::give(const Place& place, std::uint32_t objects) {
  per_cpu::Word& marks = place.marks();
  // The slab may be gone, and its record another's, if no object of it is live.
  const mm::Freed freed = mm::free_in_word(marks, per_cpu::load_halves(marks).word(), objects,
                                           [&] { return table.find(place.offset) == place.entry; });
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

[[gnu::always_inline]] inline bool Slab::State::give_to_current(const Place& place,
                                                                std::uint32_t objects) const {
  const unsigned number_of_slot = per_cpu::current();
  SlabSlot* slot = slot_at(number_of_slot);
  if (slot == nullptr) return false;
  mm::SlabCache& cache = slot->caches[place.number()];
  const SlabWordRef word(&place.record(), place.word);
  if (cache.current.load(std::memory_order_acquire) != word.raw()) return false;
  per_cpu::Word& marks = word.marks();
  const mm::Halves seen = per_cpu::load_halves(marks);
  return (mm::free_objects(seen) & objects) == 0 &&
         per_cpu::store_low_if(number_of_slot, slot->lock, cache.current, word.raw(), marks, seen,
                               seen.low ^ objects);
}

Result<void> Slab::State::free_one(std::uint64_t offset) {
  const Place place = find(offset);
  if (place.entry == 0) [[unlikely]]
    return fail(Errc::invalid_argument, not_live);
  if (give_to_current(place, place.bit)) [[likely]]
    return {};
  if (!give(place, place.bit)) [[unlikely]]
    return fail(Errc::invalid_argument, not_live);
  return {};
}

Result<void> Slab::State::free_quarantined(std::uint64_t offset) {
  // An object in quarantine is live by its marks: nobody else can have it, and its slab stays.
  if (!is_live(find(offset))) return fail(Errc::invalid_argument, not_live);
  const auto entered = quarantine.enter(offset);
  if (entered.outcome == mm::SlabQuarantine::Outcome::waits_already)
    return fail(Errc::invalid_argument, not_live);
  if (entered.leaves) ACCELMM_CHECK(free_one(*entered.leaves).has_value());
  return {};
}

void Slab::State::empty_quarantine() {
  while (const auto offset = quarantine.leave()) ACCELMM_CHECK(free_one(*offset).has_value());
}

Result<void> Slab::free(RegionOffset offset) {
  if (state_->quarantine.enabled()) [[unlikely]]
    return state_->free_quarantined(offset.value());
  return state_->free_one(offset.value());
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
  const auto there = static_cast<unsigned>(std::popcount(shape.all_of(group.place.word)));
  group.count = length_of_run(offsets, shape.size, there - shift);
  group.objects = mm::lowest_bits(~std::uint32_t{0}, static_cast<std::uint32_t>(group.count))
                  << shift;
  return group;
}

bool Slab::State::is_live(const Group& group) const {
  if (group.place.entry == 0) return false;
  const mm::Halves marks = per_cpu::load_halves(group.place.marks());
  return (mm::free_objects(marks) & group.objects) == 0 &&
         table.find(group.place.offset) == group.place.entry;
}

Result<void> Slab::free_bulk(std::span<const RegionOffset> offsets) {
  const State& state = *state_;
  // Looked at first, so that a wrong offset frees nothing; the groups of a batch of usual length
  // are kept for the second pass.
  std::array<State::Group, 16> groups;
  std::size_t count = 0;
  for (std::size_t i = 0; i < offsets.size();) {
    const State::Group group = state.next_group(offsets.subspan(i));
    if (!state.is_live(group)) return fail(Errc::invalid_argument, not_live);
    if (state.quarantine.enabled() && !state.is_outside_quarantine(group))
      return fail(Errc::invalid_argument, not_live);
    if (count < groups.size()) groups[count] = group;
    ++count;
    i += group.count;
  }
  bool all = true;
  std::size_t done = 0;
  for (std::size_t i = 0; i < offsets.size(); ++done) {
    const State::Group group =
        done < groups.size() ? groups[done] : state.next_group(offsets.subspan(i));
    all = state_->free_group(group) && all;
    i += group.count;
  }
  if (!all) return fail(Errc::invalid_argument, not_live);
  return {};
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
    all = (quarantine.enabled() ? free_quarantined(offset) : free_one(offset)).has_value() && all;
  }
  return all;
}

}  // namespace accelmm
