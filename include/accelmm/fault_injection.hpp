// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>

/// Makes chosen system calls fail, so that tests can walk every error path.
///
/// Every wrapper in base/system.hpp passes a point before it calls the system. A test installs a
/// hook that sees each point and may answer with an errno (the call is not made and fails with it),
/// or do anything else there, such as killing a process. Without a hook a point costs one relaxed
/// load.
namespace accelmm::fault_injection {

/// Sees one point. `site` is a literal naming the system call. Returns 0 to go on, or an errno.
/// Called from any thread; must not allocate through accelmm.
using Hook = int (*)(void* context, const char* site) noexcept;

/// Installs a hook for the whole process, or removes it (nullptr). Not to be called while other
/// threads pass points, except to remove.
void install(Hook hook, void* context) noexcept;

extern std::atomic<Hook> installed_hook;
int call_hook(const char* site) noexcept;

/// Passes a point: 0, or the errno that the call must fail with.
inline int point(const char* site) noexcept {
  if (installed_hook.load(std::memory_order_acquire) == nullptr) [[likely]]
    return 0;
  return call_hook(site);
}

}  // namespace accelmm::fault_injection
