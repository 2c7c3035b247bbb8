// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <string>
#include <string_view>

namespace accelmm::bench {

/// Another allocator of memory by size, called through its own functions.
///
/// Every peer stands in the same binary as ours, and none of them replaces the program's malloc.
struct Peer {
  std::string name;
  std::string object;   ///< the file that the functions lie in, as dladdr tells, and its version
  std::string missing;  ///< why it cannot be measured here; empty if it can
  void* (*allocate)(std::size_t size) = nullptr;
  void* (*allocate_aligned)(std::size_t alignment, std::size_t size) = nullptr;
  void (*free)(void* memory) = nullptr;
  /// What must be done once, before the first allocation. Returns what went wrong, or an empty
  /// string. Null where there is nothing to do.
  std::string (*start)() = nullptr;
};

struct PeerName {
  const char* name;
  bool thread_safe;  ///< whether several threads may call at once
};

/// All that allocate by size. Known before any is loaded, so that each has its row even where it
/// is missing.
inline constexpr std::array<PeerName, 7> malloc_peer_names{{{"glibc", true},
                                                            {"jemalloc", true},
                                                            {"mimalloc", true},
                                                            {"tcmalloc", true},
                                                            {"tbb", true},
                                                            {"dpdk-malloc", true},
                                                            {"boost-interprocess", false}}};

/// The peer of that name, one of malloc_peer_names. The first call loads all.
[[nodiscard]] const Peer& malloc_peer(std::string_view name);

[[nodiscard]] Peer glibc_peer();
[[nodiscard]] Peer jemalloc_peer();
[[nodiscard]] Peer mimalloc_peer();
[[nodiscard]] Peer tcmalloc_peer();
[[nodiscard]] Peer tbb_peer();
[[nodiscard]] Peer dpdk_malloc_peer();
[[nodiscard]] Peer boost_interprocess_peer();

/// The file that a function lies in, without symbolic links.
[[nodiscard]] std::string object_of(const void* function);

/// Starts DPDK's environment without huge pages, devices and rights, once. Returns what went wrong,
/// or an empty string.
[[nodiscard]] std::string start_dpdk();

/// Where the part of DPDK's mempool lies that is not inlined.
[[nodiscard]] std::string dpdk_mempool_object();

/// One line for each peer that the report compares with: its name, and the object it resolved to.
void print_peers();

}  // namespace accelmm::bench
