// SPDX-License-Identifier: Apache-2.0
//
// The model's TLB keeps what it once read until it is told to forget it. If the framework leaves
// one invalidation out, the device computes the wrong picture; with all of them it never does. One
// mutant for each place that invalidates.
#include "support/npu_host.hpp"

#include <array>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <optional>
#include <random>
#include <vector>

namespace accelmm::test {
namespace {

using Cause = mmu::Invalidation::Cause;

/// The NPU's driver with one kind of invalidation left out.
class ForgetfulDriver final : public Driver, private MmuHardware {
 public:
  ForgetfulDriver(std::unique_ptr<Driver> real, std::optional<Cause> forgotten)
      : real_(std::move(real)), forgotten_(forgotten) {}

  void probe(Device& device, Completion done) override { real_->probe(device, std::move(done)); }
  void remove(Device& device) noexcept override { real_->remove(device); }
  void open(Session& session, Completion done) override { real_->open(session, std::move(done)); }
  void stop(Session& session, Completion done) override { real_->stop(session, std::move(done)); }
  void close(Session& session) noexcept override { real_->close(session); }
  void ioctls(IoctlTable& table) override { real_->ioctls(table); }
  MmuHardware* mmu() override { return this; }

 private:
  void bind(std::uint32_t asid, BusAddr root, Completion done) override {
    real_->mmu()->bind(asid, root, std::move(done));
  }
  void unbind(std::uint32_t asid, Completion done) override {
    real_->mmu()->unbind(asid, std::move(done));
  }
  void invalidate(const mmu::Invalidation& invalidation, Completion done) override {
    if (invalidation.cause == forgotten_) return done({});
    real_->mmu()->invalidate(invalidation, std::move(done));
  }
  [[nodiscard]] mmu::InvalidationPolicy invalidation_policy() const override {
    return real_->mmu()->invalidation_policy();
  }

  std::unique_ptr<Driver> real_;
  std::optional<Cause> forgotten_;
};

constexpr std::uint32_t side = 64;
constexpr ByteCount picture_bytes{std::uint64_t{side} * side};
constexpr DeviceAddr picture_place{0x1'0000'0000};
constexpr DeviceAddr fresh_places{0x100'0000'0000};
using Picture = std::vector<std::uint8_t>;
constexpr std::array<std::int8_t, 9> edges{-1, -1, -1, -1, 8, -1, -1, -1, -1};

Picture random_picture(std::mt19937_64& random) {
  Picture picture(side * side);
  for (auto& pixel : picture) pixel = static_cast<std::uint8_t>(random());
  return picture;
}

// What the convolution means, written from its description and from nothing else.
Picture convolve_by_hand(const Picture& in) {
  Picture out(in.size());
  const auto clamp = [](int at) { return std::clamp(at, 0, static_cast<int>(side) - 1); };
  for (int y = 0; y < static_cast<int>(side); ++y) {
    for (int x = 0; x < static_cast<int>(side); ++x) {
      int sum = 0;
      for (int k = 0; k < 9; ++k) {
        const auto at = clamp(y + k / 3 - 1) * static_cast<int>(side) + clamp(x + k % 3 - 1);
        sum += edges[static_cast<std::size_t>(k)] * in[static_cast<std::size_t>(at)];
      }
      out[static_cast<std::size_t>(y) * side + static_cast<std::size_t>(x)] =
          static_cast<std::uint8_t>(std::clamp(sum, 0, 255));
    }
  }
  return out;
}

sim::NpuOptions remembering_faults() {
  sim::NpuOptions options;
  options.model.negative_entries = sim::NpuModelOptions::NegativeEntries::cached;
  return options;
}

class StaleTranslation : public testing::Test {
 protected:
  void host_driver_without(std::optional<Cause> forgotten, const sim::NpuOptions& options = {}) {
    value(host.runtime().register_device(
        sim::npu_description(options),
        std::make_unique<ForgetfulDriver>(value(sim::make_npu_driver(options)), forgotten)));
  }

  /// A buffer in device memory that holds a picture.
  Buffer upload(const Client& client, const Picture& picture) {
    const Buffer staging = value(client.allocate(picture_bytes));
    Buffer device = value(client.allocate(picture_bytes, {.domain = Domain::device}));
    const CpuMapping seen = value(staging.map_cpu());
    std::memcpy(seen.bytes().data(), picture.data(), picture.size());
    auto from = map_fresh(staging);
    auto to = map_fresh(device);
    value(copy_and_wait(client, from.address(), to.address(), picture_bytes));
    value(client.wait(value(from.unmap()), soon()));
    value(client.wait(value(to.unmap()), soon()));
    return device;
  }

  /// What the device makes of the picture that is mapped at `place`.
  Result<Picture> convolve(const Client& client, DeviceAddr place) {
    const Buffer target = value(client.allocate(picture_bytes));
    const CpuMapping seen = value(target.map_cpu());
    const auto at_target = map_fresh(target);
    accelmm_npu_convolve args{};
    args.source = place.value();
    args.destination = at_target.address().value();
    args.source_stride = args.destination_stride = side;
    args.width = args.height = side;
    std::memcpy(args.kernel, edges.data(), edges.size());
    value(client.ioctl(ACCELMM_IOCTL_NPU_CONVOLVE, args));
    if (auto done = client.wait(Point::job(args.point.value), soon()); !done)
      return fail(done.error());
    Picture picture(side * side);
    std::memcpy(picture.data(), seen.bytes().data(), picture.size());
    return picture;
  }

  /// Maps a buffer where nothing was before, so that only the pictures' own addresses are ever used
  /// twice.
  DeviceMapping map_fresh(const Buffer& buffer) {
    fresh_ += 2_MiB;
    return value(buffer.map_device(Access::read_write, DevicePlacement::fixed(fresh_)));
  }

  static DeviceMapping map_at(const Buffer& buffer, DeviceAddr place) {
    return value(buffer.map_device(Access::read, DevicePlacement::fixed(place)));
  }

  /// One picture after another at the same address of one session.
  [[nodiscard]] bool second_picture_is_right_after_unmap() {
    const Client client = host.connect();
    const Picture first = random_picture(random);
    const Picture second = random_picture(random);
    const Buffer a = upload(client, first);
    const Buffer b = upload(client, second);
    auto at_a = map_at(a, picture_place);
    EXPECT_EQ(convolve_by_hand(first), value(convolve(client, picture_place)));
    value(client.wait(value(at_a.unmap()), soon()));
    const auto at_b = map_at(b, picture_place);
    return value(convolve(client, picture_place)) == convolve_by_hand(second);
  }

  /// A picture where the device looked for one before it was mapped.
  [[nodiscard]] bool picture_is_found_where_there_was_none() {
    const Client client = host.connect();
    const Picture picture = random_picture(random);
    const Buffer buffer = upload(client, picture);
    EXPECT_EQ(Errc::fault, code(convolve(client, picture_place)));
    const auto at = map_at(buffer, picture_place);
    EXPECT_TRUE(client.wait(at.point(), soon()));
    const auto found = convolve(client, picture_place);
    return found && *found == convolve_by_hand(picture);
  }

  /// One picture after another at the same address of two sessions, which have one address space
  /// number.
  [[nodiscard]] bool second_picture_is_right_after_close() {
    const Picture first = random_picture(random);
    const Picture second = random_picture(random);
    std::uint32_t asid = 0;
    {
      const Client client = host.connect();
      asid = value(client.session_info()).asid;
      const Buffer a = upload(client, first);
      const auto at_a = map_at(a, picture_place);
      EXPECT_EQ(convolve_by_hand(first), value(convolve(client, picture_place)));
      // The session ends with the mapping in place: what the client library would unmap is left to
      // the framework.
      (void)const_cast<DeviceMapping&>(at_a).release();
    }
    wait_until_no_session_is_left();
    const Client client = host.connect();
    EXPECT_EQ(asid, value(client.session_info()).asid);
    // What the first picture's place goes to, so that the second one lies elsewhere.
    const Buffer hole = value(client.allocate(picture_bytes, {.domain = Domain::device}));
    const Buffer b = upload(client, second);
    const auto at_b = map_at(b, picture_place);
    const auto picture = convolve(client, picture_place);
    return picture && *picture == convolve_by_hand(second);
  }

  void wait_until_no_session_is_left() {
    const Client monitor = host.connect(0, NodeKind::control);
    while (value(monitor.usage()).compute_sessions != 0) std::this_thread::yield();
  }

  NpuHost host;
  DeviceAddr fresh_ = fresh_places;
  std::mt19937_64 random{20221107};
};

TEST_F(StaleTranslation, IsNeverUsedWhenEveryPlaceInvalidates) {
  host_driver_without(std::nullopt);
  EXPECT_TRUE(second_picture_is_right_after_unmap());
  wait_until_no_session_is_left();
  EXPECT_TRUE(second_picture_is_right_after_close());
}

TEST_F(StaleTranslation, ShowsWhenUnmapDoesNotInvalidate) {
  host_driver_without(Cause::unmap);
  EXPECT_FALSE(second_picture_is_right_after_unmap());
}

TEST_F(StaleTranslation, ShowsWhenCloseDoesNotInvalidate) {
  host_driver_without(Cause::close);
  EXPECT_FALSE(second_picture_is_right_after_close());
}

TEST_F(StaleTranslation, OfAnAddressThatWasNotMappedIsForgottenWhenItIs) {
  host_driver_without(std::nullopt, remembering_faults());
  EXPECT_TRUE(picture_is_found_where_there_was_none());
}

TEST_F(StaleTranslation, ShowsWhenMapDoesNotInvalidateWhereFaultsAreRemembered) {
  host_driver_without(Cause::map, remembering_faults());
  EXPECT_FALSE(picture_is_found_where_there_was_none());
}

class RandomRun : public StaleTranslation,
                  public testing::WithParamInterface<sim::NpuModelOptions::NegativeEntries> {};

TEST_P(RandomRun, OfMapsAndUnmapsUsesNothingStale) {
  sim::NpuOptions options;
  options.model.negative_entries = GetParam();
  host_driver_without(std::nullopt, options);
  const char* given = std::getenv("ACCELMM_SEED");
  const std::uint64_t seed = given != nullptr ? std::strtoull(given, nullptr, 0) : 4711;
  std::fprintf(stderr, "ACCELMM_SEED=%llu\n", static_cast<unsigned long long>(seed));
  random.seed(seed);
  const Client client = host.connect();
  struct Held {
    Picture picture;
    Buffer buffer;
    std::optional<DeviceMapping> mapping;
  };
  std::vector<Held> held;
  for (int i = 0; i < 6; ++i) {
    Picture picture = random_picture(random);
    Buffer buffer = upload(client, picture);
    held.push_back({std::move(picture), std::move(buffer), std::nullopt});
  }
  // Few places, so that they are used again and again: two in one last-level table, two in others.
  const std::array<DeviceAddr, 4> places{picture_place, picture_place + 64_KiB,
                                         picture_place + 2_MiB, picture_place + 1_GiB};
  std::array<Held*, places.size()> shown{};
  for (int round = 0; round < 100; ++round) {
    const std::size_t at = random() % places.size();
    if (shown[at] != nullptr) {
      value(client.wait(value(shown[at]->mapping->unmap()), soon()));
      shown[at]->mapping.reset();
      shown[at] = nullptr;
    }
    Held& next = held[random() % held.size()];
    if (!next.mapping) {
      next.mapping.emplace(map_at(next.buffer, places[at]));
      value(client.wait(next.mapping->point(), soon()));
      shown[at] = &next;
    }
    for (std::size_t i = 0; i < places.size(); ++i) {
      const auto picture = convolve(client, places[i]);
      if (shown[i] == nullptr)
        EXPECT_EQ(Errc::fault, code(picture)) << "round " << round;
      else
        EXPECT_EQ(convolve_by_hand(shown[i]->picture), value(picture)) << "round " << round;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(NegativeEntries, RandomRun,
                         testing::Values(sim::NpuModelOptions::NegativeEntries::not_cached,
                                         sim::NpuModelOptions::NegativeEntries::cached));

}  // namespace
}  // namespace accelmm::test
