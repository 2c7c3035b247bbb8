// SPDX-License-Identifier: Apache-2.0
// accelmm-edu: a driver process for QEMU's edu PCI device, bound to vfio-pci, until it is told to stop.

#include "devices/edu/edu_driver.hpp"

#include <accelmm/client.hpp>
#include <accelmm/node.hpp>
#include <accelmm/pci_address.hpp>
#include <accelmm/runtime.hpp>
#include <accelmm/vfio_device.hpp>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

namespace {

using namespace accelmm;

constexpr const char* usage =
    "usage: accelmm-edu DIRECTORY [PCI-ADDRESS]\n"
    "Hosts QEMU's edu device as accel0 in DIRECTORY until SIGTERM or SIGINT.\n"
    "Without an address, the first one of the machine.\n";

int explain(const char* what, const Error& error) {
  std::fprintf(stderr, "accelmm-edu: %s: %s (%s)\n", what, error.what, error_text(error.code));
  return EXIT_FAILURE;
}

std::string word_of(const std::filesystem::path& file) {
  std::string word;
  std::ifstream(file) >> word;
  return word;
}

std::string first_edu() {
  std::error_code none;
  for (const auto& device : std::filesystem::directory_iterator("/sys/bus/pci/devices", none)) {
    if (word_of(device.path() / "vendor") == "0x1234" &&
        word_of(device.path() / "device") == "0x11e8")
      return device.path().filename();
  }
  return {};
}

Runtime* running = nullptr;

int serve(const std::string& directory, const std::string& place) {
  const auto address = PciAddress::parse(place);
  if (!address) return explain("no edu device", address.error());
  auto device = VfioDevice::open(*address);
  if (!device) return explain("cannot open the device", device.error());
  const DeviceDescription description = edu::edu_description(**device, {});
  auto driver = edu::make_edu_driver(*std::move(device), {});
  if (!driver) return explain("cannot make a driver", driver.error());
  // Its buffers leave as memory files: what takes pages by their addresses, as VFIO does, cannot take
  // a dma-buf. Whoever wants one makes it over the file.
  auto runtime = Runtime::create({.directory = directory,
                                  .host_window = ByteCount(std::uint64_t{1} << 30),
                                  .sharing = {.udmabuf = SharingPolicy::Udmabuf::never}});
  if (!runtime) return explain("cannot host devices", runtime.error());
  const auto number = (*runtime)->register_device(description, *std::move(driver));
  if (!number) return explain("cannot register the device", number.error());

  running = runtime->get();
  struct sigaction action{};
  action.sa_handler = [](int) { running->stop(); };
  sigaction(SIGTERM, &action, nullptr);
  sigaction(SIGINT, &action, nullptr);
  std::printf("accelmm-edu: ready: %s\n",
              node_path((*runtime)->directory(), *number, NodeKind::compute).c_str());
  std::fflush(stdout);
  (*runtime)->run();
  // A second signal must not reach a runtime that is being destroyed.
  std::signal(SIGTERM, SIG_IGN);
  std::signal(SIGINT, SIG_IGN);
  return EXIT_SUCCESS;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2 || argc > 3 || argv[1][0] == '-') return std::fputs(usage, stderr), EXIT_FAILURE;
  return serve(argv[1], argc > 2 ? argv[2] : first_edu());
}
