// SPDX-License-Identifier: Apache-2.0
//
// What sharing by dma-bufs costs, over what the kernel's own calls cost. Only ratios are printed, of
// medians of runs taken by turns: times in an emulated guest say nothing. What is asserted is that the
// work was done, and no time.
#include "base/mapping.hpp"
#include "dmabuf/importer.hpp"
#include "kernel/dmabuf/guest.hpp"
#include "kernel/dmabuf/stream.hpp"
#include "support/npu_host.hpp"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <utility>
#include <vector>

#include <linux/dma-buf.h>
#include <linux/udmabuf.h>
#include <sys/ioctl.h>

namespace accelmm::test {
namespace {

using dmabuf::guest::Stream;

// A build for debugging is run for what it asserts, which a few rounds show.
#ifdef NDEBUG
constexpr int small_rounds = 61;
constexpr int large_rounds = 5;
constexpr int frames = 30;
#else
constexpr int small_rounds = 3;
constexpr int large_rounds = 1;
constexpr int frames = 4;
#endif

// Of this thread's work, without what it waits for.
double cpu_seconds() {
  timespec now{};
  EXPECT_EQ(0, ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now));
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

double median(std::vector<double> times) {
  std::ranges::nth_element(times, times.begin() + std::ssize(times) / 2);
  return times[times.size() / 2];
}

/// Prints the median time of `ours` over that of `theirs`, run by turns.
template <class Ours, class Theirs>
void print_ratio(const char* work, ByteCount size, int rounds, Ours ours, Theirs theirs) {
  std::vector<double> our_times;
  std::vector<double> their_times;
  const auto timed = [](auto& run) {
    const double begin = cpu_seconds();
    run();
    return cpu_seconds() - begin;
  };
  for (int i = 0; i < rounds && !testing::Test::HasFailure(); ++i) {
    our_times.push_back(timed(ours));
    their_times.push_back(timed(theirs));
  }
  ASSERT_FALSE(our_times.empty());
  const double ratio = median(our_times) / median(their_times);
  std::printf("ratio  %-28s %8llu KiB  %6.2f\n", work,
              static_cast<unsigned long long>(size.value() >> 10), ratio);
  testing::Test::RecordProperty(std::string(work) + "_" + std::to_string(size.value()),
                                std::to_string(ratio));
}

UniqueFd bare_udmabuf(FdView device, FdView memfd, ByteCount size) {
  udmabuf_create request{};
  request.memfd = static_cast<std::uint32_t>(memfd.get());
  request.flags = UDMABUF_FLAGS_CLOEXEC;
  request.size = size.value();
  return UniqueFd(::ioctl(device.get(), UDMABUF_CREATE, &request));
}

void read_pages(std::span<const std::byte> bytes) {
  for (std::size_t at = 0; at < bytes.size(); at += 4096)
    static_cast<void>(*const_cast<const volatile std::byte*>(bytes.data() + at));
}

class SharingRatios : public testing::TestWithParam<ByteCount> {
 protected:
  [[nodiscard]] static int rounds() { return GetParam() > 4_MiB ? large_rounds : small_rounds; }
  const ByteCount size = GetParam();
  const UniqueFd memfd = dmabuf::guest::memfd(size);
  const UniqueFd device{::open("/dev/udmabuf", O_RDONLY | O_CLOEXEC)};
};

TEST_P(SharingRatios, OfAnExport) {
  const auto exporter = dmabuf::guest::udmabuf();
  const dmabuf::FileRange whole{memfd.view(), size, {}, size};
  print_ratio(
      "udmabuf-export", size, rounds(),
      [&] {
        const auto made = exporter->export_view({.ranges = std::span(&whole, 1)});
        ASSERT_TRUE(made.has_value()) << made.error().what;
        ASSERT_EQ(1U, made->size());
      },
      [&] { ASSERT_TRUE(bare_udmabuf(device.view(), memfd.view(), size).valid()); });
}

// What an importer does with it: its size, a mapping, and all pages read inside a bracket.
TEST_P(SharingRatios, OfAnImport) {
  const UniqueFd buffer = bare_udmabuf(device.view(), memfd.view(), size);
  ASSERT_TRUE(buffer.valid());
  print_ratio(
      "udmabuf-import", size, rounds(),
      [&] {
        std::vector<dmabuf::Piece> pieces;
        pieces.push_back({duplicate(buffer.view()).value(), {}, size});
        auto view = dmabuf::import_view(std::move(pieces));
        ASSERT_TRUE(view.has_value()) << view.error().what;
        const FdView fd = view->pieces.front().file.fd();
        const auto mapping = Mapping::create(fd, 0, size, PROT_READ | PROT_WRITE);
        ASSERT_TRUE(mapping.has_value());
        dma_buf_sync sync{DMA_BUF_SYNC_START | DMA_BUF_SYNC_RW};
        ASSERT_EQ(0, ::ioctl(fd.get(), DMA_BUF_IOCTL_SYNC, &sync));
        read_pages(mapping->bytes());
        sync.flags = DMA_BUF_SYNC_END | DMA_BUF_SYNC_RW;
        ASSERT_EQ(0, ::ioctl(fd.get(), DMA_BUF_IOCTL_SYNC, &sync));
      },
      [&] {
        const UniqueFd fd(::fcntl(buffer.get(), F_DUPFD_CLOEXEC, 0));
        const auto end = ::lseek(fd.get(), 0, SEEK_END);
        ASSERT_EQ(size.value(), static_cast<std::uint64_t>(end));
        void* const at =
            ::mmap(nullptr, size.value(), PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
        ASSERT_NE(MAP_FAILED, at);
        dma_buf_sync sync{DMA_BUF_SYNC_START | DMA_BUF_SYNC_RW};
        ASSERT_EQ(0, ::ioctl(fd.get(), DMA_BUF_IOCTL_SYNC, &sync));
        read_pages({static_cast<const std::byte*>(at), size.value()});
        sync.flags = DMA_BUF_SYNC_END | DMA_BUF_SYNC_RW;
        ASSERT_EQ(0, ::ioctl(fd.get(), DMA_BUF_IOCTL_SYNC, &sync));
        ::munmap(at, size.value());
      });
}

INSTANTIATE_TEST_SUITE_P(Sizes, SharingRatios, testing::Values(4_KiB, 1_MiB, 4_MiB, 64_MiB),
                         [](const auto& each) {
                           return std::to_string(each.param.value() >> 10) + "KiB";
                         });

std::uint64_t checksum(std::span<const std::byte> bytes) {
  std::uint64_t sum = 0;
  for (std::size_t at = 0; at + 8 <= bytes.size(); at += 8) {
    std::uint64_t word = 0;
    std::memcpy(&word, bytes.data() + at, sizeof word);
    sum = sum * 31 + word;
  }
  return sum;
}

/// This thread's work for each of some frames: what it gives to the camera, and what it does with
/// what comes.
template <class Use>
double frame_seconds(Stream& stream, Use use) {
  std::vector<double> times;
  for (int i = 0; i < frames && !testing::Test::HasFailure(); ++i) {
    const double begin = cpu_seconds();
    const auto index = stream.next();
    if (!index) {
      ADD_FAILURE() << index.error().what;
      break;
    }
    use(*index);
    const auto back = stream.give_back(*index);
    EXPECT_TRUE(back.has_value());
    times.push_back(cpu_seconds() - begin);
  }
  return times.empty() ? 0.0 : median(times);
}

/// Buffers of a session with an NPU, as many as the camera streams into.
class SessionBuffers {
 public:
  SessionBuffers() {
    for (unsigned i = 0; i < Stream::depth; ++i) {
      buffers_.push_back(value(client_.allocate(frame)));
      mappings_.push_back(value(buffers_.back().map_cpu()));
      there_.push_back(value(buffers_.back().map_device()));
      value(client_.wait(there_.back().point()));
      views_.push_back(value(buffers_.back().export_view()));
      fds.push_back(views_.back().pieces.front().fd.view());
    }
    clear();
  }
  [[nodiscard]] std::span<std::byte> bytes(unsigned index) { return mappings_[index].bytes(); }
  void clear() {
    for (const CpuMapping& mapping : mappings_) std::ranges::fill(mapping.bytes(), std::byte{0});
  }
  /// The NPU turns the first bytes of a buffer into their complements, in place: an emulated machine's
  /// model takes long for a whole frame.
  static constexpr ByteCount worked_on = 64_KiB;
  void complement(unsigned index) const {
    accelmm_npu_convolve job{};
    job.source = there_[index].address().value();
    job.destination = job.source;
    job.width = 4096;
    job.height = static_cast<std::uint32_t>(worked_on.value() / job.width);
    job.source_stride = job.width;
    job.destination_stride = job.width;
    job.kernel[4] = -1;
    job.bias = 255;
    value(client_.ioctl(ACCELMM_IOCTL_NPU_CONVOLVE, job));
    value(client_.wait(Point::job(job.point.value)));
  }

  const ByteCount frame = round_up(Stream::frame_size().value(), Alignment(4096)).value();
  std::vector<FdView> fds;  // their dma-bufs

 private:
  NpuHost host_;
  std::uint32_t number_ = host_.add();
  Client client_ = host_.connect(number_);
  std::vector<Buffer> buffers_;
  std::vector<CpuMapping> mappings_;
  std::vector<DeviceMapping> there_;
  std::vector<Export> views_;
};

void print_frame_ratio(const char* work, ByteCount frame, double direct, double copied) {
  ASSERT_GT(copied, 0.0);
  std::printf("ratio  %-28s %8llu KiB  %6.2f\n", work,
              static_cast<unsigned long long>(frame.value() >> 10), direct / copied);
  testing::Test::RecordProperty(work, std::to_string(direct / copied));
}

bool is_filled(std::span<const std::byte> bytes) {
  return std::ranges::any_of(bytes, [](std::byte byte) { return byte != std::byte{0}; });
}

/// Compares, of the first frame that it sees, what went into a job with what came out.
class Complement {
 public:
  void in(std::span<const std::byte> bytes) {
    if (before_.empty())
      before_.assign(bytes.begin(), bytes.begin() + SessionBuffers::worked_on.value());
  }
  void out(std::span<const std::byte> bytes) {
    if (std::exchange(compared_, true)) return;
    EXPECT_TRUE(is_filled(before_));
    for (std::byte& byte : before_) byte = ~byte;
    EXPECT_TRUE(std::ranges::equal(before_, bytes.first(before_.size())));
  }
  [[nodiscard]] bool compared() const { return compared_; }

 private:
  std::vector<std::byte> before_;
  bool compared_ = false;
};

/// What a frame costs this thread: taken and summed up, or sent through the NPU to memory that a
/// display would show. The NPU's own work is not this thread's.
struct FrameCosts {
  double checksum = 0;
  double pipeline = 0;
};

FrameCosts costs_in_place(SessionBuffers& buffers) {
  auto stream = value(Stream::into(buffers.fds));
  FrameCosts costs;
  std::uint64_t sums = 0;
  costs.checksum =
      frame_seconds(stream, [&](unsigned index) { sums += checksum(buffers.bytes(index)); });
  EXPECT_NE(0U, sums);
  Complement complement;
  costs.pipeline = frame_seconds(stream, [&](unsigned index) {
    complement.in(buffers.bytes(index));
    buffers.complement(index);
    complement.out(buffers.bytes(index));
  });
  EXPECT_TRUE(complement.compared());
  return costs;
}

FrameCosts costs_through_copies(SessionBuffers& buffers) {
  auto stream = value(Stream::own());
  const auto copy_in = [&](unsigned index) {
    const auto from = stream.bytes(index);
    const auto to = buffers.bytes(index);
    std::memcpy(to.data(), from.data(), std::min(from.size(), to.size()));
    return to;
  };
  FrameCosts costs;
  std::uint64_t sums = 0;
  costs.checksum = frame_seconds(stream, [&](unsigned index) { sums += checksum(copy_in(index)); });
  EXPECT_NE(0U, sums);
  Complement complement;
  std::vector<std::byte> display(buffers.frame.value());
  costs.pipeline = frame_seconds(stream, [&](unsigned index) {
    complement.in(stream.bytes(index));
    const auto bytes = copy_in(index);
    buffers.complement(index);
    std::memcpy(display.data(), bytes.data(), bytes.size());
    complement.out(display);
  });
  EXPECT_TRUE(complement.compared());
  return costs;
}

// A stream's first frame takes an emulated camera seconds, so that each stream serves both.
TEST(CaptureRatios, OfZeroCopyOverCopying) {
  SessionBuffers buffers;
  const FrameCosts direct = costs_in_place(buffers);
  buffers.clear();
  const FrameCosts copied = costs_through_copies(buffers);
  print_frame_ratio("capture-zero-copy-to-copying", buffers.frame, direct.checksum,
                    copied.checksum);
  print_frame_ratio("npu-pipeline-to-copying", buffers.frame, direct.pipeline, copied.pipeline);
}

}  // namespace
}  // namespace accelmm::test
