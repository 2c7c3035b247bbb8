// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include <benchmark/benchmark.h>

namespace accelmm::bench {

/// Joins the benchmarks of one piece of work into rows: ours beside each peer, and the limit.
///
/// Benchmarks are named area/work/who, where who is `ours`, a peer, or `limit:` and what limits. A
/// benchmark that sets the counters `value` and one named for its unit reports a value instead of a
/// time. Times are medians over the repetitions; spread is the distance of the quartiles over the
/// median.
class Report final : public benchmark::BenchmarkReporter {
 public:
  bool ReportContext(const Context& context) override;
  void ReportRuns(const std::vector<Run>& runs) override;
  void Finalize() override;

  /// Writes one JSON object a line. Returns false if the file cannot be written.
  [[nodiscard]] bool write_json(const std::string& path) const;
  [[nodiscard]] bool failed() const { return failed_; }

 private:
  struct Sample {
    double median_ns;
    double spread;
  };
  struct Value {
    double value;
    std::string unit;
  };
  struct Work {
    std::string area;
    std::string name;
    std::optional<Sample> ours;
    std::vector<std::pair<std::string, Sample>> peers;
    std::optional<std::pair<std::string, Sample>> limit;
    std::optional<Value> value;
  };
  struct Row {
    std::string text;  // for people
    std::string json;
  };
  [[nodiscard]] Work& work_of(const std::string& area, const std::string& name);
  void finish_benchmark();
  [[nodiscard]] std::vector<Row> rows() const;

  std::vector<Work> works_;
  std::string current_;
  std::vector<double> times_ns_;
  bool failed_ = false;
};

}  // namespace accelmm::bench
