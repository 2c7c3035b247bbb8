// SPDX-License-Identifier: Apache-2.0
#include "outcome.hpp"

#include <cstdio>
#include <fstream>

#include <nlohmann/json.hpp>

namespace accelmm::replay {

namespace {

std::string readable(std::uint64_t bytes) {
  constexpr const char* units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
  auto value = static_cast<double>(bytes);
  std::size_t unit = 0;
  for (; value >= 1024 && unit + 1 < std::size(units); ++unit) value /= 1024;
  char text[32];
  std::snprintf(text, sizeof text, "%.4g %s", value, units[unit]);
  return text;
}

nlohmann::ordered_json json_of(const std::optional<Failure>& failure) {
  if (!failure) return nullptr;
  return {{"event", failure->event}, {"bytes", failure->bytes}, {"occupancy", failure->occupancy}};
}

nlohmann::ordered_json json_of(const Fragmentation& found) {
  nlohmann::ordered_json json{
      {"free", found.free().value()},         {"largest_free", found.largest_free().value()},
      {"scattered", found.scattered()},       {"external_64k", found.external(4)},
      {"external_2m", found.external(9)},     {"external_1g", found.external(18)},
      {"whole_2m_share", found.whole_share()}};
  const auto debt = found.compaction_debt(1);
  json["compaction_debt_1"] =
      debt ? nlohmann::ordered_json(debt->value()) : nlohmann::ordered_json(nullptr);
  return json;
}

nlohmann::ordered_json json_of(const Outcome& outcome) {
  nlohmann::ordered_json json{{"allocator", outcome.allocator},
                              {"pool", outcome.pool},
                              {"size", outcome.size.value()},
                              {"allocations", outcome.allocations},
                              {"frees", outcome.frees},
                              {"ns_per_operation", outcome.ns_per_operation},
                              {"peak_live", outcome.peak_live},
                              {"refused", outcome.refused},
                              {"first_refused", json_of(outcome.first_refused)},
                              {"first_2m_refused", json_of(outcome.first_probe_refused[0])},
                              {"first_1g_refused", json_of(outcome.first_probe_refused[1])},
                              {"internal", outcome.grants.internal()},
                              {"extents_mean", outcome.grants.mean_extents()},
                              {"extents_p99", outcome.grants.p99_extents()},
                              {"zero_hit_rate", outcome.grants.zero_hit_rate()},
                              {"flaw", outcome.flaw}};
  if (!outcome.series.empty()) json["final"] = json_of(outcome.series.back().fragmentation);
  return json;
}

void print_failure(const char* what, const std::optional<Failure>& failure) {
  if (failure)
    std::printf("  %-22s at event %llu, %.1f %% of the pool live\n", what,
                static_cast<unsigned long long>(failure->event), 100 * failure->occupancy);
  else
    std::printf("  %-22s never\n", what);
}

}  // namespace

void print(const Outcome& outcome) {
  std::printf("%s, pool %u of %s: %llu allocations, %llu frees, %.1f ns each\n",
              outcome.allocator.c_str(), outcome.pool, readable(outcome.size.value()).c_str(),
              static_cast<unsigned long long>(outcome.allocations),
              static_cast<unsigned long long>(outcome.frees), outcome.ns_per_operation);
  if (!outcome.flaw.empty()) {
    std::printf("  WRONG: %s\n", outcome.flaw.c_str());
    return;
  }
  std::printf("  peak %s live; rounding costs %.2f %%\n", readable(outcome.peak_live).c_str(),
              100 * outcome.grants.internal());
  if (outcome.grants.mean_extents() > 0)
    std::printf("  %.2f extents an allocation; 99 of 100 have at most %zu\n",
                outcome.grants.mean_extents(), outcome.grants.p99_extents());
  if (!outcome.series.empty()) {
    const Fragmentation& last = outcome.series.back().fragmentation;
    std::printf(
        "  at the end %s free, the largest run %s; useless for 64 KiB %.1f %%, for 2 MiB "
        "%.1f %%, for 1 GiB %.1f %% of it\n",
        readable(last.free().value()).c_str(), readable(last.largest_free().value()).c_str(),
        100 * last.external(4), 100 * last.external(9), 100 * last.external(18));
  }
  if (outcome.first_refused)
    std::printf("  refused %llu requests, the first of %s\n",
                static_cast<unsigned long long>(outcome.refused),
                readable(outcome.first_refused->bytes).c_str());
  print_failure("first refused:", outcome.first_refused);
  print_failure("first 2 MiB refused:", outcome.first_probe_refused[0]);
  print_failure("first 1 GiB refused:", outcome.first_probe_refused[1]);
}

bool write_json(const std::string& path, const std::vector<Outcome>& outcomes) {
  auto json = nlohmann::ordered_json::array();
  for (const Outcome& outcome : outcomes) json.push_back(json_of(outcome));
  std::ofstream file(path);
  file << json.dump(2) << '\n';
  return static_cast<bool>(file.flush());
}

bool write_series(const std::string& path, const std::vector<Outcome>& outcomes) {
  std::ofstream file(path);
  file << "allocator,pool,event,seconds,live,occupancy,free,largest_free,scattered,external_64k,"
          "external_2m,external_1g,whole_2m_share,compaction_debt_1\n";
  for (const Outcome& outcome : outcomes) {
    for (const Sample& sample : outcome.series) {
      const Fragmentation& found = sample.fragmentation;
      file << outcome.allocator << ',' << outcome.pool << ',' << sample.event << ','
           << sample.seconds << ',' << sample.live << ',' << sample.occupancy << ','
           << found.free().value() << ',' << found.largest_free().value() << ','
           << found.scattered() << ',' << found.external(4) << ',' << found.external(9) << ','
           << found.external(18) << ',' << found.whole_share() << ',';
      if (const auto debt = found.compaction_debt(1)) file << debt->value();
      file << '\n';
    }
  }
  return static_cast<bool>(file.flush());
}

}  // namespace accelmm::replay
