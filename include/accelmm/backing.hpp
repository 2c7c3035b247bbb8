// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/error.hpp>
#include <accelmm/uapi.h>
#include <accelmm/units.hpp>

#include <cstdint>
#include <optional>

namespace accelmm {

/// The pages that host memory is made of.
enum class PageSize : std::uint32_t {
  as_configured = ACCELMM_PAGES_DEFAULT,    ///< what the driver process prefers
  base = ACCELMM_PAGES_BASE,                ///< the host's smallest: 4 KiB
  transparent = ACCELMM_PAGES_TRANSPARENT,  ///< huge where the kernel finds some, base elsewhere
  huge_2m = ACCELMM_PAGES_HUGE_2M,          ///< of the kernel's pool of 2 MiB pages
  huge_1g = ACCELMM_PAGES_HUGE_1G,          ///< of the kernel's pool of 1 GiB pages
};

/// What the nodes of a request mean.
enum class NodeRule : std::uint32_t {
  any = ACCELMM_NODES_ANY,                ///< what the driver process prefers, or the kernel
  preferred = ACCELMM_NODES_PREFERRED,    ///< these first, others when they are full
  bind = ACCELMM_NODES_BIND,              ///< these and no others
  interleave = ACCELMM_NODES_INTERLEAVE,  ///< in turn on each of these
};

/// A set of NUMA nodes: bit n is node n. Nodes from 64 on cannot be named.
struct NodeSet {
  std::uint64_t bits = 0;
  constexpr bool operator==(const NodeSet&) const = default;
};

struct NodePolicy {
  NodeRule rule = NodeRule::any;
  NodeSet nodes;  ///< empty exactly if the rule is `any`
};

/// What happens when something that was asked for cannot be had.
enum class BackingRule : std::uint8_t {
  best_effort,  ///< the next best is taken and reported
  exact,        ///< the allocation fails
};
/// Whether pages, once they are there, may be swapped out.
enum class MemoryLock : std::uint8_t { none, locked };
/// Whether the driver process's core dumps hold the memory.
enum class CoreDumps : std::uint8_t { included, excluded };
/// Whether the memory is cleared before it goes back to the kernel.
enum class ZeroOnFree : std::uint8_t { no, yes };
/// Whether all pages are made at once, by several threads, instead of at their first use.
enum class PrefaultPages : std::uint8_t { no, yes };
/// Whether kernel drivers or other driver processes must be able to import the memory.
enum class Importable : std::uint8_t { not_needed, needed };

/// How host memory is wanted. What is left as it is follows the driver process's own request.
struct BackingRequest {
  PageSize pages = PageSize::as_configured;
  NodePolicy nodes = {};
  BackingRule rule = BackingRule::best_effort;
  MemoryLock lock = MemoryLock::none;
  CoreDumps dumps = CoreDumps::included;
  ZeroOnFree zero_on_free = ZeroOnFree::no;
  PrefaultPages prefault = PrefaultPages::no;
  Importable importable = Importable::not_needed;
};

/// Why a part of a request was not had; empty where it was, or was not asked for.
struct BackingRefusals {
  std::optional<Errc> pages;  ///< of the largest page that was tried
  std::optional<Errc> nodes;
  std::optional<Errc> lock;
  std::optional<Errc> dumps;
  std::optional<Errc> prefault;
  std::optional<Errc> sample;  ///< samples were not taken, or without huge pages
};

/// How far pages that were asked for at once have come.
enum class PrefaultState : std::uint32_t {
  none = ACCELMM_PREFAULT_NONE,  ///< not asked for, or refused
  running = ACCELMM_PREFAULT_RUNNING,
  done = ACCELMM_PREFAULT_DONE,
  failed = ACCELMM_PREFAULT_FAILED,  ///< refusals say why; what is there stays
};

/// Pages of a buffer that were looked at, evenly over it, as the driver process has them mapped.
struct PageSample {
  std::uint32_t taken = 0;
  std::uint32_t present = 0;  ///< of these
  std::uint32_t huge = 0;     ///< of those that are present
  NodeSet nodes;              ///< where those that are present are
};

/// What was had of a request.
struct BackingReport {
  PageSize pages = PageSize::base;  ///< the kind of pages that was taken
  ByteCount page_size;              ///< the largest page that this kind has
  ByteCount populated;              ///< what the kernel has taken for it, in memory or in swap
  PrefaultState prefault = PrefaultState::none;
  ByteCount prefaulted;  ///< how much of it was made at once so far
  ByteCount locked;
  PageSample sample;
  BackingRefusals refused;
};

/// Which buffers may have pages of the kernel's pools. A pool can run dry, and whoever holds a
/// writable descriptor of such a file can punch a hole into it: the driver process's next access to
/// the hole, or its device model's, is then a SIGBUS.
enum class HugetlbUse : std::uint8_t {
  none,
  read_only,     ///< buffers that nobody outside the driver process can write: nobody punches holes
  every_buffer,  ///< all: every session is trusted with the life of the driver process
};

/// Whether importable buffers may have huge pages. Linux 6.12 corrupts them where a kernel driver
/// imports them through udmabuf, so they are refused until a test of the running kernel allows it.
enum class HugeImportable : std::uint8_t { refused, allowed };

/// What a driver process lets its sessions have.
struct BackingPolicy {
  HugetlbUse hugetlb = HugetlbUse::read_only;
  HugeImportable huge_importable = HugeImportable::refused;
  std::uint32_t prefault_threads = 0;  ///< 0: one for each CPU, at most 16
};

}  // namespace accelmm
