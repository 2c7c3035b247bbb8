// SPDX-License-Identifier: Apache-2.0
#include "bus/vfio_interrupt.hpp"

#include "base/system.hpp"

#include <array>
#include <cstring>
#include <limits>
#include <new>
#include <utility>

#include <linux/vfio.h>

namespace accelmm {
namespace {

using Kind = VfioInterrupt::Kind;

constexpr std::uint32_t index_of(Kind kind) {
  switch (kind) {
    case Kind::msix:
      return VFIO_PCI_MSIX_IRQ_INDEX;
    case Kind::msi:
      return VFIO_PCI_MSI_IRQ_INDEX;
    case Kind::intx:
      return VFIO_PCI_INTX_IRQ_INDEX;
  }
  std::unreachable();
}

/// Whether the device has interrupts of a kind that an eventfd can hear.
Result<bool> has(const VfioFiles& files, Kind kind) {
  if (index_of(kind) >= files.interrupts) return false;
  vfio_irq_info info{};
  info.argsz = sizeof info;
  info.index = index_of(kind);
  const auto told =
      files.kernel().control(files.device.view(), VFIO_DEVICE_GET_IRQ_INFO,
                             VfioKernel::address_of(info), "vfio_device_get_irq_info");
  if (!told) return fail(told.error());
  return info.count > 0 && (info.flags & VFIO_IRQ_INFO_EVENTFD) != 0;
}

/// struct vfio_irq_set with one eventfd behind it, which the kernel's own leaves without bounds.
struct IrqSet {
  std::uint32_t argsz;
  std::uint32_t flags;
  std::uint32_t index;
  std::uint32_t start;
  std::uint32_t count;
  std::int32_t event;
};
static_assert(offsetof(IrqSet, event) == sizeof(vfio_irq_set));

/// For the first interrupt of a kind.
IrqSet irq_set(Kind kind, std::uint32_t flags, std::uint32_t count) {
  return {.argsz = sizeof(vfio_irq_set),
          .flags = flags,
          .index = index_of(kind),
          .start = 0,
          .count = count,
          .event = -1};
}

int milliseconds_until(std::uint64_t deadline_ns) {
  const std::uint64_t now = sys::monotonic_ns();
  if (deadline_ns <= now) return 0;
  const std::uint64_t ms = (deadline_ns - now - 1) / 1'000'000 + 1;
  constexpr std::uint64_t longest = std::numeric_limits<int>::max();
  return static_cast<int>(std::min(ms, longest));
}

}  // namespace

VfioInterrupt::State::~State() {
  if (!on) return;
  // A device whose files are being closed loses its interrupts anyway: an error changes nothing.
  IrqSet set = irq_set(kind, VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER, 0);
  (void)files->kernel().control_surely(files->device.view(), VFIO_DEVICE_SET_IRQS,
                                       VfioKernel::address_of(set));
}

Result<std::unique_ptr<VfioInterrupt::State>> VfioInterrupt::State::open(
    std::shared_ptr<const VfioFiles> files) try {
  for (const Kind kind : {Kind::msix, Kind::msi, Kind::intx}) {
    const auto there = has(*files, kind);
    if (!there) return fail(there.error());
    if (!*there) continue;
    auto event = sys::eventfd();
    if (!event) return fail(event.error());
    auto state = std::make_unique<State>(std::move(files), kind, std::move(*event));
    if (auto on = state->switch_on(); !on) return fail(on.error());
    return state;
  }
  return fail(Errc::not_supported, "device has no interrupt");
} catch (const std::bad_alloc&) {
  return fail(Errc::no_memory, "no memory for an interrupt");
}

Result<void> VfioInterrupt::State::switch_on() {
  IrqSet set = irq_set(kind, VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER, 1);
  set.argsz = sizeof set;
  set.event = signalled.get();
  const auto done = files->kernel().control(files->device.view(), VFIO_DEVICE_SET_IRQS,
                                            VfioKernel::address_of(set), "vfio_device_set_irqs");
  if (!done) return fail(done.error());
  on = true;
  return {};
}

VfioInterrupt::VfioInterrupt(std::unique_ptr<State> state) : state_(std::move(state)) {}
VfioInterrupt::VfioInterrupt(VfioInterrupt&&) noexcept = default;
VfioInterrupt& VfioInterrupt::operator=(VfioInterrupt&&) noexcept = default;
VfioInterrupt::~VfioInterrupt() = default;

Result<void> VfioInterrupt::wait(std::uint64_t deadline_ns) {
  while (true) {
    if (state_->canceled.load(std::memory_order_acquire))
      return fail(Errc::canceled, "waiting for an interrupt was canceled");
    std::array<std::byte, sizeof(std::uint64_t)> count;
    const auto taken = sys::read(state_->signalled.view(), count);
    if (taken && !state_->canceled.load(std::memory_order_acquire)) return {};
    if (taken) continue;
    if (taken.error().code != Errc::try_again) return fail(taken.error());
    const int timeout = milliseconds_until(deadline_ns);
    if (timeout == 0) return fail(Errc::timed_out, "no interrupt came");
    const auto ready = sys::poll_one(state_->signalled.view(), POLLIN, timeout);
    if (!ready) return fail(ready.error());
  }
}

Result<void> VfioInterrupt::rearm() {
  if (state_->kind != Kind::intx) return {};
  IrqSet set = irq_set(Kind::intx, VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_UNMASK, 1);
  const VfioFiles& files = *state_->files;
  const auto done = files.kernel().control(files.device.view(), VFIO_DEVICE_SET_IRQS,
                                           VfioKernel::address_of(set), "vfio_device_set_irqs");
  if (!done) return fail(done.error());
  return {};
}

void VfioInterrupt::cancel() noexcept {
  state_->canceled.store(true, std::memory_order_release);
  // An eventfd that is full is readable, which is all that is wanted.
  constexpr std::uint64_t one = 1;
  (void)sys::write(state_->signalled.view(), std::as_bytes(std::span(&one, 1)));
}

VfioInterrupt::Kind VfioInterrupt::kind() const {
  return state_->kind;
}

}  // namespace accelmm
