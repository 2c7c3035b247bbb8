// SPDX-License-Identifier: Apache-2.0
#include "devices/device_host.hpp"

#include <utility>
#include <vector>

namespace accelmm::devices {

DeviceHost::~DeviceHost() = default;

HostedDevice* DeviceHost::find(std::uint32_t number) {
  const auto found = devices_.find(number);
  return found == devices_.end() ? nullptr : found->second.device.get();
}

Result<NodePair> DeviceHost::claim_number() const {
  for (std::uint32_t number = 0; number < max_devices; ++number) {
    if (devices_.contains(number)) continue;
    if (directory_.empty()) return NodePair::without_nodes(number);
    auto claimed = NodePair::claim(directory_, number);
    if (claimed || claimed.error().code != Errc::busy) return claimed;
  }
  return fail(Errc::busy, "all device numbers are taken");
}

void DeviceHost::register_device(DeviceDescription description, std::unique_ptr<Driver> driver,
                                 Registered done) {
  auto nodes = claim_number();
  if (!nodes) return done(fail(nodes.error()));
  const std::uint32_t number = nodes->number();
  auto device =
      HostedDevice::create(std::move(description), std::move(driver), number, transport_, host_);
  if (!device) return done(fail(device.error()));
  (*device)->log_to(log_);
  devices_.emplace(number, Entry{*device, std::move(*nodes)});
  (*device)->probe(Completion([this, number, done = std::move(done)](Result<void> probed) mutable {
    if (probed) probed = open_nodes(devices_.at(number));
    if (probed) return done(number);
    devices_.erase(number);
    done(fail(probed.error()));
  }));
}

Result<void> DeviceHost::open_nodes(Entry& entry) {
  const auto acceptor = [&entry](NodeKind kind) {
    // The listener ends before the entry does, and the device lives as long as the entry.
    return [device = entry.device.get(), kind](std::unique_ptr<Connection> connection) {
      return device->accept(kind, std::move(connection));
    };
  };
  return entry.nodes.open(transport_, entry.device->description().permissions,
                          acceptor(NodeKind::compute), acceptor(NodeKind::control));
}

void DeviceHost::remove_device(std::uint32_t number, Completion done) {
  auto entry = devices_.extract(number);
  if (entry.empty()) return done(fail(Errc::invalid_argument, "this process hosts no such device"));
  const auto device = entry.mapped().device;
  entry = {};  // the nodes go first: nobody opens what is going
  device->remove(std::move(done));
  lingering_.remove_if([](const auto& held) { return held.expired(); });
  lingering_.push_back(device);
  device->keep_until_empty();
}

ConnectionEvents* DeviceHost::connect(std::uint32_t number, NodeKind kind,
                                      std::unique_ptr<Connection> connection) {
  HostedDevice* device = find(number);
  return device == nullptr ? nullptr : device->accept(kind, std::move(connection));
}

void DeviceHost::shut_down(Completion done) {
  std::vector<std::uint32_t> numbers;
  numbers.reserve(devices_.size());
  for (const auto& [number, entry] : devices_) numbers.push_back(number);
  for (const std::uint32_t number : numbers) remove_device(number, Completion([](Result<void>) {}));
  // Ends when the last copy of this goes.
  auto all_gone =
      std::make_shared<Completion>([done = std::move(done)](Result<void>) mutable { done({}); });
  for (const auto& held : std::exchange(lingering_, {}))
    if (const auto device = held.lock())
      device->disconnect(Completion([all_gone](Result<void>) {}));
}

std::vector<ExportedBuffer> DeviceHost::exports() {
  std::vector<ExportedBuffer> list;
  host_->list_exports(list);
  for (const auto& [number, entry] : devices_)
    if (entry.device != nullptr && entry.device->memory() != nullptr)
      entry.device->memory()->list_exports(list);
  return list;
}

}  // namespace accelmm::devices
