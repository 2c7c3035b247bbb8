// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <benchmark/benchmark.h>

namespace accelmm::bench {

/// Joins the benchmarks of one piece of work into rows: ours beside each peer, and the limit.
///
/// Benchmarks are named area/work/who, where who is `ours`, a peer, or `limit:` and what limits. A
/// benchmark that does several operations an iteration says how many in the counter `items`. One
/// that sets a counter named for a unit reports that value instead of a time. Times and values are
/// medians over the repetitions; spread is the distance of the quartiles over the median.
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
  struct Contender {
    std::string name;
    Sample sample;
    std::int64_t registered;
  };
  struct Work {
    std::string area;
    std::string name;
    std::int64_t registered = std::numeric_limits<std::int64_t>::max();  // the order of the rows
    std::optional<Sample> ours = std::nullopt;
    std::vector<Contender> peers = {};
    std::optional<std::pair<std::string, Sample>> limit = std::nullopt;
    std::optional<Value> value = std::nullopt;
  };
  struct Row {
    std::string text;  // for people
    std::string json;  // empty: not for programs
  };
  [[nodiscard]] Work& work_of(const std::string& area, const std::string& name);
  void add_value_row(const Work& work, std::vector<Row>& rows) const;
  void add_time_row(const Work& work, const Contender* peer, std::vector<Row>& rows) const;
  static void add_published_rows(const Work& work, std::vector<Row>& rows);
  static void add_limit_row(const Work& work, std::vector<Row>& rows);
  [[nodiscard]] std::vector<Row> rows() const;

  std::vector<Work> works_;
  bool failed_ = false;
};

}  // namespace accelmm::bench
