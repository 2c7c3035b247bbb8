// SPDX-License-Identifier: Apache-2.0
//
// Input: the rolls of the dice that make participants, a byte each; where the bytes end, all are 0. The
// answer is compared with that of asking each participant about each allocation. Every eighth input
// takes its numbers from whole words instead, so that they reach the ends of 64 bits: those only must
// end.
#include "property/dmabuf/naive_negotiation.hpp"

#include <accelmm/check.hpp>

#include <bit>
#include <cstring>

namespace {

using accelmm::Alignment;
using accelmm::ByteCount;
using accelmm::Participant;

class Bytes {
 public:
  explicit Bytes(std::span<const std::uint8_t> bytes) : bytes_(bytes) {}
  std::uint64_t next() {
    if (bytes_.empty()) return 0;
    const std::uint8_t byte = bytes_.front();
    bytes_ = bytes_.subspan(1);
    return byte;
  }
  std::uint64_t word() {
    std::uint64_t value = 0;
    for (int i = 0; i < 8; ++i) value = value << 8 | next();
    return value;
  }

 private:
  std::span<const std::uint8_t> bytes_;
};

// As large as numbers get, malformed ones too.
void enlarge(Participant& participant, Bytes& bytes) {
  auto& wanted = participant.constraints;
  wanted.min_size = ByteCount(bytes.word());
  wanted.max_size = ByteCount(bytes.word());
  wanted.padding = ByteCount(bytes.word());
  wanted.size_divisor = bytes.word();
  wanted.offset_divisor = bytes.word();
  wanted.base_alignment = Alignment(std::uint64_t{1} << bytes.next() % 64);
  wanted.address_bits = static_cast<unsigned>(bytes.next());
  wanted.largest_segment = ByteCount(bytes.word());
  wanted.counts.camping = static_cast<std::uint32_t>(bytes.word());
  if (!wanted.images) return;
  for (auto& [pattern, image] : *wanted.images) {
    image.min_stride = ByteCount(bytes.word());
    image.stride_divisor = bytes.word();
    image.rows = static_cast<std::uint32_t>(bytes.word());
  }
}

void resolve_all(const std::vector<Participant>& participants, Bytes& bytes) {
  const auto agreement = accelmm::negotiate(participants);
  if (!agreement) {
    ACCELMM_CHECK(!agreement.error().text().empty());
    return;
  }
  const std::array sources = {
      accelmm::SourceDescription{.heap = "one", .segment = ByteCount(bytes.word())},
      accelmm::SourceDescription{.heap = "two",
                                 .contiguity = accelmm::Contiguity::contiguous,
                                 .granule = Alignment(std::uint64_t{1} << bytes.next() % 64),
                                 .largest = ByteCount(bytes.word())}};
  const auto found = accelmm::resolve(*agreement, participants, sources);
  ACCELMM_CHECK(found.has_value());
  ACCELMM_CHECK(found->ranked.size() + found->refused.size() == sources.size());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Bytes bytes({data, size});
  const bool large = bytes.next() % 8 == 7;
  auto participants = accelmm::test::random_participants(
      [&bytes](std::uint64_t sides) { return bytes.next() % sides; }, 4);
  if (large) {
    for (Participant& participant : participants) enlarge(participant, bytes);
  } else {
    ACCELMM_CHECK(accelmm::test::fault_of(participants) == nullptr);
  }
  resolve_all(participants, bytes);
  return 0;
}
