// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "peers/peer.hpp"
#include "subjects.hpp"

#include <cstdint>
#include <string>
#include <utility>

#include <benchmark/benchmark.h>

namespace accelmm::bench {

/// Registers the benchmark mm/WORK/WHO.
template <class Body>
benchmark::internal::Benchmark* add_row(const std::string& work, const std::string& who,
                                        Body body) {
  return benchmark::RegisterBenchmark(("mm/" + work + "/" + who).c_str(), std::move(body));
}

/// Why a peer cannot run, or an empty string once it is started.
[[nodiscard]] inline std::string start(const Peer& peer) {
  if (!peer.missing.empty()) return peer.missing;
  return peer.start == nullptr ? std::string() : peer.start();
}

enum class Threads : std::uint8_t { one, several };

/// Registers mm/WORK/PEER for each peer that allocates by size. `body` takes the state and a
/// MallocSubject&&. A peer that is not there makes its row fail.
template <class Body, class Configure>
void add_malloc_rows(const std::string& work, Body body, Configure configure,
                     Threads threads = Threads::one) {
  for (const PeerName& peer : malloc_peer_names) {
    if (threads == Threads::several && !peer.thread_safe) continue;
    configure(add_row(work, peer.name, [body, peer](benchmark::State& state) {
      const Peer& found = malloc_peer(peer.name);
      if (const std::string flaw = start(found); !flaw.empty())
        return state.SkipWithError(flaw.c_str());
      body(state, MallocSubject(found));
    }));
  }
}

template <class Body>
void add_malloc_rows(const std::string& work, Body body) {
  add_malloc_rows(work, body, [](benchmark::internal::Benchmark*) {});
}

}  // namespace accelmm::bench
