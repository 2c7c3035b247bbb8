// SPDX-License-Identifier: Apache-2.0
#include "mm/backing/host_backing.hpp"

#include "base/system.hpp"
#include "mm/backing/huge_pages.hpp"
#include "mm/backing/numa_policy.hpp"
#include "mm/backing/page_sample.hpp"
#include "mm/backing/written_bytes.hpp"

#include <accelmm/check.hpp>

#include <sys/mman.h>

namespace accelmm {

namespace {

template <class Choice>
Choice stronger(Choice a, Choice b) {
  return a < b ? b : a;
}

// EPERM and ENOMEM of mlock2(2) both say that RLIMIT_MEMLOCK is in the way; a lack of memory cannot
// be the reason, for nothing is made yet.
Result<void> lock_memory(std::span<std::byte> place) {
  const auto locked = sys::lock_on_fault(place.data(), ByteCount(place.size()));
  if (locked) return {};
  const Errc code = locked.error().code;
  if (code == Errc::not_permitted || code == Errc::no_memory)
    return fail(Errc::over_quota, "the driver process may not lock so much memory");
  return locked;
}

}  // namespace

Result<BackingRequest> complete_request(const BackingRequest& request,
                                        const BackingRequest& defaults) {
  if (request.pages > PageSize::huge_1g)
    return fail(Errc::invalid_argument, "no such kind of pages");
  if (request.nodes.rule > NodeRule::interleave ||
      (request.nodes.rule == NodeRule::any) != (request.nodes.nodes == NodeSet{}))
    return fail(Errc::invalid_argument, "nodes and their rule do not fit together");
  BackingRequest whole = request;
  if (whole.pages == PageSize::as_configured) whole.pages = defaults.pages;
  if (whole.pages == PageSize::as_configured) whole.pages = PageSize::base;
  if (whole.nodes.rule == NodeRule::any) whole.nodes = defaults.nodes;
  whole.rule = stronger(request.rule, defaults.rule);
  whole.lock = stronger(request.lock, defaults.lock);
  whole.dumps = stronger(request.dumps, defaults.dumps);
  whole.zero_on_free = stronger(request.zero_on_free, defaults.zero_on_free);
  whole.prefault = stronger(request.prefault, defaults.prefault);
  whole.importable = stronger(request.importable, defaults.importable);
  return whole;
}

Result<HostBacking> HostBacking::settle(std::span<std::byte> place, const BackingRequest& request,
                                        PageSize pages, BackingRefusals refused,
                                        Prefaulter& prefaulter) {
  HostBacking backing(place, request, pages, refused);
  if (const auto asked = backing.ask_system(); !asked) return fail(asked.error());
  if (!is_hugetlb(pages)) return backing;
  auto made = prefaulter.start(place, largest_page(pages), PrefaultMeans::populate, {});
  if (!made) return fail(made.error());
  if (const auto done = made->wait(); !done) {
    if (done.error().code == Errc::invalid_argument)
      return fail(Errc::not_supported, "the kernel does not say whether its pool is empty");
    return fail(Errc::no_memory, "the pool of huge pages, or what may be had of it, is empty");
  }
  backing.prefault_.emplace(std::move(*made));
  return backing;
}

HostBacking HostBacking::imported(std::span<std::byte> place) {
  return HostBacking(place, {}, PageSize::base, {});
}

// A refusal is an error of an exact request; otherwise it is noted, and the work goes on.
Result<void> HostBacking::note(Result<void> result, std::optional<Errc>& refusal) const {
  if (result || request_.rule == BackingRule::exact) return result;
  refusal = result.error().code;
  return {};
}

Result<void> HostBacking::ask_system() {
  const ByteCount length(place_.size());
  // Before anything can touch a page, or the first ones would be of another kind or elsewhere.
  if (auto done = note(advise_pages(place_, pages_, request_.importable), refused_.pages); !done)
    return done;
  if (auto done = note(apply_node_policy(place_, request_.nodes), refused_.nodes); !done)
    return done;
  if (request_.lock == MemoryLock::locked) {
    const auto locked = lock_memory(place_);
    locked_ = locked.has_value();
    if (auto done = note(locked, refused_.lock); !done) return done;
  }
  if (request_.dumps == CoreDumps::included) return {};
  return note(sys::madvise(place_.data(), length, MADV_DONTDUMP), refused_.dumps);
}

Result<void> HostBacking::prefault(Prefaulter& prefaulter, Prefaulter::Done done) {
  ACCELMM_CHECK(!prefault_.has_value());
  auto started = prefaulter.start(place_, largest_page(pages_), PrefaultMeans::populate_or_touch,
                                  std::move(done));
  if (!started) return note(fail(started.error()), refused_.prefault);
  prefault_.emplace(std::move(*started));
  return {};
}

PrefaultState HostBacking::prefault_state(std::optional<Errc>& refused) const {
  if (!prefault_) return PrefaultState::none;
  if (!prefault_->has_ended()) return PrefaultState::running;
  const auto outcome = prefault_->wait();
  if (outcome) return PrefaultState::done;
  refused = outcome.error().code;
  return PrefaultState::failed;
}

BackingReport HostBacking::report(FdView file) const {
  BackingReport report;
  report.pages = pages_;
  report.page_size = ByteCount(largest_page(pages_).value());
  report.refused = refused_;
  report.prefault = prefault_state(report.refused.prefault);
  if (prefault_) report.prefaulted = prefault_->progress();
  if (locked_) report.locked = ByteCount(place_.size());
  // Blocks of 512 bytes, whatever the file's own block size is: stat(2).
  if (const auto status = sys::fstat(file))
    report.populated = ByteCount(static_cast<std::uint64_t>(status->st_blocks) * 512);
  const SampledPages sampled = sample_pages(place_);
  report.sample = sampled.sample;
  report.refused.sample = sampled.refused;
  return report;
}

void HostBacking::clear(FdView file) noexcept {
  prefault_.reset();
  if (request_.zero_on_free == ZeroOnFree::yes) clear_written(place_, file);
}

}  // namespace accelmm
