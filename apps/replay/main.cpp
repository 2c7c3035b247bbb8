// SPDX-License-Identifier: Apache-2.0
// accelmm-replay: plays traces of allocators into ours and into models of others, without memory.

#include "allocators.hpp"
#include "import_rmm.hpp"
#include "outcome.hpp"
#include "replay.hpp"
#include "sample.hpp"
#include "sequence.hpp"
#include "trace_file.hpp"

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <CLI/CLI.hpp>

namespace {

using namespace accelmm;
using namespace accelmm::replay;

struct Arguments {
  std::string trace;
  std::uint64_t pool_size = 0;
  std::vector<std::string> allocators{"ours"};
  std::size_t samples = 200;
  std::string series;
  std::string json;
  bool scattered = false;
};

int explain(const std::string& what, const Error& error) {
  std::fprintf(stderr, "accelmm-replay: %s: %s (%s)\n", what.c_str(), error.what,
               std::strerror(static_cast<int>(error.code)));
  return EXIT_FAILURE;
}

/// Returns whether the name is known.
bool play(const std::string& name, const Sequence& sequence, const Arguments& arguments,
          Outcome& outcome) {
  const ByteCount pool = outcome.size;
  outcome.allocator = name;
  if (name == "ours") {
    const auto pieces = arguments.scattered ? OurPages::Pieces::many : OurPages::Pieces::one;
    Replay(
        sequence, [=] { return OurPages::create(pool, pieces); }, arguments.samples, outcome)
        .run();
  } else if (name == "tlsf") {
    Replay(
        sequence, [=] { return std::make_unique<TlsfPages>(pool); }, arguments.samples, outcome)
        .run();
  } else if (name == "rmm-list") {
    Replay(
        sequence, [=] { return std::make_unique<RmmListPages>(pool); }, arguments.samples, outcome)
        .run();
  } else {
    return false;
  }
  return true;
}

int replay_all(const Arguments& arguments) {
  const auto file = read_file(arguments.trace);
  if (!file) return explain(arguments.trace, file.error());
  const auto sequences = sequences_of(*file);
  if (!sequences) {
    std::fprintf(stderr, "accelmm-replay: %s, event %llu: %s\n", arguments.trace.c_str(),
                 static_cast<unsigned long long>(sequences.error().event),
                 sequences.error().error.what);
    return EXIT_FAILURE;
  }
  if (sequences->empty()) {
    std::fprintf(stderr, "accelmm-replay: %s: nothing is allocated\n", arguments.trace.c_str());
    return EXIT_FAILURE;
  }
  std::vector<Outcome> outcomes;
  bool right = true;
  for (const Sequence& sequence : *sequences) {
    const ByteCount pool =
        arguments.pool_size == 0 ? sequence.size : ByteCount(arguments.pool_size);
    // The replay's own map has a bit for each page: 512 MiB for 16 TiB.
    if (pool.value() < OurPages::page || pool.value() > std::uint64_t{16} << 40) {
      std::fprintf(stderr, "accelmm-replay: pool %u: %s\n", sequence.pool,
                   pool.value() == 0 ? "the trace does not say its size: give --pool-size"
                                     : "its size is below 4 KiB or above 16 TiB");
      return EXIT_FAILURE;
    }
    for (const std::string& name : arguments.allocators) {
      Outcome& outcome = outcomes.emplace_back();
      outcome.size = pool;
      if (!play(name, sequence, arguments, outcome)) return EXIT_FAILURE;
      print(outcome);
      right &= outcome.flaw.empty();
    }
  }
  if ((!arguments.json.empty() && !write_json(arguments.json, outcomes)) ||
      (!arguments.series.empty() && !write_series(arguments.series, outcomes))) {
    std::fprintf(stderr, "accelmm-replay: cannot write the results\n");
    return EXIT_FAILURE;
  }
  return right ? EXIT_SUCCESS : EXIT_FAILURE;
}

int import_log(const std::string& log, const std::string& trace) {
  const auto text = read_file(log);
  if (!text) return explain(log, text.error());
  const auto imported = import_rmm({reinterpret_cast<const char*>(text->data()), text->size()});
  if (!imported) {
    std::fprintf(stderr, "accelmm-replay: %s, line %zu: %s\n", log.c_str(), imported.error().line,
                 imported.error().what);
    return EXIT_FAILURE;
  }
  auto file = TraceFile::create(trace);
  if (!file) return explain(trace, file.error());
  if (const auto written = file->write(0, imported->file()); !written)
    return explain(trace, written.error());
  file->keep();
  std::printf("%zu events; %llu frees of what was allocated before the log are left out\n",
              imported->events.size(), static_cast<unsigned long long>(imported->unknown_frees));
  return EXIT_SUCCESS;
}

int record(const std::string& trace, const SampleWork& work) {
  auto file = TraceFile::create(trace);
  if (!file) return explain(trace, file.error());
  if (const auto done = record_sample(*file, work); !done) return explain(trace, done.error());
  file->keep();
  return EXIT_SUCCESS;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Plays a trace of an allocator into ours and into models of others.");
  app.require_subcommand(0, 1);
  Arguments arguments;
  app.add_option("trace", arguments.trace, "what to play");
  app.add_option("--pool-size", arguments.pool_size, "of every pool, e.g. 1TiB; else the trace's")
      ->transform(CLI::AsSizeValue(false));
  app.add_option("--allocator", arguments.allocators, "ours, tlsf, rmm-list; several may be named")
      ->check(CLI::IsMember({"ours", "tlsf", "rmm-list"}));
  app.add_option("--samples", arguments.samples, "how often to look at the fragmentation")
      ->check(CLI::Range(1, 100'000));
  app.add_flag("--scattered", arguments.scattered,
               "let ours take in pieces what it has nowhere in one");
  app.add_option("--series", arguments.series, "write the samples to this file, as CSV");
  app.add_option("--json", arguments.json, "write the results to this file");

  std::string from;
  std::string to;
  CLI::App* rmm = app.add_subcommand("import-rmm", "make a trace of RMM's CSV log");
  rmm->add_option("log", from)->required();
  rmm->add_option("trace", to)->required();

  SampleWork work;
  std::uint64_t pool = work.pool.value();
  CLI::App* sample = app.add_subcommand("record-sample", "record random work on our allocator");
  sample->add_option("trace", to)->required();
  sample->add_option("--pool-size", pool)->transform(CLI::AsSizeValue(false));
  sample->add_option("--steps", work.steps);
  sample->add_option("--seed", work.seed);
  CLI11_PARSE(app, argc, argv);
  work.pool = ByteCount(pool);

  if (rmm->parsed()) return import_log(from, to);
  if (sample->parsed()) return record(to, work);
  if (arguments.trace.empty()) {
    std::fputs("accelmm-replay: which trace? (--help)\n", stderr);
    return EXIT_FAILURE;
  }
  return replay_all(arguments);
}
