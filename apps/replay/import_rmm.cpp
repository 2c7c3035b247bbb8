// SPDX-License-Identifier: Apache-2.0
#include "import_rmm.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <limits>
#include <optional>
#include <string>
#include <unordered_map>

namespace accelmm::replay {

namespace {

constexpr std::size_t columns = 6;
constexpr std::string_view header = "Thread,Time,Action,Pointer,Size,Stream";
constexpr std::uint64_t us_per_day = std::uint64_t{24} * 3600 * 1'000'000;

std::optional<std::uint64_t> number(std::string_view text, int base = 10) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

// As printf writes %p.
std::optional<std::uint64_t> pointer(std::string_view text) {
  if (text == "(nil)" || text == "0") return 0;
  if (!text.starts_with("0x")) return std::nullopt;
  return number(text.substr(2), 16);
}

// HH:MM:SS.ffffff, or with a colon before the fraction as older versions write; in microseconds.
std::optional<std::uint64_t> time_of_day(std::string_view text) {
  if (text.size() != 15 || text[2] != ':' || text[5] != ':' || (text[8] != '.' && text[8] != ':'))
    return std::nullopt;
  const auto hour = number(text.substr(0, 2));
  const auto minute = number(text.substr(3, 2));
  const auto second = number(text.substr(6, 2));
  const auto fraction = number(text.substr(9));
  if (!hour || !minute || !second || !fraction || *hour > 23 || *minute > 59 || *second > 60)
    return std::nullopt;
  return ((*hour * 60 + *minute) * 60 + *second) * 1'000'000 + *fraction;
}

// One line in its columns; fewer or more than six are none.
std::optional<std::array<std::string_view, columns>> fields_of(std::string_view line) {
  std::array<std::string_view, columns> fields;
  for (std::size_t i = 0; i < columns; ++i) {
    const std::size_t comma = line.find(',');
    if ((comma == std::string_view::npos) != (i + 1 == columns)) return std::nullopt;
    fields[i] = line.substr(0, comma);
    if (comma != std::string_view::npos) line.remove_prefix(comma + 1);
  }
  return fields;
}

struct Row {
  std::uint64_t thread;
  std::uint64_t time_us;
  std::string_view action;
  std::uint64_t address;
  std::uint64_t size;
};

class Importer {
 public:
  /// Returns what is wrong with the line, or null.
  [[nodiscard]] const char* add(std::string_view line) {
    const auto fields = fields_of(line);
    if (!fields) return "a line has not six columns";
    const auto thread = number((*fields)[0]);
    if (!thread) return "a thread is no number";
    const auto time = time_of_day((*fields)[1]);
    if (!time) return "a time is not HH:MM:SS.ffffff";
    const auto address = pointer((*fields)[3]);
    if (!address) return "a pointer is no address";
    const auto size = number((*fields)[4]);
    if (!size) return "a size is no number";
    return add(Row{*thread, *time, (*fields)[2], *address, *size});
  }

  [[nodiscard]] Imported finish() {
    // The smallest unit that all sizes are in 32 bits of: one byte, unless something is larger.
    constexpr auto most = std::uint64_t{std::numeric_limits<std::uint32_t>::max()};
    unsigned unit = 0;
    while (((largest_ - 1) >> unit) + 1 > most) ++unit;
    imported_.header.unit = Alignment(std::uint64_t{1} << unit);
    imported_.header.tick_ns = 1000;
    for (std::size_t i = 0; i < imported_.events.size(); ++i)
      imported_.events[i].size = static_cast<std::uint32_t>(((sizes_[i] - 1) >> unit) + 1);
    return std::move(imported_);
  }

 private:
  [[nodiscard]] const char* add(const Row& row) {
    if (imported_.events.size() == std::numeric_limits<std::uint32_t>::max())
      return "the log has more lines than a trace has ids";
    TraceEvent event{.time = since_start(row.time_us), .thread = number_of(row.thread)};
    if (row.action == "allocate failure") {
      event.op = TraceOp::refused;
      return keep(event, row.size);
    }
    if (row.action == "allocate") {
      // RMM grants 0 bytes without giving any.
      if (row.size == 0) return nullptr;
      if (row.address == 0) return "an allocation is at address 0";
      const auto id = static_cast<std::uint32_t>(imported_.events.size());
      if (!live_.emplace(row.address, Live{id, row.size}).second)
        return "an address is allocated that was not freed";
      return keep(event, row.size);
    }
    if (row.action != "free" && row.action != "deallocate") return "an action is not known";
    if (row.size == 0) return nullptr;
    const auto found = live_.find(row.address);
    if (found == live_.end()) {
      if (seen_.contains(row.address)) return "an address is freed twice";
      ++imported_.unknown_frees;
      return nullptr;
    }
    if (found->second.size != row.size) return "another size is freed than was allocated";
    event.op = TraceOp::free;
    event.subject = found->second.id;
    seen_.insert(*found);
    live_.erase(found);
    return keep(event, row.size);
  }
  [[nodiscard]] const char* keep(const TraceEvent& event, std::uint64_t size) {
    if (size == 0 || size > std::uint64_t{1} << 60) return "a size cannot be";
    imported_.events.push_back(event);
    sizes_.push_back(size);
    largest_ = std::max(largest_, size);
    return nullptr;
  }
  [[nodiscard]] std::uint64_t since_start(std::uint64_t time_us) {
    constexpr std::uint64_t an_hour = std::uint64_t{3600} * 1'000'000;
    if (!start_) start_ = last_ = time_us;
    if (time_us + an_hour < last_) days_ += us_per_day;
    last_ = time_us;
    const std::uint64_t now = time_us + days_;
    return now < *start_ ? 0 : now - *start_;
  }
  [[nodiscard]] std::uint16_t number_of(std::uint64_t thread) {
    const auto next = std::min<std::size_t>(threads_.size(), 0xffff);
    return threads_.emplace(thread, static_cast<std::uint16_t>(next)).first->second;
  }

  struct Live {
    std::uint32_t id;
    std::uint64_t size;
  };
  Imported imported_{};
  std::vector<std::uint64_t> sizes_;
  std::uint64_t largest_ = 1;
  std::unordered_map<std::uint64_t, Live> live_;
  std::unordered_map<std::uint64_t, Live> seen_;  // freed ones: another free of them is a flaw
  std::unordered_map<std::uint64_t, std::uint16_t> threads_;
  std::optional<std::uint64_t> start_;
  std::uint64_t last_ = 0;
  std::uint64_t days_ = 0;
};

}  // namespace

std::vector<std::byte> Imported::file() const {
  TraceHeader whole = header;
  whole.events = events.size();
  const auto head = trace_format::encode(whole);
  std::vector<std::byte> bytes(head.begin(), head.end());
  bytes.reserve(bytes.size() + events.size() * trace_format::event_bytes);
  for (const TraceEvent& event : events) {
    const auto part = trace_format::encode(event);
    bytes.insert(bytes.end(), part.begin(), part.end());
  }
  return bytes;
}

std::expected<Imported, LogFlaw> import_rmm(std::string_view csv) {
  Importer importer;
  for (std::size_t line = 1; !csv.empty(); ++line) {
    const std::size_t end = csv.find('\n');
    std::string_view text = csv.substr(0, end);
    csv.remove_prefix(end == std::string_view::npos ? csv.size() : end + 1);
    if (text.ends_with('\r')) text.remove_suffix(1);
    if (line == 1) {
      if (text != header)
        return std::unexpected(LogFlaw{"the first line does not name RMM's columns", line});
      continue;
    }
    if (text.empty()) continue;
    if (const char* flaw = importer.add(text)) return std::unexpected(LogFlaw{flaw, line});
  }
  return importer.finish();
}

}  // namespace accelmm::replay
