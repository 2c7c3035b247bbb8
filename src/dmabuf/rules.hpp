// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/constraints.hpp>
#include <accelmm/negotiation.hpp>

#include <optional>
#include <string>

namespace accelmm::dmabuf {

/// The least stride and size of a buffer for one kind of image.
struct Fit {
  ByteCount stride;
  ByteCount size;
};

/// Nothing: the constraints leave none.
[[nodiscard]] std::optional<Fit> fit(const Constraints& constraints, const ImageConstraints& image);

/// The number of buffers that serves; nothing: it is more than somebody allows.
[[nodiscard]] std::optional<std::uint32_t> fitting_count(const BufferCounts& counts);

/// Whether constraints leave anything as far as a rule goes. What breaks a rule breaks it with
/// anything added; but for the layout, where what is added may name a format that fits.
/// Pre  the rule is one that constraints alone break: not well_formed, named or memory.
[[nodiscard]] bool holds(Rule rule, const Constraints& constraints);

/// What a participant contributes to a broken rule, for people; `all` is what those who break it
/// demand together. Empty: nothing.
[[nodiscard]] std::string wants(Rule rule, const Constraints& own, const Constraints& all);

}  // namespace accelmm::dmabuf
