// SPDX-License-Identifier: Apache-2.0
#include <accelmm/trial_import.hpp>

#include <array>
#include <bit>
#include <cerrno>
#include <cstring>
#include <new>
#include <utility>

namespace accelmm {

namespace {

// What may be otherwise the next time.
bool passes(Errc code) {
  switch (static_cast<int>(code)) {
    case ENOMEM:
    case EMFILE:
    case ENFILE:
    case EBUSY:
    case EAGAIN:
    case EINTR:
    case ENOSPC:
      return true;
    default:
      return false;
  }
}

std::string explained(const Error& error) {
  std::array<char, 128> text{};
  // The GNU variant, which need not use the buffer.
  const char* const name = ::strerror_r(static_cast<int>(error.code), text.data(), text.size());
  return std::string(error.what) + " (" + name + ")";
}

std::vector<SourceDescription> descriptions(std::span<const BufferSource> sources) {
  std::vector<SourceDescription> all;
  for (const BufferSource& source : sources) all.push_back(source.description);
  return all;
}

// What keeps a source from serving; nothing: all devices take its buffers.
std::optional<std::string> trial(const Round& round, const BufferSource& source,
                                 const Agreement& agreement, TrialImports& trials) {
  UniqueFd buffer;
  for (SharingDevice* const device : round.devices) {
    auto taken = trials.remembered(*device, source.description, agreement);
    if (!taken) {
      if (!buffer.valid()) {
        auto made = source.allocate(agreement.size);
        if (!made) return source.description.heap + " gave no buffer: " + explained(made.error());
        buffer = std::move(*made);
      }
      taken = trials.try_import(*device, source.description, buffer.view(), agreement);
    }
    if (!*taken)
      return device->name() + " refused a buffer of " + source.description.heap + ": " +
             explained(taken->error());
  }
  return std::nullopt;
}

// Rounded up to what the source gives out. Pre: resolve() found that it serves.
ByteCount size_from(const Agreement& agreement, const SourceDescription& source) {
  Constraints both;
  both.size_divisor = source.granule.value();
  const std::uint64_t divisor = combine(agreement.all, both).size_divisor;
  const std::uint64_t rest = agreement.size.value() % divisor;
  return rest == 0 ? agreement.size : agreement.size + ByteCount(divisor - rest);
}

std::expected<std::vector<Participant>, Refusal> everybody(const Round& round) {
  std::vector<Participant> all;
  for (SharingDevice* const device : round.devices) {
    auto wanted = device->constraints(round.image);
    if (!wanted)
      return std::unexpected(
          Refusal{wanted.error().code,
                  device->name() + " cannot say what it needs: " + explained(wanted.error())});
    all.push_back({device->name(), std::move(*wanted)});
  }
  all.insert(all.end(), round.participants.begin(), round.participants.end());
  return all;
}

Refusal no_source(const std::vector<std::string>& reasons) {
  std::string text = "no memory serves all";
  const char* before = ": ";
  for (const std::string& reason : reasons) {
    text += before + reason;
    before = " / ";
  }
  return {Errc::not_supported, std::move(text)};
}

std::expected<Settlement, Refusal> settled(const Round& round, TrialImports& trials) {
  auto participants = everybody(round);
  if (!participants) return std::unexpected(std::move(participants.error()));
  auto agreement = negotiate(*participants);
  if (!agreement) {
    const bool starved = agreement.error().rule == Rule::memory;
    return std::unexpected(
        Refusal{starved ? Errc::no_memory : Errc::not_supported, agreement.error().text()});
  }
  const auto sources = descriptions(round.sources);
  const auto resolution = resolve(*agreement, *participants, sources);
  if (!resolution)
    return std::unexpected(Refusal{resolution.error().code, explained(resolution.error())});
  Settlement found{.agreement = std::move(*agreement), .refused = {}};
  for (const SourceRefusal& refusal : resolution->refused) found.refused.push_back(refusal.reason);
  const ByteCount least = found.agreement.size;
  for (const std::size_t candidate : resolution->ranked) {
    found.agreement.size = least;
    found.agreement.size = size_from(found.agreement, sources[candidate]);
    auto refused = trial(round, round.sources[candidate], found.agreement, trials);
    if (!refused) {
      found.source = candidate;
      return found;
    }
    found.refused.push_back(std::move(*refused));
  }
  return std::unexpected(no_source(found.refused));
}

}  // namespace

TrialImports::Key TrialImports::key(const SharingDevice& device, const SourceDescription& source,
                                    const Agreement& agreement) {
  const std::uint64_t size = agreement.size.value();
  return {device.name(), source.heap, size == 0 ? 0 : std::bit_width(size - 1),
          agreement.image ? agreement.image->format : PixelFormat{}};
}

std::optional<Result<void>> TrialImports::remembered(const SharingDevice& device,
                                                     const SourceDescription& source,
                                                     const Agreement& agreement) {
  const auto found = verdicts_.find(key(device, source, agreement));
  if (found == verdicts_.end()) return std::nullopt;
  ++statistics_.remembered;
  return found->second;
}

Result<void> TrialImports::try_import(SharingDevice& device, const SourceDescription& source,
                                      FdView buffer, const Agreement& agreement) {
  if (auto verdict = remembered(device, source, agreement)) return *verdict;
  ++statistics_.asked;
  const Result<void> verdict = device.try_import(buffer, agreement);
  if (verdict || !passes(verdict.error().code))
    verdicts_.emplace(key(device, source, agreement), verdict);
  return verdict;
}

std::expected<Settlement, Refusal> settle(const Round& round, TrialImports& trials) noexcept {
  try {
    return settled(round, trials);
  } catch (const std::bad_alloc&) {
    return std::unexpected(Refusal{});
  }
}

}  // namespace accelmm
