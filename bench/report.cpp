// SPDX-License-Identifier: Apache-2.0
#include "report.hpp"

#include <algorithm>
#include <cstdio>
#include <fstream>

#include <nlohmann/json.hpp>

namespace accelmm::bench {
namespace {

// area/work/who[/what google benchmark adds, such as real_time]
struct Name {
  std::string area, work, who;
};

Name split(const std::string& full) {
  Name name;
  const auto first = full.find('/');
  const auto second = full.find('/', first + 1);
  const auto third = full.find('/', second + 1);
  name.area = full.substr(0, first);
  name.work = full.substr(first + 1, second - first - 1);
  name.who = full.substr(second + 1, third == std::string::npos ? third : third - second - 1);
  return name;
}

double quantile(std::vector<double> sorted, double q) {
  const auto at = static_cast<std::size_t>(q * static_cast<double>(sorted.size() - 1) + 0.5);
  std::ranges::sort(sorted);
  return sorted[at];
}

}  // namespace

bool Report::ReportContext(const Context& context) {
  std::fprintf(stderr, "%d CPUs at %.0f MHz; medians of repeated runs, interleaved at random\n",
               context.cpu_info.num_cpus, context.cpu_info.cycles_per_second / 1e6);
  return true;
}

Report::Work& Report::work_of(const std::string& area, const std::string& name) {
  const auto found = std::ranges::find_if(
      works_, [&](const Work& work) { return work.area == area && work.name == name; });
  if (found != works_.end()) return *found;
  works_.push_back({.area = area,
                    .name = name,
                    .ours = std::nullopt,
                    .peers = {},
                    .limit = std::nullopt,
                    .value = std::nullopt});
  return works_.back();
}

// All repetitions of one benchmark come together.
void Report::ReportRuns(const std::vector<Run>& runs) {
  std::vector<double> times_ns;
  Name name;
  for (const Run& run : runs) {
    if (run.error_occurred) {
      std::fprintf(stderr, "%s failed: %s\n", run.benchmark_name().c_str(),
                   run.error_message.c_str());
      failed_ = true;
      return;
    }
    if (run.run_type != Run::RT_Iteration) continue;
    name = split(run.benchmark_name());
    for (const auto& [unit, counter] : run.counters) {
      if (unit == "items") continue;
      work_of(name.area, name.work).value = Value{counter.value, unit};
      return;
    }
    const auto items = run.counters.find("items");
    const double per_iteration = items == run.counters.end() ? 1.0 : items->second.value;
    times_ns.push_back(run.GetAdjustedRealTime() / per_iteration);
  }
  if (times_ns.empty()) return;
  const double median = quantile(times_ns, 0.5);
  const Sample sample{median, (quantile(times_ns, 0.75) - quantile(times_ns, 0.25)) / median};
  Work& work = work_of(name.area, name.work);
  if (name.who == "ours")
    work.ours = sample;
  else if (name.who.starts_with("limit:"))
    work.limit = {name.who.substr(6), sample};
  else
    work.peers.emplace_back(name.who, sample);
}

std::vector<Report::Row> Report::rows() const {
  std::vector<Row> rows;
  for (const Work& work : works_) {
    nlohmann::ordered_json json{{"area", work.area}, {"work", work.name}};
    char text[256];
    if (work.value) {
      json["value"] = work.value->value;
      json["unit"] = work.value->unit;
      std::snprintf(text, sizeof text, "%-10s %-28s %14.4g %s", work.area.c_str(),
                    work.name.c_str(), work.value->value, work.value->unit.c_str());
      rows.push_back({text, json.dump()});
      continue;
    }
    if (!work.ours) continue;  // only a peer matched the filter
    json["ours_ns"] = work.ours->median_ns;
    json["spread"] = work.ours->spread;
    auto peers = work.peers;
    if (peers.empty()) peers.emplace_back("", Sample{0, 0});
    for (const auto& [peer, sample] : peers) {
      auto row = json;
      const double ratio = sample.median_ns / work.ours->median_ns;
      if (!peer.empty()) {
        row["peer"] = peer;
        row["peer_ns"] = sample.median_ns;
        row["ratio"] = ratio;
      }
      if (work.limit) {
        row["limit"] = work.limit->first;
        row["limit_ns"] = work.limit->second.median_ns;
      }
      std::snprintf(text, sizeof text, "%-10s %-28s %14.2f %5.1f %%  %-22s %14.2f %7.2f",
                    work.area.c_str(), work.name.c_str(), work.ours->median_ns,
                    work.ours->spread * 100, peer.c_str(), sample.median_ns, ratio);
      rows.push_back({text, row.dump()});
    }
  }
  return rows;
}

void Report::Finalize() {
  std::printf("%-10s %-28s %14s %7s  %-22s %14s %7s\n", "area", "work", "ours ns", "spread", "peer",
              "peer ns", "ratio");
  for (const Row& row : rows()) std::printf("%s\n", row.text.c_str());
}

bool Report::write_json(const std::string& path) const {
  std::ofstream file(path);
  for (const Row& row : rows()) file << row.json << '\n';
  return static_cast<bool>(file.flush());
}

}  // namespace accelmm::bench
