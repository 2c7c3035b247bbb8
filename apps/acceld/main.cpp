// SPDX-License-Identifier: Apache-2.0
// acceld: a driver process that hosts modelled NPUs until it is told to stop.

#include "devices/npu/npu_driver.hpp"

#include <accelmm/client.hpp>
#include <accelmm/node.hpp>
#include <accelmm/runtime.hpp>

#include <charconv>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <optional>
#include <string>

#include <getopt.h>

namespace {

using namespace accelmm;

constexpr const char* usage =
    "usage: acceld [options]\n"
    "Hosts modelled NPUs as accel<N> and accel_controlD<N> until SIGTERM or SIGINT.\n"
    "  --devices N      how many (1 to 256; default 1)\n"
    "  --directory DIR  where their nodes are (default: /run/accelmm, or the user's own)\n"
    "  --memory SIZE    memory of each device, with K, M, G or T (default 4G)\n"
    "  --exclusive      one compute session at a time on each device\n"
    "test hooks:\n"
    "  --drop-entry N   let each device's Nth job miss the page-table entry of its source\n"
    "  --burst-us N     let each burst of the engines take N microseconds longer\n";

struct Arguments {
  std::uint32_t devices = 1;
  std::string directory;
  sim::NpuOptions npu;
};

std::optional<std::uint64_t> parse_number(const char* text, std::uint64_t most) {
  std::uint64_t number = 0;
  const char* end = text + std::strlen(text);
  const auto [stop, error] = std::from_chars(text, end, number);
  if (error != std::errc{} || stop != end || number > most) return std::nullopt;
  return number;
}

std::optional<ByteCount> parse_size(std::string text) {
  unsigned shift = 0;
  if (!text.empty()) {
    const std::size_t unit = std::string("KMGT").find(text.back());
    if (unit != std::string::npos) {
      shift = 10 * (static_cast<unsigned>(unit) + 1);
      text.pop_back();
    }
  }
  const auto number =
      parse_number(text.c_str(), std::numeric_limits<std::uint64_t>::max() >> shift);
  if (!number) return std::nullopt;
  return ByteCount(*number << shift);
}

/// Takes one option. Returns whether its value makes sense.
bool take(int option, const char* value, Arguments& arguments) {
  std::optional<std::uint64_t> number;
  switch (option) {
    case 'n':
      number = parse_number(value, max_devices);
      arguments.devices = static_cast<std::uint32_t>(number.value_or(0));
      return arguments.devices > 0;
    case 'd':
      arguments.directory = value;
      return !arguments.directory.empty();
    case 'm': {
      const auto size = parse_size(value);
      arguments.npu.memory = size.value_or(ByteCount(0));
      return arguments.npu.memory > arguments.npu.private_memory;
    }
    case 'x':
      arguments.npu.compute_sessions = ComputeSessions::one;
      return true;
    case 'e':
      number = parse_number(value, std::numeric_limits<std::uint64_t>::max());
      arguments.npu.drop_entry = number.value_or(0);
      return number.has_value();
    case 'b':
      number = parse_number(value, 1'000'000);
      arguments.npu.model.delay_per_burst = std::chrono::microseconds(number.value_or(0));
      return number.has_value();
    default:
      return false;
  }
}

Arguments parse(int argc, char** argv) {
  static constexpr option options[] = {{"devices", required_argument, nullptr, 'n'},
                                       {"directory", required_argument, nullptr, 'd'},
                                       {"memory", required_argument, nullptr, 'm'},
                                       {"exclusive", no_argument, nullptr, 'x'},
                                       {"drop-entry", required_argument, nullptr, 'e'},
                                       {"burst-us", required_argument, nullptr, 'b'},
                                       {"help", no_argument, nullptr, 'h'},
                                       {}};
  Arguments arguments;
  for (int option = 0, index = 0; (option = getopt_long(argc, argv, "", options, &index)) != -1;) {
    if (option == 'h') {
      std::fputs(usage, stdout);
      std::exit(EXIT_SUCCESS);
    }
    if (take(option, optarg, arguments)) continue;
    if (option != '?')
      std::fprintf(stderr, "acceld: --%s: '%s' makes no sense\n", options[index].name, optarg);
    std::fputs(usage, stderr);
    std::exit(EXIT_FAILURE);
  }
  if (optind != argc) {
    std::fprintf(stderr, "acceld: what is '%s'?\n%s", argv[optind], usage);
    std::exit(EXIT_FAILURE);
  }
  return arguments;
}

int explain(const char* what, const Error& error) {
  std::fprintf(stderr, "acceld: %s: %s (%s)\n", what, error.what, error_text(error.code));
  return EXIT_FAILURE;
}

Runtime* running = nullptr;

int serve(const Arguments& arguments) {
  auto runtime =
      Runtime::create({.directory = arguments.directory, .log = [](const std::string& line) {
                         std::fprintf(stderr, "acceld: %s\n", line.c_str());
                       }});
  if (!runtime) return explain("cannot host devices", runtime.error());
  std::string nodes;
  for (std::uint32_t i = 0; i < arguments.devices; ++i) {
    auto driver = sim::make_npu_driver(arguments.npu);
    if (!driver) return explain("cannot make a device", driver.error());
    const auto number =
        (*runtime)->register_device(sim::npu_description(arguments.npu), std::move(*driver));
    if (!number) return explain("cannot register a device", number.error());
    nodes += ' ' + node_path((*runtime)->directory(), *number, NodeKind::compute);
  }

  running = runtime->get();
  struct sigaction action{};
  action.sa_handler = [](int) { running->stop(); };
  sigaction(SIGTERM, &action, nullptr);
  sigaction(SIGINT, &action, nullptr);

  std::printf("acceld: ready:%s\n", nodes.c_str());
  std::fflush(stdout);
  (*runtime)->run();
  // A second signal must not reach a runtime that is being destroyed.
  std::signal(SIGTERM, SIG_IGN);
  std::signal(SIGINT, SIG_IGN);
  runtime->reset();
  std::puts("acceld: ended");
  return EXIT_SUCCESS;
}

}  // namespace

int main(int argc, char** argv) {
  return serve(parse(argc, argv));
}
