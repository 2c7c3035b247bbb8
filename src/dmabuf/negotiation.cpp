// SPDX-License-Identifier: Apache-2.0
//
// All demands are combined; what they leave is checked rule by rule. Where a rule is broken, one
// participant after the other is left out as long as the rest still breaks it: those who are left are
// named, and without any one of them the others would not break it.
#include "dmabuf/rules.hpp"

#include <accelmm/negotiation.hpp>

#include <algorithm>
#include <array>
#include <new>
#include <utility>

namespace accelmm {

namespace {

using dmabuf::Fit;

// In the order in which they are reported.
constexpr std::array checked_rules = {Rule::divisor, Rule::address, Rule::size,   Rule::heap,
                                      Rule::domain,  Rule::count,   Rule::format, Rule::layout};

using Group = std::vector<const Participant*>;

Constraints combined(const Group& group) {
  Constraints all;
  for (const Participant* participant : group) all = combine(all, participant->constraints);
  return all;
}

Group smallest_that_breaks(Rule rule, Group group) {
  for (std::size_t last = group.size(); last-- > 0;) {
    Group others = group;
    others.erase(others.begin() + static_cast<std::ptrdiff_t>(last));
    if (dmabuf::holds(rule, combined(others))) continue;
    group = std::move(others);
    last = group.size();  // who was needed before may not be now
  }
  return group;
}

Disagreement disagreement(Rule rule, const Group& group) {
  const Constraints all = combined(group);
  Disagreement found{.rule = rule};
  for (const Participant* participant : group) {
    std::string wants = dmabuf::wants(rule, participant->constraints, all);
    if (!wants.empty()) found.demands.push_back({participant->name, std::move(wants)});
  }
  return found;
}

CoherenceDomain best_domain(const Constraints& all) {
  const bool by_cpu = all.needs.contains(Use::cpu_map);
  // With the CPU, where it needs no maintenance of caches; without it, where nothing is done for it.
  const std::array<CoherenceDomain, 3> preferred =
      by_cpu
          ? std::array{CoherenceDomain::cpu, CoherenceDomain::ram, CoherenceDomain::ram}
          : std::array{CoherenceDomain::inaccessible, CoherenceDomain::ram, CoherenceDomain::cpu};
  return *std::ranges::find_if(
      preferred, [&](CoherenceDomain domain) { return all.domains.contains(domain); });
}

struct ImageChoice {
  AgreedImage image;
  ByteCount size;
};

// The cheapest that names a format; a modifier that nobody names is linear, which everybody can.
std::optional<ImageChoice> best_image(const Constraints& all) {
  std::optional<ImageChoice> best;
  std::uint32_t best_cost = 0;
  for (const auto& [pattern, image] : *all.images) {
    if (!pattern.fourcc || (best && image.cost >= best_cost)) continue;
    const std::optional<Fit> found = dmabuf::fit(all, image);
    if (!found) continue;
    const PixelFormat format{.fourcc = *pattern.fourcc, .modifier = pattern.modifier.value_or(0)};
    best = {.image = {.format = format, .stride = found->stride, .rows = image.rows},
            .size = found->size};
    best_cost = image.cost;
  }
  return best;
}

std::expected<Agreement, Disagreement> agree(const Group& everybody) {
  for (const Participant* participant : everybody) {
    if (!is_well_formed(participant->constraints))
      return std::unexpected(disagreement(Rule::well_formed, {participant}));
  }
  Agreement agreement{.all = combined(everybody)};
  const Constraints& all = agreement.all;
  for (const Rule rule : checked_rules) {
    if (!dmabuf::holds(rule, all))
      return std::unexpected(disagreement(rule, smallest_that_breaks(rule, everybody)));
  }
  agreement.count = *dmabuf::fitting_count(all.counts);
  agreement.domain = best_domain(all);
  if (!all.images) {
    agreement.size = dmabuf::fit(all, ImageConstraints{})->size;
    return agreement;
  }
  const auto choice = best_image(all);
  if (!choice) return std::unexpected(disagreement(Rule::named, everybody));
  agreement.size = choice->size;
  agreement.image = choice->image;
  return agreement;
}

}  // namespace

std::expected<Agreement, Disagreement> negotiate(
    std::span<const Participant> participants) noexcept {
  try {
    Group everybody;
    for (const Participant& participant : participants) everybody.push_back(&participant);
    return agree(everybody);
  } catch (const std::bad_alloc&) {
    return std::unexpected(Disagreement{});
  }
}

}  // namespace accelmm
