// SPDX-License-Identifier: Apache-2.0
#include "devices/hosted_device.hpp"

#include "base/mapping.hpp"
#include "devices/client_port.hpp"
#include "devices/in_loop.hpp"
#include "devices/ioctl_args.hpp"

#include <algorithm>
#include <new>
#include <utility>

namespace accelmm::devices {
namespace {

// Tables begin one page up, so that no root register ever holds 0, which reads as "none".
constexpr ByteCount first_table(4096);

Result<void> check(const DeviceDescription& description) {
  if (description.driver_name.empty() || description.driver_name.size() >= ACCELMM_NAME_SIZE)
    return fail(Errc::invalid_argument, "driver name is not 1 to 31 bytes long");
  if (const auto& memory = description.memory) {
    const std::uint64_t page = memory->native_page.value();
    if (page == 0 || page % host_page_size().value() != 0)
      return fail(Errc::invalid_argument, "native page is not whole pages of the host");
    if (memory->size.value() % page != 0 || memory->private_size.value() % page != 0 ||
        memory->private_size >= memory->size)
      return fail(Errc::invalid_argument, "device memory is not whole pages with room to allocate");
    if (memory->pressure.low > ByteCount(0) && memory->pressure.critical > memory->pressure.low)
      return fail(Errc::invalid_argument, "critical shortage begins before the low one");
    if (memory->size > WindowBus::host_base - BusAddr(0))
      return fail(Errc::invalid_argument,
                  "device memory reaches into the bus addresses of the host");
  }
  if (const auto& mmu = description.mmu) {
    if (!description.memory || description.memory->private_size <= first_table)
      return fail(Errc::invalid_argument, "page tables need private device memory");
    if (mmu->address_spaces == 0 || mmu->make_address_space == nullptr || mmu->va.empty())
      return fail(Errc::invalid_argument, "MMU has no format, no address space or no addresses");
  }
  const auto& quota = description.session_quota;
  if (quota.buffers == 0 || quota.buffers > HandleTable<int>::max_capacity)
    return fail(Errc::invalid_argument, "quota of buffers is zero or beyond what handles can name");
  return {};
}

/// Passes a shortage of device memory on to the driver.
class DriverEvictor final : public Evictor {
 public:
  explicit DriverEvictor(Driver& driver) : driver_(driver) {}
  [[nodiscard]] ByteCount evict(ByteCount needed) noexcept override {
    return driver_.evict(needed);
  }

 private:
  Driver& driver_;  // outlives every session, and only sessions allocate
};

// Takes back, when this ends, an address space that no session came to own.
struct UnusedSpace {
  UnusedSpace(mmu::AddressSpace& of, mmu::AsidPool& from) : tables(&of), asids(from) {}
  UnusedSpace(const UnusedSpace&) = delete;
  UnusedSpace& operator=(const UnusedSpace&) = delete;
  ~UnusedSpace() {
    if (tables == nullptr) return;
    tables->unmap_all().release(mmu::InvalidationDone::never_shown());
    if (asid != 0) asids.give_back(asid, mmu::InvalidationDone::never_shown());
  }

  mmu::AddressSpace* tables;  // null: it is used
  mmu::AsidPool& asids;
  std::uint32_t asid = 0;
};

}  // namespace

HostedDevice::HostedDevice(DeviceDescription description, std::unique_ptr<Driver> driver,
                           std::uint32_t number, Transport& transport, Regions regions)
    : description_(std::move(description)),
      transport_(transport),
      host_(std::move(regions.host)),
      memory_(std::move(regions.memory)),
      pressure_(std::move(regions.pressure)),
      driver_(std::move(driver)),
      account_(std::make_shared<Account>(
          Account::Options{.name = {AccountName::Level::device, number}})),
      users_(description_.uid_quota, account_),
      job_counters_(std::make_shared<JobCounters>()) {}

HostedDevice::~HostedDevice() {
  shut_down();
}

Result<std::shared_ptr<HostedDevice>> HostedDevice::create(DeviceDescription description,
                                                           std::unique_ptr<Driver> driver,
                                                           std::uint32_t number,
                                                           Transport& transport,
                                                           std::shared_ptr<Region> host) {
  if (const auto checked = check(description); !checked) return fail(checked.error());
  if (description.mmu.has_value() != (driver->mmu() != nullptr))
    return fail(Errc::invalid_argument, "driver and description disagree about an MMU");
  std::shared_ptr<Region> memory;
  std::shared_ptr<PressureWatch> pressure;
  if (description.memory) {
    pressure = std::make_shared<PressureWatch>(transport, *driver);
    auto made = Region::create({.domain = Domain::device,
                                .size = description.memory->size,
                                .reserved = description.memory->private_size,
                                .native_page = description.memory->native_page,
                                .evictor = std::make_shared<DriverEvictor>(*driver),
                                .pressure = description.memory->pressure,
                                .listener = pressure,
                                .sharing = host->back_ends()});
    if (!made) return fail(made.error());
    memory = std::move(*made);
  }
  std::shared_ptr<HostedDevice> self(
      new HostedDevice(std::move(description), std::move(driver), number, transport,
                       {std::move(host), std::move(memory), std::move(pressure)}));
  self->bus_ = std::make_unique<WindowBus>(self->memory_ ? &self->memory_->window() : nullptr,
                                           self->host_->window());
  self->device_ =
      std::make_unique<Device>(number, *self->bus_,
                               [&transport, held = std::weak_ptr(self)](
                                   const Defragmentation& wanted, DefragmentedFunction done) {
                                 transport.post([held, wanted, done = std::move(done)]() mutable {
                                   if (const auto device = held.lock())
                                     return device->defragment(wanted, std::move(done));
                                   done(fail(Errc::no_device, "device is gone"));
                                 });
                               });
  if (const auto ready = self->prepare_tables(); !ready) return fail(ready.error());
  if (const auto ready = self->prepare_ioctls(); !ready) return fail(ready.error());
  return self;
}

Result<void> HostedDevice::prepare_tables() {
  if (!description_.mmu) return {};
  const RegionOffset begin = RegionOffset(0) + first_table;
  auto pool = mmu::TablePool::create({.begin = bus_->device(begin),
                                      .size = description_.memory->private_size - first_table,
                                      .cpu_view = memory_->window().data(begin)});
  if (!pool) return fail(pool.error());
  tables_.emplace(std::move(*pool));
  asids_.emplace(description_.mmu->address_spaces, description_.mmu->va);
  return {};
}

Result<void> HostedDevice::prepare_ioctls() {
  driver_->ioctls(driver_ioctls_);
  for (const auto& entry : driver_ioctls_.entries()) {
    const auto number = _IOC_NR(entry.command);
    if (_IOC_TYPE(entry.command) != ACCELMM_IOCTL_TYPE || number < ACCELMM_DRIVER_IOCTL_BEGIN ||
        number >= ACCELMM_DRIVER_IOCTL_END)
      return fail(Errc::invalid_argument, "driver's ioctl is outside its range");
    for (const auto& reserved : entry.reserved)
      if (reserved.offset > args_size(entry) || reserved.size > args_size(entry) - reserved.offset)
        return fail(Errc::invalid_argument, "reserved bytes lie outside the struct");
    if (find_ioctl(driver_ioctls_, entry.command) != &entry)
      return fail(Errc::invalid_argument, "two ioctls of the driver have one number");
  }
  return {};
}

void HostedDevice::probe(Completion done) {
  auto probed = [this, done = std::move(done)](Result<void> result) mutable {
    if (result) driven_ = Driven::yes;
    done(result);
  };
  driver_->probe(*device_, in_loop(transport_, std::move(probed)));
}

void HostedDevice::remove(Completion done) {
  removed_ = true;
  // Ends when the last copy of this goes.
  auto all_stopped =
      std::make_shared<Completion>([done = std::move(done)](Result<void>) mutable { done({}); });
  for (const auto& opener : std::exchange(openers_, {}))
    opener->opened(fail(Errc::no_device, "device was removed"));
  for (const auto& port : ports_) {
    port->abandon_waits(Errc::no_device);
    if (port->session() == nullptr) continue;
    port->session()->stop(Completion([all_stopped](Result<void>) {}));
  }
}

void HostedDevice::keep_until_empty() {
  if (!ports_.empty()) self_ = shared_from_this();
}

void HostedDevice::disconnect(Completion done) {
  ACCELMM_CHECK(removed_);
  const auto ports = ports_;
  for (const auto& port : ports) port->hang_up();
  if (ports_.empty()) return done({});
  when_empty_.emplace(std::move(done));
}

ConnectionEvents* HostedDevice::accept(NodeKind kind, std::unique_ptr<Connection> connection) try {
  const auto port = std::make_shared<ClientPort>(*this, kind, std::move(connection));
  port->await_hello();
  ports_.push_back(port);
  return port.get();
} catch (const std::bad_alloc&) {
  return nullptr;  // and the connection is hung up
}

HostedDevice::Admission HostedDevice::admission(const ClientPort& opener) const {
  bool taken = false;
  bool ending = false;
  for (const auto& port : ports_) {
    if (port.get() == &opener || port->session() == nullptr) continue;
    taken = true;
    ending = ending || port->is_ending();
  }
  const bool free = description_.compute_sessions == ComputeSessions::one
                        ? !taken
                        : !asids_ || asids_->any_free();
  if (free) return Admission::now;
  return ending ? Admission::later : Admission::refused;
}

void HostedDevice::open_session(const std::shared_ptr<ClientPort>& port) {
  switch (admission(*port)) {
    case Admission::now:
      return start_session(port);
    case Admission::later:  // its place is being made free: no need to try again
      openers_.push_back(port);
      return;
    case Admission::refused:
      return port->opened(fail(Errc::busy, "device is held by another session"));
  }
}

void HostedDevice::start_session(const std::shared_ptr<ClientPort>& port) {
  auto session = make_session(port->peer());
  if (!session) return port->opened(fail(session.error()));
  port->adopt(std::move(*session));
  port->session()->open(Completion([port](Result<void> result) { port->opened(result); }));
}

Result<std::unique_ptr<ComputeSession>> HostedDevice::make_session(const Peer& peer) try {
  auto buffers =
      HandleTable<std::shared_ptr<Allocation>>::create(description_.session_quota.buffers);
  if (!buffers) return fail(buffers.error());
  if (!description_.mmu)
    return std::make_unique<ComputeSession>(*this, peer, 0, nullptr, std::move(*buffers));

  auto made = description_.mmu->make_address_space(*tables_, description_.mmu->va);
  if (!made) return fail(made.error());
  std::shared_ptr<mmu::AddressSpace> tables;
  UnusedSpace unused{**made, *asids_};
  tables = std::move(*made);
  const auto asid = asids_->take();
  if (!asid) return fail(asid.error());
  unused.asid = *asid;
  auto quarantine = [this](std::move_only_function<void()> release) {
    this->quarantine(std::move(release));
  };
  auto space = std::make_unique<SessionAddressSpace>(
      AddressSpaceBinding{transport_, *bus_, *driver_->mmu(), *asid, std::move(quarantine)},
      tables);
  auto session =
      std::make_unique<ComputeSession>(*this, peer, *asid, std::move(space), std::move(*buffers));
  unused.tables = nullptr;
  return session;
} catch (const std::bad_alloc&) {
  return fail(Errc::no_memory, "no memory for a session");
}

void HostedDevice::forget(const std::shared_ptr<ClientPort>& port) {
  const auto self = shared_from_this();
  if (const ComputeSession* session = port->session()) retire_asid(*session);
  port->release_session();
  openers_.remove(port);
  ports_.remove(port);
  open_waiting();
  if (ports_.empty() && removed_) {
    shut_down();
    self_.reset();  // `self` above is the last
    if (auto done = std::exchange(when_empty_, std::nullopt)) (*done)({});
  }
}

void HostedDevice::retire_asid(const ComputeSession& session) {
  const std::uint32_t asid = session.session().asid();
  if (asid == 0) return;
  if (const auto& done = session.forgotten())
    asids_->give_back(asid, *done);
  else
    asids_->taint(asid);
}

void HostedDevice::open_waiting() {
  while (!openers_.empty()) {
    const auto port = openers_.front();
    const Admission admitted = admission(*port);
    if (admitted == Admission::later) return;
    openers_.pop_front();
    if (port->has_ended()) continue;  // it is forgotten in a turn of its own
    if (admitted == Admission::now)
      start_session(port);
    else
      port->opened(fail(Errc::busy, "device is held by another session"));
  }
}

void HostedDevice::quarantine(std::move_only_function<void()> release) {
  until_memory([&] { quarantine_.reserve(quarantine_.size() + 1); });
  quarantine_.push_back(std::move(release));
}

// The hardware goes down, and with it all that it might still have reached.
void HostedDevice::shut_down() {
  if (pressure_) pressure_->forget_driver();
  if (std::exchange(driven_, Driven::removed) == Driven::yes) driver_->remove(*device_);
  for (auto& release : std::exchange(quarantine_, {})) release();
}

std::shared_ptr<Timeline> HostedDevice::make_job_timeline() {
  return std::make_shared<Timeline>(
      [counters = job_counters_](std::uint64_t ended, const std::optional<Fault>& fault) {
        counters->jobs.fetch_add(ended, std::memory_order_relaxed);
        if (!fault) return;
        counters->faults.fetch_add(1, std::memory_order_relaxed);
        const std::lock_guard lock(counters->mutex);
        counters->last_fault = *fault;
      });
}

std::uint64_t HostedDevice::next_session_id() {
  static std::atomic<std::uint64_t> last{0};
  return last.fetch_add(1, std::memory_order_relaxed) + 1;
}

}  // namespace accelmm::devices
