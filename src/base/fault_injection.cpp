// SPDX-License-Identifier: Apache-2.0
#include <accelmm/fault_injection.hpp>

namespace accelmm::fault_injection {

std::atomic<Hook> installed_hook{nullptr};

namespace {

// Published by the release store of installed_hook, and left alone when the hook is removed: a
// thread that has just loaded the old hook still calls it with its own context.
std::atomic<void*> installed_context{nullptr};

}  // namespace

void install(Hook hook, void* context) noexcept {
  if (hook != nullptr) installed_context.store(context, std::memory_order_relaxed);
  installed_hook.store(hook, std::memory_order_release);
}

int call_hook(const char* site) noexcept {
  const Hook hook = installed_hook.load(std::memory_order_acquire);
  if (hook == nullptr) return 0;
  return hook(installed_context.load(std::memory_order_relaxed), site);
}

}  // namespace accelmm::fault_injection
