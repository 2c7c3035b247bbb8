// SPDX-License-Identifier: Apache-2.0
#include "mm/slab_central.hpp"

#include "mm/slab_word.hpp"

#include <accelmm/check.hpp>

#include <algorithm>
#include <bit>

namespace accelmm::mm {

namespace {

[[nodiscard]] std::uint32_t free_in(const SlabRecord& record, unsigned word) {
  return free_objects(record.words()[word].load(std::memory_order_seq_cst));
}

}  // namespace

void SlabList::push_front(SlabRecord& record) {
  record.previous = nullptr;
  record.next = first_;
  (first_ == nullptr ? last_ : first_->previous) = &record;
  first_ = &record;
}

void SlabList::push_back(SlabRecord& record) {
  record.next = nullptr;
  record.previous = last_;
  (last_ == nullptr ? first_ : last_->next) = &record;
  last_ = &record;
}

void SlabList::remove(SlabRecord& record) {
  (record.previous == nullptr ? first_ : record.previous->next) = record.next;
  (record.next == nullptr ? last_ : record.next->previous) = record.previous;
  record.previous = nullptr;
  record.next = nullptr;
}

Result<SlabRecord*> SlabCentral::take_record() {
  const MutexLock lock(mutex_);
  if (records_ != nullptr) {
    SlabRecord* record = records_;
    records_ = record->next;
    return record;
  }
  try {
    blocks_.reserve(std::bit_ceil(blocks_.size() + 1));
    blocks_.emplace_back(sizeof(SlabRecord) + shape().words * sizeof(per_cpu::Word));
  } catch (const std::bad_alloc&) {
    return fail(Errc::no_memory, "no room for a slab's metadata");
  }
  auto* record = new (blocks_.back().data()) SlabRecord;
  record->number = static_cast<std::uint8_t>(number_);
  for (unsigned word = 0; word < shape().words; ++word)
    new (&record->words()[word]) per_cpu::Word(marks_of_free(shape().all_of(word)));
  return record;
}

void SlabCentral::add(SlabRecord& record, std::uint64_t base, SlabTable& table) {
  const MutexLock lock(mutex_);
  record.base = base;
  record.central_count = shape().words;
  for (unsigned word = 0; word < shape().words; ++word)
    record.central[word / 64].fetch_or(std::uint64_t{1} << (word % 64), std::memory_order_seq_cst);
  record.empty = true;
  partial_.push_back(record);
  ++slabs_;
  ++empty_;
  table.enter(record);
}

unsigned SlabCentral::take(std::span<SlabWordRef> words) {
  const MutexLock lock(mutex_);
  SlabRecord* record = partial_.first();
  if (record == nullptr) return 0;
  if (record->empty) {
    record->empty = false;
    --empty_;
    partial_.remove(*record);
    partial_.push_front(*record);
  }
  unsigned count = 0;
  for (unsigned group = 0; group < record->central.size(); ++group) {
    std::uint64_t here = record->central[group].load(std::memory_order_relaxed);
    for (; here != 0 && count < words.size(); here &= here - 1)
      words[count++] =
          SlabWordRef(record, group * 64 + static_cast<unsigned>(std::countr_zero(here)));
    record->central[group].store(here, std::memory_order_seq_cst);
  }
  record->central_count = static_cast<std::uint16_t>(record->central_count - count);
  if (record->central_count == 0) {
    partial_.remove(*record);
    full_.push_back(*record);
  }
  return count;
}

void SlabCentral::put(std::span<const SlabWordRef> words, SlabTable& table,
                      SlabsReleased& released) {
  const MutexLock lock(mutex_);
  for (const SlabWordRef word : words) {
    SlabRecord& record = word.record();
    const std::uint64_t bit = std::uint64_t{1} << (word.word() % 64);
    const std::uint64_t before =
        record.central[word.word() / 64].fetch_or(bit, std::memory_order_seq_cst);
    ACCELMM_CHECK((before & bit) == 0);
    if (record.central_count++ == 0) {
      full_.remove(record);
      partial_.push_front(record);
    }
    note_if_empty(record, table, released);
  }
}

void SlabCentral::look(std::uint64_t base, std::uint64_t entry, SlabTable& table,
                       SlabsReleased& released) {
  const MutexLock lock(mutex_);
  if (table.entry_at(base) == entry) note_if_empty(*SlabTable::record_of(entry), table, released);
}

bool SlabCentral::is_empty(const SlabRecord& record) const {
  if (record.central_count != shape().words) return false;
  for (unsigned word = 0; word < shape().words; ++word)
    if (free_in(record, word) != shape().all_of(word)) return false;
  return true;
}

void SlabCentral::note_if_empty(SlabRecord& record, SlabTable& table, SlabsReleased& released) {
  if (record.empty || !is_empty(record)) return;
  record.empty = true;
  ++empty_;
  partial_.remove(record);
  partial_.push_back(record);
  if (empty_ > spare_slabs_ && released.has_room()) release(record, table, released);
}

void SlabCentral::release(SlabRecord& record, SlabTable& table, SlabsReleased& released) {
  ACCELMM_CHECK(record.empty && released.has_room());
  partial_.remove(record);
  table.erase(record);
  for (auto& words : record.central) words.store(0, std::memory_order_seq_cst);
  record.empty = false;
  record.central_count = 0;
  record.next = records_;
  records_ = &record;
  --slabs_;
  --empty_;
  released.bases[released.count++] = record.base;
}

void SlabCentral::release_empty(std::uint64_t kept, SlabTable& table, SlabsReleased& released) {
  const MutexLock lock(mutex_);
  while (empty_ > kept && released.has_room()) release(*partial_.last(), table, released);
}

SlabCentral::Count SlabCentral::count() const {
  const MutexLock lock(mutex_);
  Count count{.slabs = slabs_, .metadata = blocks_.capacity() * sizeof(AlignedBlock)};
  count.metadata +=
      blocks_.size() * (sizeof(SlabRecord) + cache_line + shape().words * sizeof(per_cpu::Word));
  for (const SlabList* list : {&partial_, &full_})
    for (const SlabRecord* record = list->first(); record != nullptr; record = record->next)
      for (unsigned word = 0; word < shape().words; ++word) {
        const auto free = static_cast<unsigned>(std::popcount(free_in(*record, word)));
        const auto all = static_cast<unsigned>(std::popcount(shape().all_of(word)));
        count.live += all - free;
        if (!record->is_central(word)) count.cached += free;
      }
  return count;
}

std::uint64_t SlabCentral::recount_slab(SlabRecord& record) {
  std::uint64_t wrong = 0;
  std::uint16_t words = 0;
  for (unsigned word = 0; word < shape().words; ++word) {
    const std::uint64_t bit = std::uint64_t{1} << (word % 64);
    const bool here = free_in(record, word) != 0;
    if (here) ++words;
    if (here == record.is_central(word)) continue;
    ++wrong;
    record.central[word / 64].fetch_xor(bit, std::memory_order_seq_cst);
  }
  if (record.central_count != words) ++wrong;
  record.central_count = words;
  const bool empty = is_empty(record);
  if (record.empty != empty) ++wrong;
  record.empty = empty;
  return wrong;
}

std::uint64_t SlabCentral::recount() {
  const MutexLock lock(mutex_);
  std::uint64_t wrong = 0;
  std::uint64_t slabs = 0;
  std::uint64_t empty = 0;
  SlabList partial;
  SlabList full;
  for (SlabList* list : {&partial_, &full_})
    while (SlabRecord* record = list->first()) {
      list->remove(*record);
      wrong += recount_slab(*record);
      if ((record->central_count != 0) != (list == &partial_)) ++wrong;
      ++slabs;
      if (record->empty) ++empty;
      if (record->central_count == 0)
        full.push_back(*record);
      else if (record->empty)
        partial.push_back(*record);
      else
        partial.push_front(*record);
    }
  partial_ = partial;
  full_ = full;
  wrong += (slabs_ != slabs ? 1U : 0U) + (empty_ != empty ? 1U : 0U);
  slabs_ = slabs;
  empty_ = empty;
  return wrong;
}

void SlabCentral::validate_slab(const SlabRecord& record,
                                std::span<const std::uint64_t> held) const {
  ACCELMM_CHECK(record.number == number_);
  ACCELMM_CHECK((record.base & shape().offset_mask) == 0);
  unsigned central = 0;
  for (unsigned word = 0; word < shape().words; ++word) {
    const std::uint32_t free = free_in(record, word);
    ACCELMM_CHECK((free & ~shape().all_of(word)) == 0);
    const auto [first, last] =
        std::equal_range(held.begin(), held.end(), SlabWordRef(&record, word).raw());
    const auto places = static_cast<unsigned>(last - first) + (record.is_central(word) ? 1U : 0U);
    ACCELMM_CHECK(places == (free != 0 ? 1U : 0U));
    if (record.is_central(word)) ++central;
  }
  ACCELMM_CHECK(record.central_count == central);
  ACCELMM_CHECK(record.empty == is_empty(record));
}

void SlabCentral::validate(std::span<const std::uint64_t> held, const SlabTable& table) const {
  const MutexLock lock(mutex_);
  std::uint64_t slabs = 0;
  std::uint64_t empty = 0;
  for (const SlabList* list : {&partial_, &full_}) {
    bool at_the_end = false;
    for (const SlabRecord* record = list->first(); record != nullptr; record = record->next) {
      validate_slab(*record, held);
      ACCELMM_CHECK((record->central_count != 0) == (list == &partial_));
      ACCELMM_CHECK(record->empty || !at_the_end);
      at_the_end = record->empty;
      ACCELMM_CHECK(record->next == nullptr || record->next->previous == record);
      for (std::uint64_t offset = 0; offset <= shape().offset_mask; offset += 1U << slab_unit_log2)
        ACCELMM_CHECK(table.entry_at(record->base + offset) == SlabTable::entry_of(*record));
      ++slabs;
      if (record->empty) ++empty;
    }
  }
  ACCELMM_CHECK(slabs == slabs_);
  ACCELMM_CHECK(empty == empty_);
}

}  // namespace accelmm::mm
