// SPDX-License-Identifier: Apache-2.0
#include "check.hpp"

#include "models/rmm_list.hpp"
#include "models/tlsf.hpp"
#include "rows.hpp"
#include "subjects.hpp"
#include "workloads.hpp"

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <map>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace accelmm::bench {
namespace {

// What is live, by address. It alone decides what overlaps.
class IntervalSet {
 public:
  [[nodiscard]] bool insert(std::uint64_t begin, std::uint64_t size) {
    const auto next = ends_.lower_bound(begin);
    if (next != ends_.end() && next->first < begin + size) return false;
    if (next != ends_.begin() && std::prev(next)->second > begin) return false;
    ends_.emplace_hint(next, begin, begin + size);
    return true;
  }
  void erase(std::uint64_t begin) { ends_.erase(begin); }

 private:
  std::map<std::uint64_t, std::uint64_t> ends_;
};

struct Shape {
  std::size_t steps;
  std::size_t most_live;
  std::uint64_t largest;
  std::uint64_t region;  // 0: memory, anywhere
};

template <class Subject>
class Checked {
 public:
  static constexpr bool is_memory = std::is_pointer_v<PieceOf<Subject>> &&
                                    std::is_void_v<std::remove_pointer_t<PieceOf<Subject>>>;

  Checked(Subject& subject, Shape shape) : subject_(subject), shape_(shape) {}

  /// Returns what is wrong, or an empty string.
  [[nodiscard]] std::string run() {
    for (std::size_t step = 0; step < shape_.steps && flaw_.empty(); ++step) {
      if (live_.size() < shape_.most_live && (live_.empty() || random_.below(100) < 55))
        take_one();
      else
        give_one();
    }
    while (!live_.empty() && flaw_.empty()) give_one();
    return flaw_;
  }

 private:
  struct Live {
    PieceOf<Subject> piece{};
    std::uint64_t size = 0;
    unsigned char mark = 0;
  };

  [[nodiscard]] Request draw() {
    const std::uint64_t size = 1 + random_() % shape_.largest;
    if constexpr (!requires(Subject s, PieceOf<Subject> p) { s.take(1, 1, p); }) {
      return {size};
    } else {
      constexpr std::uint64_t largest_alignment = std::uint64_t{2} << 20;
      switch (random_.below(4)) {
        case 0:
          return {.size = shape_.largest / 4, .alignment = 4096};
        case 1:
          return {.size = largest_alignment, .alignment = largest_alignment};
        default:
          return {size};
      }
    }
  }

  void take_one() {
    const Request request = draw();
    Live next{{}, request.size, static_cast<unsigned char>(random_())};
    bool taken = false;
    if constexpr (requires(Subject s, PieceOf<Subject> p) { s.take(1, 1, p); })
      taken = take(subject_, request, next.piece);
    else
      taken = subject_.take(request.size, next.piece);
    if (!taken) {
      flaw_ = "refused";
      return;
    }
    const std::uint64_t begin = subject_.address(next.piece);
    if (request.alignment != 0 && begin % request.alignment != 0) flaw_ = "not aligned";
    if (shape_.region != 0 && (begin > shape_.region || request.size > shape_.region - begin))
      flaw_ = "outside the region";
    if (!intervals_.insert(begin, request.size)) flaw_ = "overlaps what is live";
    if constexpr (is_memory) std::memset(next.piece, next.mark, next.size);
    live_.push_back(next);
  }

  void give_one() {
    std::swap(live_[random_.below(static_cast<std::uint32_t>(live_.size()))], live_.back());
    const Live gone = live_.back();
    live_.pop_back();
    if constexpr (is_memory) {
      const auto* bytes = static_cast<const unsigned char*>(gone.piece);
      if (bytes[0] != gone.mark || std::memcmp(bytes, bytes + 1, gone.size - 1) != 0)
        flaw_ = "changed what was written";
    }
    intervals_.erase(subject_.address(gone.piece));
    if (!subject_.give(gone.piece)) flaw_ = "refused to free";
  }

  Subject& subject_;
  Shape shape_;
  Random random_{7};
  IntervalSet intervals_;
  std::vector<Live> live_;
  std::string flaw_;
};

bool say(const std::string& who, const std::string& flaw) {
  std::printf("%-20s %s\n", who.c_str(), flaw.empty() ? "ok" : flaw.c_str());
  return flaw.empty();
}

template <class Subject>
bool check_region(const std::string& who, std::uint64_t largest) {
  constexpr std::uint64_t region = std::uint64_t{8} << 30;
  Subject subject(region);
  std::string flaw =
      Checked<Subject>(subject,
                       {.steps = 20'000, .most_live = 500, .largest = largest, .region = region})
          .run();
  if (flaw.empty() && !subject.whole()) flaw = "not whole at the end";
  return say(who, flaw);
}

bool check_peer(const Peer& peer) {
  std::string flaw = start(peer);
  if (flaw.empty()) {
    MallocSubject subject(peer);
    flaw = Checked<MallocSubject>(
               subject, {.steps = 1500, .most_live = 40, .largest = 128 << 10, .region = 0})
               .run();
  }
  return say(peer.name, flaw);
}

}  // namespace

bool check_subjects() {
  bool right = true;
  for (const PeerName& peer : malloc_peer_names) right &= check_peer(malloc_peer(peer.name));
  right &= check_region<TlsfModel>("model-tlsf", 300);
  right &= check_region<TlsfModel>("model-tlsf", 1 << 20);
  right &= check_region<RmmListModel>("model-rmm-list", 1 << 20);
  right &= check_region<PageSubject>("ours", 1 << 20);
  return right;
}

}  // namespace accelmm::bench
