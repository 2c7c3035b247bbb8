// SPDX-License-Identifier: Apache-2.0
//
// ACCELMM_IOCTL_INFO: the facts of a device, for applications and for monitoring.
#include "base/clock.hpp"
#include "base/mapping.hpp"
#include "devices/client_port.hpp"
#include "devices/hosted_device.hpp"

#include <algorithm>
#include <cstring>
#include <string_view>
#include <utility>

namespace accelmm::devices {
namespace {

void copy_name(std::string_view name, __u8 (&into)[ACCELMM_NAME_SIZE]) {
  const std::size_t size = std::min<std::size_t>(name.size(), ACCELMM_NAME_SIZE - 1);
  std::memcpy(into, name.data(), size);
}

template <class Facts>
Result<void> put(const Facts& facts, accelmm_info& args) {
  static_assert(sizeof facts <= ACCELMM_INFO_DATA_SIZE);
  args.size = sizeof facts;
  std::memcpy(args.data, &facts, sizeof facts);
  return {};
}

accelmm_info_fault wire_fault(const Fault& fault) {
  return {.count = 0,
          .address = fault.address.value(),
          .time_ns = 0,
          .point = 0,
          .access = static_cast<__u32>(fault.access),
          .asid = fault.asid,
          .engine = fault.engine,
          .level = fault.level};
}

}  // namespace

Result<void> HostedDevice::info(NodeKind kind, ComputeSession* session, accelmm_info& args) {
  const std::uint32_t topic = args.topic;
  if (args.size != 0) return fail(Errc::invalid_argument, "size of INFO is not zero");
  args = {};
  args.topic = topic;
  switch (topic) {
    case ACCELMM_INFO_DEVICE:
      return put(device_facts(kind), args);
    case ACCELMM_INFO_USAGE:
      return put(usage(), args);
    case ACCELMM_INFO_SESSION:
      if (session == nullptr) return fail(Errc::invalid_argument, "control nodes have no session");
      return put(session->info(), args);
    case ACCELMM_INFO_FAULT:
      return put(last_fault(session), args);
    default:
      break;
  }
  if (topic < ACCELMM_INFO_DRIVER) return fail(Errc::invalid_argument, "no such topic");
  const auto size = driver_->info(topic, std::as_writable_bytes(std::span(args.data)));
  if (!size) return fail(size.error());
  args.size = static_cast<__u32>(*size);
  return {};
}

accelmm_info_device HostedDevice::device_facts(NodeKind kind) const {
  accelmm_info_device facts{};
  copy_name(description_.driver_name, facts.driver);
  facts.driver_version = description_.driver_version;
  facts.number = device_->number();
  facts.node = kind == NodeKind::compute ? static_cast<__u32>(ACCELMM_NODE_COMPUTE)
                                         : static_cast<__u32>(ACCELMM_NODE_CONTROL);
  facts.exclusive = description_.compute_sessions == ComputeSessions::one ? 1 : 0;
  facts.memory_size = memory_ ? memory_->capacity().value() : 0;
  facts.memory_page_size = memory_ ? host_page_size().value() : 0;
  facts.host_page_size = host_page_size().value();
  facts.host_window_size = host_->size().value();
  if (!description_.mmu) return facts;
  copy_name(description_.mmu->format_name, facts.mmu_format);
  facts.va_begin = description_.mmu->va.begin.value();
  facts.va_end = description_.mmu->va.end.value();
  return facts;
}

accelmm_info_usage HostedDevice::usage() const {
  accelmm_info_usage usage{};
  usage.status = removed_ ? static_cast<__u32>(ACCELMM_STATUS_REMOVED)
                          : static_cast<__u32>(ACCELMM_STATUS_OPERATIONAL);
  for (const auto& port : ports_) {
    if (!port->is_greeted()) continue;
    ++(port->kind() == NodeKind::compute ? usage.compute_sessions : usage.control_sessions);
    if (const ComputeSession* session = port->session()) {
      usage.mappings += session->mappings();
      usage.buffers += session->buffers();
    }
  }
  // What could not be emptied when it was freed is nobody's, and is tried again.
  host_->settle();
  if (memory_) memory_->settle();
  usage.memory_total = memory_ ? memory_->capacity().value() : 0;
  usage.memory_used = memory_ ? memory_->used().value() : 0;
  usage.host_used = account_->used().value() - usage.memory_used;
  usage.page_table_bytes = tables_ ? tables_->tables_in_use() * tables_->table_bytes() : 0;
  usage.exports_total = counters_.exports;
  usage.imports_total = counters_.imports;
  usage.sessions_total = counters_.sessions;
  usage.ioctls_total = counters_.ioctls;
  usage.faults_total = job_counters_->faults.load(std::memory_order_relaxed);
  usage.jobs_total = job_counters_->jobs.load(std::memory_order_relaxed);
  usage.engine_busy_ns = device_->busy_ns();
  usage.time_ns = monotonic_ns();
  usage.memory_failures = failures_.out_of_memory();
  usage.quota_failures = failures_.over_quota();
  if (memory_) put_pressure(usage);
  return usage;
}

void HostedDevice::put_pressure(accelmm_info_usage& usage) const {
  const auto now = memory_->heap().statistics();
  usage.memory_free = (now.free + now.spare).value();
  usage.pressure = std::to_underlying(pressure_->pressure());
  usage.pressure_low = description_.memory->pressure.low.value();
  usage.pressure_critical = description_.memory->pressure.critical.value();
  usage.pressure_changes = pressure_->changes();
  usage.moves_total = counters_.moves;
  usage.moved_bytes_total = counters_.moved_bytes;
}

accelmm_info_fault HostedDevice::last_fault(const ComputeSession* session) const {
  if (session == nullptr) {
    const std::lock_guard lock(job_counters_->mutex);
    if (!job_counters_->last_fault) return {};
    accelmm_info_fault fault = wire_fault(*job_counters_->last_fault);
    fault.count = job_counters_->faults.load(std::memory_order_relaxed);
    return fault;
  }
  const auto record = session->session().jobs()->last_fault();
  if (!record) return {};
  accelmm_info_fault fault = wire_fault(record->fault);
  fault.count = record->count;
  fault.point = record->point;
  fault.time_ns = record->time_ns;
  return fault;
}

}  // namespace accelmm::devices
