// SPDX-License-Identifier: Apache-2.0
#include "metrics.hpp"

#include <cinttypes>
#include <cstdio>

namespace {

// Most metrics are a member of the struct as it is.
struct Metric {
  const char* name;
  const char* type;
  const char* help;
  std::uint64_t (*value)(const accelmm_info_usage&);
};

#define MEMBER(member) [](const accelmm_info_usage& usage) -> std::uint64_t { return usage.member; }
constexpr Metric metrics[] = {
    {"accelmm_memory_bytes", "gauge", "Device memory that sessions can allocate.",
     MEMBER(memory_total)},
    {"accelmm_memory_used_bytes", "gauge", "Device memory that sessions hold.",
     MEMBER(memory_used)},
    {"accelmm_memory_free_bytes", "gauge", "Device memory that is free or kept empty.",
     MEMBER(memory_free)},
    {"accelmm_memory_pressure", "gauge", "How short device memory is: 0 not, 1 low, 2 critical.",
     MEMBER(pressure)},
    {"accelmm_memory_pressure_low_bytes", "gauge",
     "Free bytes below which memory is low; 0: never.", MEMBER(pressure_low)},
    {"accelmm_memory_pressure_critical_bytes", "gauge",
     "Free bytes below which memory is critical; 0: never.", MEMBER(pressure_critical)},
    {"accelmm_memory_pressure_changes_total", "counter", "How often the pressure changed.",
     MEMBER(pressure_changes)},
    {"accelmm_memory_moves_total", "counter", "Extents moved to make room.", MEMBER(moves_total)},
    {"accelmm_memory_moved_bytes_total", "counter", "Bytes moved to make room.",
     MEMBER(moved_bytes_total)},
    {"accelmm_host_buffers_bytes", "gauge", "Host memory that sessions of the device hold.",
     MEMBER(host_used)},
    {"accelmm_page_table_bytes", "gauge", "Page tables of all address spaces.",
     MEMBER(page_table_bytes)},
    {"accelmm_mappings", "gauge", "Device mappings.", MEMBER(mappings)},
    {"accelmm_buffers", "gauge", "Buffers and imports.", MEMBER(buffers)},
    {"accelmm_compute_sessions", "gauge", "Open compute sessions.", MEMBER(compute_sessions)},
    {"accelmm_jobs_total", "counter", "Jobs that ended.", MEMBER(jobs_total)},
    {"accelmm_faults_total", "counter", "Jobs that could not reach memory.", MEMBER(faults_total)},
};
#undef MEMBER

void head(std::string& text, const char* name, const char* type, const char* help) {
  text += std::string("# HELP ") + name + ' ' + help + "\n# TYPE " + name + ' ' + type + '\n';
}

std::string labels(const Reading& reading) {
  std::string driver;
  for (const char c : reading.driver) {
    if (c == '\\' || c == '"') driver += '\\';
    driver += c == '\n' ? ' ' : c;
  }
  return "device=\"" + std::to_string(reading.number) + "\",driver=\"" + driver + '"';
}

void sample(std::string& text, const char* name, const std::string& of, std::uint64_t value) {
  text += std::string(name) + '{' + of + "} " + std::to_string(value) + '\n';
}

}  // namespace

std::string metrics_text(std::span<const Reading> readings) {
  std::string text;
  for (const Metric& metric : metrics) {
    head(text, metric.name, metric.type, metric.help);
    for (const Reading& reading : readings)
      sample(text, metric.name, labels(reading), metric.value(reading.usage));
  }
  constexpr const char* failures = "accelmm_memory_failures_total";
  head(text, failures, "counter", "Requests of device memory that failed, by their error.");
  for (const Reading& reading : readings) {
    sample(text, failures, labels(reading) + ",error=\"ENOMEM\"", reading.usage.memory_failures);
    sample(text, failures, labels(reading) + ",error=\"EDQUOT\"", reading.usage.quota_failures);
  }
  constexpr const char* busy = "accelmm_engine_busy_seconds_total";
  head(text, busy, "counter", "Time that the engines have worked, added up.");
  for (const Reading& reading : readings) {
    char value[32];
    std::snprintf(value, sizeof value, "%" PRIu64 ".%09" PRIu64,
                  static_cast<std::uint64_t>(reading.usage.engine_busy_ns / 1'000'000'000),
                  static_cast<std::uint64_t>(reading.usage.engine_busy_ns % 1'000'000'000));
    text += std::string(busy) + '{' + labels(reading) + "} " + value + '\n';
  }
  return text;
}
