// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "devices/hosted_device.hpp"
#include "devices/node_pair.hpp"
#include "devices/region.hpp"

#include <accelmm/driver.hpp>
#include <accelmm/node.hpp>
#include <accelmm/transport.hpp>

#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <string>

namespace accelmm::devices {

/// The registry of a driver process: its devices by number, their nodes, and the window of host
/// buffers they share.
///
/// Threads   the loop's.
class DeviceHost {
 public:
  using Registered = std::move_only_function<void(Result<std::uint32_t>)>;

  /// `directory` is where nodes are made; empty: no nodes, devices are only reached by connect().
  DeviceHost(Transport& transport, std::shared_ptr<Region> host, std::string directory,
             Log log = {})
      : transport_(transport),
        host_(std::move(host)),
        directory_(std::move(directory)),
        log_(std::move(log)) {}
  ~DeviceHost();
  DeviceHost(const DeviceHost&) = delete;
  DeviceHost& operator=(const DeviceHost&) = delete;

  /// As Runtime::register_device(), which this does the work of.
  void register_device(DeviceDescription description, std::unique_ptr<Driver> driver,
                       Registered done);
  void remove_device(std::uint32_t number, Completion done);
  /// A connection to a node that came some other way than through its socket. Null: no such device.
  [[nodiscard]] ConnectionEvents* connect(std::uint32_t number, NodeKind kind,
                                          std::unique_ptr<Connection> connection);
  /// Removes every device and ends every session.
  void shut_down(Completion done);

  /// Of the host's memory and of all devices'. Throws std::bad_alloc.
  [[nodiscard]] std::vector<ExportedBuffer> exports();
  [[nodiscard]] Region& host() { return *host_; }
  [[nodiscard]] HostedDevice* find(std::uint32_t number);

 private:
  struct Entry {
    std::shared_ptr<HostedDevice> device;
    NodePair nodes;
  };
  [[nodiscard]] Result<NodePair> claim_number() const;
  [[nodiscard]] Result<void> open_nodes(Entry& entry);

  Transport& transport_;
  std::shared_ptr<Region> host_;
  std::string directory_;
  Log log_;
  std::map<std::uint32_t, Entry> devices_;
  std::list<std::weak_ptr<HostedDevice>> lingering_;  // removed, with sessions that have not ended
};

}  // namespace accelmm::devices
