// SPDX-License-Identifier: Apache-2.0
// accelmm-monitor: shows how devices are used, from their control nodes.

#include "metrics.hpp"

#include <accelmm/client.hpp>
#include <accelmm/node.hpp>

#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <getopt.h>
#include <poll.h>
#include <unistd.h>

namespace {

using namespace accelmm;

constexpr const char* usage =
    "usage: accelmm-monitor [options] [DEVICE...]\n"
    "Prints memory use, utilisation and open sessions of devices (default: all that there are),\n"
    "from their control nodes, until the devices are gone. A line on stdin asks for a print now.\n"
    "  --directory DIR     where their nodes are (default: /run/accelmm, or the user's own)\n"
    "  --interval SECONDS  time between two prints (default 1)\n"
    "  --count N           end after N prints\n"
    "  --prometheus        print metrics in the text format of Prometheus instead\n"
    "  --shortage          say who holds what of the device memory and how it lies, once\n"
    "  --defragment SIZE   move device memory until a free run of SIZE comes to be, and say what\n"
    "                      was moved; 0: until pages that small buffers share are empty\n"
    "  --budget SIZE       bytes that may be moved for that, with K, M, G or T (default 256M)\n";

enum class Show : std::uint8_t { lines, metrics, shortage, moves };

struct Arguments {
  std::string directory;
  double interval_s = 1;
  std::uint64_t count = 0;  // 0: no end
  Show show = Show::lines;
  std::uint64_t run = 0;
  std::uint64_t budget = std::uint64_t{256} << 20;
  std::vector<std::uint32_t> devices;
};

[[noreturn]] void refuse(const char* what, const char* value) {
  std::fprintf(stderr, "accelmm-monitor: %s: '%s' makes no sense\n%s", what, value, usage);
  std::exit(EXIT_FAILURE);
}

template <class Number>
Number parse_number(const char* what, const char* text) {
  Number number{};
  const char* end = text + std::strlen(text);
  const auto [stop, error] = std::from_chars(text, end, number);
  if (error != std::errc{} || stop != end) refuse(what, text);
  return number;
}

/// A number, with K, M, G or T behind it.
std::uint64_t parse_size(const char* what, const char* text) {
  std::string number = text;
  const std::size_t unit =
      number.empty() ? std::string::npos : std::string("KMGT").find(number.back());
  if (unit == std::string::npos) return parse_number<std::uint64_t>(what, text);
  number.pop_back();
  const unsigned shift = 10 * (static_cast<unsigned>(unit) + 1);
  const auto value = parse_number<std::uint64_t>(what, number.c_str());
  if (value > UINT64_MAX >> shift) refuse(what, text);
  return value << shift;
}

Arguments parse(int argc, char** argv) {
  static constexpr option options[] = {{"directory", required_argument, nullptr, 'd'},
                                       {"interval", required_argument, nullptr, 'i'},
                                       {"count", required_argument, nullptr, 'c'},
                                       {"prometheus", no_argument, nullptr, 'p'},
                                       {"shortage", no_argument, nullptr, 's'},
                                       {"defragment", required_argument, nullptr, 'm'},
                                       {"budget", required_argument, nullptr, 'b'},
                                       {"help", no_argument, nullptr, 'h'},
                                       {}};
  Arguments arguments;
  for (int option = 0; (option = getopt_long(argc, argv, "", options, nullptr)) != -1;) {
    if (option == 'd') {
      arguments.directory = optarg;
    } else if (option == 'i') {
      arguments.interval_s = parse_number<double>("--interval", optarg);
      // The most that poll(2) can wait, in whole seconds, is 24 days.
      if (!(arguments.interval_s >= 0.001 && arguments.interval_s <= 2'000'000))
        refuse("--interval", optarg);
    } else if (option == 'c') {
      arguments.count = parse_number<std::uint64_t>("--count", optarg);
    } else if (option == 'p') {
      arguments.show = Show::metrics;
    } else if (option == 's') {
      arguments.show = Show::shortage;
      arguments.count = 1;
    } else if (option == 'm') {
      arguments.show = Show::moves;
      arguments.run = parse_size("--defragment", optarg);
      arguments.count = 1;
    } else if (option == 'b') {
      arguments.budget = parse_size("--budget", optarg);
    } else {
      std::fputs(usage, option == 'h' ? stdout : stderr);
      std::exit(option == 'h' ? EXIT_SUCCESS : EXIT_FAILURE);
    }
  }
  for (; optind < argc; ++optind)
    arguments.devices.push_back(parse_number<std::uint32_t>("device", argv[optind]));
  if (arguments.directory.empty()) arguments.directory = default_runtime_directory();
  return arguments;
}

/// Bytes as people read them.
std::string in_units(std::uint64_t bytes) {
  constexpr const char* units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  auto value = static_cast<double>(bytes);
  std::size_t unit = 0;
  for (; value >= 1024 && unit + 1 < std::size(units); ++unit) value /= 1024;
  char text[32];
  std::snprintf(text, sizeof text, unit == 0 ? "%.0f %s" : "%.1f %s", value, units[unit]);
  return text;
}

/// One device that is watched.
class Watched {
 public:
  Watched(std::uint32_t number, Client client, const accelmm_info_device& facts)
      : number_(number), client_(std::move(client)), facts_(facts) {}

  /// Prints one line. Errors: as Client::usage().
  Result<void> print() {
    const auto now = client_.usage();
    if (!now) return fail(now.error());
    std::printf(
        "accel%u %s: memory %s of %s, host buffers %s, page tables %s, mappings %llu, "
        "sessions %u, jobs %llu, faults %llu, busy %s%s\n",
        number_, driver().c_str(), in_units(now->memory_used).c_str(),
        in_units(now->memory_total).c_str(), in_units(now->host_used).c_str(),
        in_units(now->page_table_bytes).c_str(), static_cast<unsigned long long>(now->mappings),
        now->compute_sessions, static_cast<unsigned long long>(now->jobs_total),
        static_cast<unsigned long long>(now->faults_total), utilisation(*now).c_str(),
        pressure(*now));
    last_ = *now;
    return {};
  }
  /// Prints who holds what. Errors: as Client::shortage().
  Result<void> print_shortage() const {
    const auto shortage = client_.shortage();
    if (!shortage) return fail(shortage.error());
    const auto text = shortage_text(*shortage);
    if (!text) return fail(text.error());
    std::printf("accel%u %s: %s", number_, driver().c_str(), text->c_str());
    return {};
  }
  /// Makes room and prints what that took. Errors: as Client::defragment().
  Result<void> make_room(std::uint64_t budget, std::uint64_t run) const {
    const auto made = client_.defragment(ByteCount(budget), ByteCount(run));
    if (!made) return fail(made.error());
    std::printf("accel%u %s: moved %s in %llu pieces, free %s, longest free run %s\n", number_,
                driver().c_str(), in_units(made->moved).c_str(),
                static_cast<unsigned long long>(made->moves), in_units(made->free).c_str(),
                in_units(made->largest_free).c_str());
    return {};
  }
  [[nodiscard]] Result<Reading> read() const {
    const auto now = client_.usage();
    if (!now) return fail(now.error());
    return Reading{number_, driver(), *now};
  }
  [[nodiscard]] std::uint32_t number() const { return number_; }

 private:
  [[nodiscard]] std::string driver() const {
    const char* name = reinterpret_cast<const char*>(facts_.driver);
    return {name, strnlen(name, sizeof facts_.driver)};
  }
  static const char* pressure(const accelmm_info_usage& now) {
    switch (now.pressure) {
      case ACCELMM_PRESSURE_NONE:
        return "";
      case ACCELMM_PRESSURE_LOW:
        return ", memory low";
      default:
        return ", memory critically low";
    }
  }
  /// The part of the time since the last print that the engines worked.
  [[nodiscard]] std::string utilisation(const accelmm_info_usage& now) const {
    if (!last_ || now.time_ns <= last_->time_ns) return "-";
    const double busy = static_cast<double>(now.engine_busy_ns - last_->engine_busy_ns) /
                        static_cast<double>(now.time_ns - last_->time_ns);
    char text[16];
    std::snprintf(text, sizeof text, "%.0f %%", 100 * busy);
    return text;
  }

  std::uint32_t number_;
  Client client_;
  accelmm_info_device facts_;
  std::optional<accelmm_info_usage> last_;
};

/// Opens the control node of a device.
Result<Watched> watch(std::uint32_t number, const std::string& directory) {
  auto client = Client::connect(number, NodeKind::control, directory);
  if (!client) return fail(client.error());
  const auto facts = client->device_info();
  if (!facts) return fail(facts.error());
  return Watched(number, std::move(*client), *facts);
}

std::vector<Watched> open_all(const Arguments& arguments) {
  std::vector<Watched> devices;
  for (const std::uint32_t number : arguments.devices) {
    auto device = watch(number, arguments.directory);
    if (device) {
      devices.push_back(std::move(*device));
      continue;
    }
    std::fprintf(stderr, "accelmm-monitor: accel%u in %s: %s (%s)\n", number,
                 arguments.directory.c_str(), device.error().what, error_text(device.error().code));
    std::exit(EXIT_FAILURE);
  }
  if (arguments.devices.empty())
    for (std::uint32_t number = 0; number < max_devices; ++number)
      if (auto device = watch(number, arguments.directory)) devices.push_back(std::move(*device));
  return devices;
}

/// Shows one device; readings are kept, to be printed together.
Result<void> show(const Arguments& arguments, Watched& device, std::vector<Reading>& readings) {
  switch (arguments.show) {
    case Show::lines:
      return device.print();
    case Show::shortage:
      return device.print_shortage();
    case Show::moves:
      return device.make_room(arguments.budget, arguments.run);
    case Show::metrics:
      break;
  }
  auto reading = device.read();
  if (!reading) return fail(reading.error());
  readings.push_back(std::move(*reading));
  return {};
}

/// Shows all devices; those that fail are dropped, and whether any did is returned.
bool show_all(const Arguments& arguments, std::vector<Watched>& devices) {
  std::vector<Reading> readings;
  const auto failed = std::erase_if(devices, [&](Watched& device) {
    const auto shown = show(arguments, device, readings);
    // What reads metrics knows no other lines.
    if (!shown)
      std::fprintf(arguments.show == Show::lines ? stdout : stderr, "accel%u: %s\n",
                   device.number(), error_text(shown.error().code));
    return !shown;
  });
  if (arguments.show == Show::metrics) std::fputs(metrics_text(readings).c_str(), stdout);
  return failed > 0;
}

/// Waits for the time to pass, or for a line on stdin. A closed stdin asks for nothing.
void wait_for_next(double interval_s) {
  static bool stdin_open = true;
  pollfd input{.fd = stdin_open ? STDIN_FILENO : -1, .events = POLLIN, .revents = 0};
  if (poll(&input, 1, static_cast<int>(std::lround(interval_s * 1000))) <= 0) return;
  char line[256];
  if (read(STDIN_FILENO, line, sizeof line) > 0) return;
  stdin_open = false;
  wait_for_next(interval_s);
}

}  // namespace

int main(int argc, char** argv) {
  const Arguments arguments = parse(argc, argv);
  std::vector<Watched> devices = open_all(arguments);
  if (devices.empty()) {
    std::fprintf(stderr, "accelmm-monitor: no device in %s\n", arguments.directory.c_str());
    return EXIT_FAILURE;
  }
  for (std::uint64_t prints = 0;;) {
    const bool failed = show_all(arguments, devices);
    // Who reads the pipe may be gone; a monitor that nobody reads has no purpose.
    if (std::fflush(stdout) != 0) return EXIT_FAILURE;
    // What was asked for once either happened or not; a watched device may go at any time.
    const bool once = arguments.show == Show::shortage || arguments.show == Show::moves;
    if (once && failed) return EXIT_FAILURE;
    if (devices.empty() || ++prints == arguments.count) return EXIT_SUCCESS;
    wait_for_next(arguments.interval_s);
  }
}
