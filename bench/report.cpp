// SPDX-License-Identifier: Apache-2.0
#include "report.hpp"

#include "published.hpp"

#include <algorithm>
#include <cstdint>
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
  works_.push_back({.area = area, .name = name});
  return works_.back();
}

// All repetitions of one benchmark come together, the benchmarks in no order.
void Report::ReportRuns(const std::vector<Run>& runs) {
  std::vector<double> times_ns;
  std::vector<double> values;
  std::string unit;
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
    double per_iteration = 1.0;
    for (const auto& [counter, value] : run.counters) {
      if (counter == "items") {
        per_iteration = value.value;
      } else {
        unit = counter;
        values.push_back(value.value);
      }
    }
    times_ns.push_back(run.GetAdjustedRealTime() / per_iteration);
  }
  if (times_ns.empty()) return;
  Work& work = work_of(name.area, name.work);
  const std::int64_t registered = runs.front().family_index;
  work.registered = std::min(work.registered, registered);
  if (!values.empty()) {
    work.value = Value{quantile(values, 0.5), unit};
    return;
  }
  const double median = quantile(times_ns, 0.5);
  const Sample sample{median, (quantile(times_ns, 0.75) - quantile(times_ns, 0.25)) / median};
  if (name.who == "ours")
    work.ours = sample;
  else if (name.who.starts_with("limit:"))
    work.limit = {name.who.substr(6), sample};
  else
    work.peers.push_back({name.who, sample, registered});
}

void Report::add_value_row(const Work& work, std::vector<Row>& rows) const {
  char text[256];
  std::snprintf(text, sizeof text, "%-10s %-30s %12.4g %s", work.area.c_str(), work.name.c_str(),
                work.value->value, work.value->unit.c_str());
  const nlohmann::ordered_json json{{"area", work.area},
                                    {"work", work.name},
                                    {"value", work.value->value},
                                    {"unit", work.value->unit}};
  rows.push_back({text, json.dump()});
}

void Report::add_time_row(const Work& work, const Contender* peer, std::vector<Row>& rows) const {
  char ours[64];
  char theirs[128] = "";
  nlohmann::ordered_json json{{"area", work.area}, {"work", work.name}};
  if (work.ours) {
    json["ours_ns"] = work.ours->median_ns;
    json["spread"] = work.ours->spread;
    std::snprintf(ours, sizeof ours, "%12.2f %5.1f %%", work.ours->median_ns,
                  work.ours->spread * 100);
  } else {
    std::snprintf(ours, sizeof ours, "%12s %7s", "-", "-");
  }
  if (peer != nullptr) {
    json["peer"] = peer->name;
    json["peer_ns"] = peer->sample.median_ns;
    char ratio[32] = "       -";
    if (work.ours) {
      json["ratio"] = peer->sample.median_ns / work.ours->median_ns;
      std::snprintf(ratio, sizeof ratio, "%8.2f", json["ratio"].get<double>());
    }
    std::snprintf(theirs, sizeof theirs, "  %-20s %12.2f %s", peer->name.c_str(),
                  peer->sample.median_ns, ratio);
  }
  if (work.limit) {
    json["limit"] = work.limit->first;
    json["limit_ns"] = work.limit->second.median_ns;
  }
  char text[256];
  std::snprintf(text, sizeof text, "%-10s %-30s %s%s", work.area.c_str(), work.name.c_str(), ours,
                theirs);
  // Without ours there is nothing to compare: for people only.
  rows.push_back({text, work.ours ? json.dump() : std::string()});
}

// For people only: each row's JSON has the limit beside it.
void Report::add_limit_row(const Work& work, std::vector<Row>& rows) {
  const double limit_ns = work.limit->second.median_ns;
  char text[256];
  std::snprintf(text, sizeof text, "%-10s %-30s %12.2f %5.1f %%  %-20s %12.2f %8.2f",
                work.area.c_str(), work.name.c_str(), work.ours->median_ns, work.ours->spread * 100,
                ("limit:" + work.limit->first).c_str(), limit_ns, limit_ns / work.ours->median_ns);
  rows.push_back({text, std::string()});
}

// For people only: another machine's figures.
void Report::add_published_rows(const Work& work, std::vector<Row>& rows) {
  for (const Published& figure : published) {
    if (figure.area != work.area || figure.work != work.name) continue;
    char text[256];
    std::snprintf(text, sizeof text, "%-10s %-30s %12s %7s  %-20s %5.0f .. %-5.0f",
                  work.area.c_str(), work.name.c_str(), "", "",
                  ("published:" + std::string(figure.who)).c_str(), figure.least_ns,
                  figure.most_ns);
    rows.push_back({text, std::string()});
  }
}

std::vector<Report::Row> Report::rows() const {
  std::vector<Work> works = works_;
  std::ranges::sort(works, [](const Work& a, const Work& b) {
    return a.area != b.area ? a.area < b.area : a.registered < b.registered;
  });
  std::vector<Row> rows;
  for (Work& work : works) {
    if (work.value) {
      add_value_row(work, rows);
      continue;
    }
    std::ranges::sort(work.peers, {}, &Contender::registered);
    for (const Contender& peer : work.peers) add_time_row(work, &peer, rows);
    if (work.peers.empty()) add_time_row(work, nullptr, rows);
    if (work.limit && work.ours) add_limit_row(work, rows);
    add_published_rows(work, rows);
  }
  return rows;
}

void Report::Finalize() {
  std::printf("%-10s %-30s %12s %7s  %-20s %12s %8s\n", "area", "work", "ours ns", "spread", "peer",
              "peer ns", "ratio");
  bool is_published = false;
  for (const Row& row : rows()) {
    std::printf("%s\n", row.text.c_str());
    is_published |= row.text.find(" published:") != std::string::npos;
  }
  if (is_published)
    std::printf("%.*s\n", static_cast<int>(published_caveat.size()), published_caveat.data());
}

bool Report::write_json(const std::string& path) const {
  std::ofstream file(path);
  for (const Row& row : rows())
    if (!row.json.empty()) file << row.json << '\n';
  return static_cast<bool>(file.flush());
}

}  // namespace accelmm::bench
