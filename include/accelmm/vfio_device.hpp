// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/bus.hpp>
#include <accelmm/error.hpp>
#include <accelmm/pci_address.hpp>
#include <accelmm/units.hpp>

#include <cstdint>
#include <memory>
#include <span>

namespace accelmm {

class VfioKernel;

/// The registers of a device: one of its BARs.
///
/// Owns      a mapping of it where the kernel gives one; else each access is a system call.
/// Units     offsets in bytes into the BAR.
/// Threads   any; each access of 4 or 8 bytes is one access of the device.
/// Lifetime  move-only; keeps the device's files open.
class VfioRegion {
 public:
  VfioRegion(VfioRegion&&) noexcept;
  VfioRegion& operator=(VfioRegion&&) noexcept;
  ~VfioRegion();

  /// Errors  invalid_argument: the offset is unaligned or beyond the end.  Any errno of pread(2) and
  ///         pwrite(2), where it is not mapped.
  [[nodiscard]] Result<std::uint32_t> read32(ByteCount offset) const;
  [[nodiscard]] Result<std::uint64_t> read64(ByteCount offset) const;
  [[nodiscard]] Result<void> write32(ByteCount offset, std::uint32_t value);
  [[nodiscard]] Result<void> write64(ByteCount offset, std::uint64_t value);

  [[nodiscard]] ByteCount size() const;
  [[nodiscard]] bool is_mapped() const;

 private:
  friend class VfioDevice;
  struct State;
  explicit VfioRegion(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

/// One interrupt of a device.
///
/// Threads   one waits; any other cancels.
/// Lifetime  move-only; destroying it switches the interrupt off. Not while a thread waits.
class VfioInterrupt {
 public:
  enum class Kind : std::uint8_t { msix, msi, intx };

  VfioInterrupt(VfioInterrupt&&) noexcept;
  VfioInterrupt& operator=(VfioInterrupt&&) noexcept;
  ~VfioInterrupt();

  /// Waits for an interrupt that came since the last wait() returned. Several that came together may
  /// count as one: look at the device's registers.
  /// `deadline_ns`  of CLOCK_MONOTONIC.
  /// Errors  timed_out: the deadline came first.  canceled: cancel() was called.
  [[nodiscard]] Result<void> wait(std::uint64_t deadline_ns);
  /// Lets the next interrupt come: a line that several devices share is masked once it was signalled.
  /// To be called after the device was told to lower it; others need none.
  [[nodiscard]] Result<void> rearm();
  /// Ends the wait() that is under way, and all later ones.
  void cancel() noexcept;

  [[nodiscard]] Kind kind() const;

 private:
  friend class VfioDevice;
  struct State;
  explicit VfioInterrupt(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

/// A PCI device that is bound to vfio-pci, behind the machine's IOMMU.
///
/// Owns      its group, its IOMMU domain and its files. When the last part of it is gone, the kernel
///           resets the device, ends its mappings and lets go of what was pinned: also when the
///           process is killed.
/// Threads   externally synchronised; what it gives out says so itself.
/// Lifetime  regions, interrupts and buses live on without it.
/// Errors    protocol_error, from every function: the kernel answered nonsense.
class VfioDevice {
 public:
  /// Errors  no_device: there is no such device, it is not behind an IOMMU, or not bound to
  ///         vfio-pci.  busy: it is in use, or a device of its group belongs to a driver of the
  ///         kernel.  not_supported: no VFIO here, or no PCI device.  EACCES: the group's file
  ///         refuses this user.
  [[nodiscard]] static Result<std::unique_ptr<VfioDevice>> open(const PciAddress& address);
  /// The same over a model of the kernel, which outlives all that comes of it.
  [[nodiscard]] static Result<std::unique_ptr<VfioDevice>> open(const PciAddress& address,
                                                                VfioKernel& kernel);
  ~VfioDevice();
  VfioDevice(const VfioDevice&) = delete;
  VfioDevice& operator=(const VfioDevice&) = delete;

  struct Identity {
    std::uint16_t vendor;
    std::uint16_t device;
    bool operator==(const Identity&) const = default;
  };
  [[nodiscard]] Result<Identity> identity() const;

  /// The registers behind BAR 0 to 5.
  /// Errors  invalid_argument: no such number.  no_device: the device has no such BAR.
  [[nodiscard]] Result<VfioRegion> region(unsigned bar) const;

  enum class BusMaster : std::uint8_t { off, on };
  /// Lets the device reach memory by itself, or stops it. Off at first.
  [[nodiscard]] Result<void> set_bus_master(BusMaster wanted);

  /// Switches the device's first interrupt on: MSI-X or MSI where it has them, else its line. One at
  /// a time.
  /// Errors  not_supported: it has none.
  [[nodiscard]] Result<VfioInterrupt> interrupt() const;

  /// Puts the device into the state after power-on; BARs and bus mastering are as the kernel leaves
  /// them.
  /// Errors  not_supported: nobody can.
  [[nodiscard]] Result<void> reset();

  /// Ranges that the IOMMU maps, and the sizes of its pages (bit n: 2^n bytes).
  [[nodiscard]] std::span<const Range<BusAddr>> bus_addresses() const;
  [[nodiscard]] std::uint64_t page_sizes() const;

  /// What DeviceDescription::make_bus takes: a bus whose addresses have at most `address_bits` bits.
  /// Throws std::bad_alloc.
  [[nodiscard]] BusFactory bus_factory(unsigned address_bits) const;

 private:
  struct State;
  explicit VfioDevice(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace accelmm
