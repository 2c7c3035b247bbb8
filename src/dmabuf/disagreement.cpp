// SPDX-License-Identifier: Apache-2.0
//
// What demands are called when people read them.
#include "dmabuf/format_name.hpp"
#include "dmabuf/rules.hpp"

#include <algorithm>
#include <string_view>
#include <utility>
#include <vector>

namespace accelmm {

namespace {

// Phrases after one another: "a, b".
class Phrases {
 public:
  void add(const std::string& phrase) {
    if (!text_.empty()) text_ += ", ";
    text_ += phrase;
  }
  void add(const char* before, std::uint64_t number, const char* after) {
    add(before + std::to_string(number) + after);
  }
  [[nodiscard]] std::string take() && { return std::move(text_); }

 private:
  std::string text_;
};

const Constraints nothing;

void add_sizes(Phrases& phrases, const Constraints& own) {
  if (own.min_size > nothing.min_size) phrases.add("at least ", own.min_size.value(), " bytes");
  if (own.padding > nothing.padding) phrases.add("", own.padding.value(), " bytes of padding");
  if (own.size_divisor != 1) phrases.add("sizes in multiples of ", own.size_divisor, " bytes");
  if (own.max_size != nothing.max_size) phrases.add("at most ", own.max_size.value(), " bytes");
  if (own.address_bits != 64) phrases.add("addresses of ", own.address_bits, " bits");
  if (own.max_segments != nothing.max_segments)
    phrases.add("at most ", own.max_segments, " segments");
  if (own.largest_segment != nothing.largest_segment)
    phrases.add("segments of at most ", own.largest_segment.value(), " bytes");
}

void add_divisors(Phrases& phrases, const Constraints& own) {
  if (own.size_divisor != 1) phrases.add("sizes in multiples of ", own.size_divisor, " bytes");
  if (own.offset_divisor != 1)
    phrases.add("offsets in multiples of ", own.offset_divisor, " bytes");
}

void add_addresses(Phrases& phrases, const Constraints& own) {
  if (own.base_alignment.value() != 1)
    phrases.add("addresses aligned to ", own.base_alignment.value(), " bytes");
  if (own.address_bits != 64) phrases.add("addresses of ", own.address_bits, " bits");
}

// "a or b", or `none` for an empty set.
template <class Names>
std::string any_of(const Names& names, const char* none) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : " or ") + name;
  return text.empty() ? none : text;
}

void add_domains(Phrases& phrases, const Constraints& own) {
  if (own.needs.contains(Use::cpu_map)) phrases.add("memory that the CPU maps");
  if (own.domains == nothing.domains) return;
  std::vector<std::string> names;
  if (own.domains.contains(CoherenceDomain::cpu)) names.emplace_back("cpu");
  if (own.domains.contains(CoherenceDomain::ram)) names.emplace_back("ram");
  if (own.domains.contains(CoherenceDomain::inaccessible)) names.emplace_back("inaccessible");
  phrases.add("domain " + any_of(names, "none"));
}

void add_counts(Phrases& phrases, const BufferCounts& counts) {
  if (counts.camping != 0) phrases.add("", counts.camping, " buffers to camp on");
  if (counts.dedicated != 0) phrases.add("", counts.dedicated, " of its own against stalls");
  if (counts.shared != 0) phrases.add("", counts.shared, " shared against stalls");
  if (counts.min != 0) phrases.add("at least ", counts.min, " buffers");
  if (counts.max != BufferCounts::unlimited) phrases.add("at most ", counts.max, " buffers");
}

void add_formats(Phrases& phrases, const Constraints& own) {
  if (!own.images) return;
  std::vector<std::string> names;
  for (const auto& [pattern, image] : *own.images) names.push_back(dmabuf::name_of(pattern));
  phrases.add("format " + any_of(names, "none"));
}

void add_lines(Phrases& phrases, const ImageConstraints& image) {
  const ImageConstraints any;
  if (image.min_stride != any.min_stride)
    phrases.add("strides of at least ", image.min_stride.value(), " bytes");
  if (image.stride_divisor != 1)
    phrases.add("strides in multiples of ", image.stride_divisor, " bytes");
  if (image.max_stride != any.max_stride)
    phrases.add("strides of at most ", image.max_stride.value(), " bytes");
  if (image.rows != 0) phrases.add("", image.rows, " rows");
  if (image.min_size != any.min_size)
    phrases.add("images of at least ", image.min_size.value(), " bytes");
}

// Whether one names what the other, which is as narrow or narrower, names.
bool covers(const FormatPattern& pattern, const FormatPattern& narrow) {
  return (!pattern.fourcc || pattern.fourcc == narrow.fourcc) &&
         (!pattern.modifier || pattern.modifier == narrow.modifier);
}

// Only of the format that all like best: the others fail as well, and would tell no more.
void add_layout(Phrases& phrases, const Constraints& own, const Constraints& all) {
  const auto best = std::ranges::min_element(*all.images, {}, [](const auto& image) {
    return std::pair(!image.first.fourcc, image.second.cost);
  });
  if (own.images) {
    for (const auto& [pattern, image] : *own.images) {
      if (!covers(pattern, best->first)) continue;
      phrases.add("for " + dmabuf::name_of(pattern));
      add_lines(phrases, image);
    }
  }
  add_sizes(phrases, own);
}

constexpr std::string_view name_of(Rule rule) {
  switch (rule) {
    case Rule::well_formed:
      return "constraints without a meaning";
    case Rule::divisor:
      return "multiples beyond 64 bits";
    case Rule::address:
      return "address";
    case Rule::size:
      return "size";
    case Rule::heap:
      return "heap";
    case Rule::domain:
      return "coherence domain";
    case Rule::count:
      return "number of buffers";
    case Rule::format:
      return "format";
    case Rule::layout:
      return "layout of the image";
    case Rule::named:
      return "nobody names a pixel format that fits";
    case Rule::memory:
      return "no memory left to find out";
  }
  return "";
}

}  // namespace

namespace dmabuf {

std::string wants(Rule rule, const Constraints& own, const Constraints& all) {
  Phrases phrases;
  switch (rule) {
    case Rule::divisor:
      add_divisors(phrases, own);
      break;
    case Rule::address:
      add_addresses(phrases, own);
      break;
    case Rule::size:
      add_sizes(phrases, own);
      break;
    case Rule::heap:
      if (own.heaps) phrases.add("heap " + any_of(*own.heaps, "none"));
      break;
    case Rule::domain:
      add_domains(phrases, own);
      break;
    case Rule::count:
      add_counts(phrases, own.counts);
      break;
    case Rule::format:
    case Rule::named:
      add_formats(phrases, own);
      break;
    case Rule::layout:
      add_layout(phrases, own, all);
      break;
    case Rule::well_formed:
      phrases.add(
          "address bits beyond 1 to 64, multiples of 0, too long lists or one format twice");
      break;
    case Rule::memory:
      break;
  }
  return std::move(phrases).take();
}

}  // namespace dmabuf

std::string Disagreement::text() const {
  std::string text(name_of(rule));
  const char* before = ": ";
  for (const Demand& demand : demands) {
    text += before + demand.participant + " wants " + demand.wants;
    before = "; ";
  }
  return text;
}

}  // namespace accelmm
