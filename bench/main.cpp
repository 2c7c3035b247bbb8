// SPDX-License-Identifier: Apache-2.0
//
// The comparisons: accelmm as installed, its peers and what limits them, in one binary and one run.
#include "mm/check.hpp"
#include "peers/peer.hpp"
#include "report.hpp"
#include "series.hpp"

#include <cstdio>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <benchmark/benchmark.h>

int main(int argc, char** argv) {
  CLI::App app("Measures accelmm beside its peers. Times are nanoseconds of one operation.");
  std::string filter = ".";
  std::string json;
  std::string series;
  int repetitions = 11;
  double min_time = 0.05;
  app.add_option("--filter", filter, "only rows whose area/work/peer match this expression");
  app.add_option("--json", json, "write the rows to this file, one JSON object a line");
  app.add_option("--series", series, "write how regions looked over time to this file, as CSV");
  app.add_option("--repetitions", repetitions, "runs that the median is taken of")
      ->check(CLI::Range(1, 1001));
  app.add_option("--min-time", min_time, "seconds that each run takes at least");
  bool check = false;
  app.add_flag("--check", check, "measure nothing; check that the peers and the models work");
  CLI11_PARSE(app, argc, argv);
  if (check) return accelmm::bench::check_subjects() ? 0 : 1;

  std::vector<std::string> words{argv[0], "--benchmark_filter=" + filter,
                                 "--benchmark_repetitions=" + std::to_string(repetitions),
                                 "--benchmark_min_time=" + std::to_string(min_time),
                                 "--benchmark_enable_random_interleaving=true"};
  std::vector<char*> args;
  for (std::string& word : words) args.push_back(word.data());
  int count = static_cast<int>(args.size());
  benchmark::Initialize(&count, args.data());

  if (!series.empty() && !accelmm::bench::record_series(series)) {
    std::fprintf(stderr, "cannot write %s\n", series.c_str());
    return 1;
  }
  accelmm::bench::print_peers();
  accelmm::bench::Report report;
  const std::size_t run = benchmark::RunSpecifiedBenchmarks(&report);
  if (run == 0) {
    std::fprintf(stderr, "nothing matches %s\n", filter.c_str());
    return 1;
  }
  if (!json.empty() && !report.write_json(json)) {
    std::fprintf(stderr, "cannot write %s\n", json.c_str());
    return 1;
  }
  return report.failed() ? 1 : 0;
}
