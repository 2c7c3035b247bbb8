// SPDX-License-Identifier: Apache-2.0
#include "npu_model_mmu.hpp"

// Theory: three caches stand before the walk, none of which looks at memory again once it is
// filled. An address is looked up among the 4 KiB leaves, then among the 2 MiB leaves; on a miss, a
// known last-level table saves four of the five reads. So two different things go stale: a leaf,
// and a pointer to a table that was freed since and may hold anything by now. Where faults are
// cached, that nothing was mapped is the third. All are keyed by ASID and dropped by invalidate()
// only.

namespace accelmm::sim {
namespace {

constexpr std::uint64_t address_end = std::uint64_t{1} << NpuWalker::address_bits;

std::uint64_t small_number(DeviceAddr address) {
  return address.value() / NpuWalker::page_size;
}
std::uint64_t big_number(DeviceAddr address) {
  return address.value() / NpuWalker::table_span;
}

void add(std::atomic<std::uint64_t>& counter, std::uint64_t n) {
  counter.fetch_add(n, std::memory_order_relaxed);
}

}  // namespace

NpuMmu::NpuMmu(BusPort& bus, const NpuModelOptions& options)
    : bus_(bus),
      walker_(bus),
      small_leaves_(options.tlb_entries),
      big_leaves_(options.tlb_entries),
      last_tables_(options.tlb_entries),
      faults_(options.tlb_entries),
      negative_entries_(options.negative_entries) {}

void NpuMmu::set_root(std::uint32_t asid, BusAddr root) {
  roots_[asid].store(root.value() | root_valid, std::memory_order_release);
}

void NpuMmu::clear_root(std::uint32_t asid) {
  if (asid < root_count) roots_[asid].store(0, std::memory_order_release);
}

std::expected<void, NpuFault> NpuMmu::read(std::uint32_t asid, DeviceAddr address,
                                           std::span<std::byte> into) {
  const auto target = translate(asid, address, Access::read);
  if (!target) return std::unexpected(target.error());
  if (!bus_.read(target->address, into))
    return std::unexpected(
        NpuFault{address, Access::read, asid, target->level, NpuFaultKind::bus_error});
  add(counters_.bytes_read, into.size());
  return {};
}

std::expected<void, NpuFault> NpuMmu::write(std::uint32_t asid, DeviceAddr address,
                                            std::span<const std::byte> from) {
  const auto target = translate(asid, address, Access::write);
  if (!target) return std::unexpected(target.error());
  if (!bus_.write(target->address, from))
    return std::unexpected(
        NpuFault{address, Access::write, asid, target->level, NpuFaultKind::bus_error});
  add(counters_.bytes_written, from.size());
  return {};
}

std::expected<NpuMmu::Target, NpuFault> NpuMmu::translate(std::uint32_t asid, DeviceAddr address,
                                                          Access access) {
  const auto fault = [&](std::uint32_t level, NpuFaultKind kind) {
    return std::unexpected(NpuFault{address, access, asid, level, kind});
  };
  if (address.value() >= address_end) return fault(0, NpuFaultKind::non_canonical);
  // An address space that is switched off reaches nothing, whatever the TLB still holds of it.
  if (asid >= root_count || roots_[asid].load(std::memory_order_acquire) == 0)
    return fault(0, NpuFaultKind::no_address_space);
  NpuLeaf leaf;
  if (const NpuLeaf* known = look_up(asid, address)) {
    add(counters_.tlb_hits, 1);
    leaf = *known;
  } else {
    add(counters_.tlb_misses, 1);
    const auto walked = walk(asid, address);
    if (!walked) return fault(walked.error().level, walked.error().kind);
    leaf = *walked;
  }
  if (access == Access::write ? !leaf.writable : !leaf.readable)
    return fault(leaf.level, NpuFaultKind::not_permitted);
  const std::uint64_t offset = address.value() % leaf.size;
  return Target{leaf.memory + ByteCount(offset), leaf.level};
}

const NpuLeaf* NpuMmu::look_up(std::uint32_t asid, DeviceAddr address) const {
  const NpuLeaf* leaf = small_leaves_.find(asid, small_number(address));
  return leaf != nullptr ? leaf : big_leaves_.find(asid, big_number(address));
}

std::expected<NpuLeaf, NpuWalkFault> NpuMmu::walk(std::uint32_t asid, DeviceAddr address) {
  if (const NpuWalkFault* known = faults_.find(asid, small_number(address)))
    return std::unexpected(*known);
  const BusAddr* known_table = last_tables_.find(asid, big_number(address));
  NpuWalker::Walk walk;
  if (known_table != nullptr) {
    walk = walker_.walk_last(*known_table, address);
  } else {
    const std::uint64_t root = roots_[asid].load(std::memory_order_acquire);
    if (root == 0) return std::unexpected(NpuWalkFault{0, NpuFaultKind::no_address_space});
    walk = walker_.walk(BusAddr(root & ~root_valid), address);
    if (walk.has_last_table) last_tables_.insert(asid, big_number(address), walk.last_table);
  }
  add(counters_.table_reads, walk.reads);
  if (walk.result) {
    const bool big = walk.result->size != NpuWalker::page_size;
    if (big)
      big_leaves_.insert(asid, big_number(address), *walk.result);
    else
      small_leaves_.insert(asid, small_number(address), *walk.result);
  } else if (negative_entries_ == NpuModelOptions::NegativeEntries::cached &&
             walk.result.error().kind == NpuFaultKind::not_present) {
    faults_.insert(asid, small_number(address), walk.result.error());
  }
  return walk.result;
}

std::expected<void, NpuFault> NpuMmu::move(BusAddr from, BusAddr to, std::span<std::byte> via) {
  const auto refused = [](BusAddr address, Access access) {
    return std::unexpected(
        NpuFault{DeviceAddr(address.value()), access, 0, 0, NpuFaultKind::bus_error});
  };
  if (!bus_.read(from, via)) return refused(from, Access::read);
  counters_.bytes_read.fetch_add(via.size(), std::memory_order_relaxed);
  if (!bus_.write(to, via)) return refused(to, Access::write);
  counters_.bytes_written.fetch_add(via.size(), std::memory_order_relaxed);
  return {};
}

void NpuMmu::invalidate(std::uint32_t asid, Range<DeviceAddr> range) {
  if (range.empty()) return;
  const DeviceAddr last = range.end - ByteCount(1);
  small_leaves_.erase(asid, small_number(range.begin), small_number(last));
  big_leaves_.erase(asid, big_number(range.begin), big_number(last));
  last_tables_.erase(asid, big_number(range.begin), big_number(last));
  faults_.erase(asid, small_number(range.begin), small_number(last));
}

Result<BusAddr> NpuMmu::find_entry(std::uint32_t asid, DeviceAddr address) const {
  if (asid >= root_count || address.value() >= address_end)
    return fail(Errc::fault, "address is not mapped");
  const std::uint64_t root = roots_[asid].load(std::memory_order_acquire);
  if (root == 0) return fail(Errc::fault, "address space has no root");
  const auto walk = walker_.walk(BusAddr(root & ~root_valid), address);
  if (!walk.result) return fail(Errc::fault, "address is not mapped");
  return walk.result->entry;
}

}  // namespace accelmm::sim
