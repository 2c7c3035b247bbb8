// SPDX-License-Identifier: Apache-2.0
//
// Programs of others, as Debian has them, on buffers of ours: v4l2_interposer.cpp gives them these where they export a
// driver's. docs/dmabuf.md has the same command lines for people.
#include "kernel/clients/command.hpp"
#include "kernel/vm/nodes.hpp"
#include "support/npu_host.hpp"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>
#include <string>

#include <gtest/gtest.h>

namespace accelmm::kernel_test {
namespace {

using test::NpuHost;
using test::TemporaryFolder;

constexpr const char* camera = "/dev/video0";
constexpr const char* screen = "/dev/video1";  // vivid's output

class Clients : public testing::Test {
 protected:
  void SetUp() override {
    host_.add();
    // What one program has set, no other finds: the drivers begin as they come.
    ASSERT_EQ(0, run_command("modprobe -r vivid && modprobe vivid").status);
    ASSERT_TRUE(video_node("vivid", V4L2_CAP_VIDEO_CAPTURE).valid());
  }

  /// Runs `program`, a line of the shell, with `mode` of the interposer.
  [[nodiscard]] Ended run(const std::string& mode, const std::string& program,
                          const std::string& settings = "") const {
    Ended ended = run_command(
        "timeout 100 env LD_PRELOAD=" ACCELMM_INTERPOSER " ACCELMM_DIRECTORY=" + host_.directory() +
        " ACCELMM_INTERPOSE=" + mode + " " + settings + " " + program);
    std::printf("%s: status %d\n", program.c_str(), ended.status);
    return ended;
  }

  /// A GStreamer that knows three of its plugins: it looks at each file of a plugin that it finds.
  [[nodiscard]] std::string gstreamer() const {
    const std::filesystem::path plugins = "/usr/lib/x86_64-linux-gnu/gstreamer-1.0";
    const std::filesystem::path few = folder_.path();
    for (const char* name : {"libgstcoreelements.so", "libgstvideo4linux2.so", "libgstkms.so"})
      if (!std::filesystem::exists(few / name))
        std::filesystem::create_symlink(plugins / name, few / name);
    return "GST_PLUGIN_SYSTEM_PATH= GST_PLUGIN_PATH=" + few.string() +
           " GST_REGISTRY=" + (few / "registry").string() +
           " GST_REGISTRY_FORK=no GST_DEBUG_NO_COLOR=1";
  }

  NpuHost host_;
  TemporaryFolder folder_;
};

/// How many buffers of ours a program had.
std::size_t ours(const Ended& ended) {
  return ended.lines_with("accelmm: buffer ").size();
}

/// Of v4l2-compliance: both of its tests of dma-bufs, on buffers of ours.
void expect_dma_bufs_pass(const Ended& ended) {
  const auto lines = ended.lines_with("test DMABUF (");
  EXPECT_GE(lines.size(), 2U) << "without a poll, and with one";
  EXPECT_TRUE(std::ranges::all_of(lines, [](const std::string& line) {
    return line.ends_with(": OK");
  })) << ended.output;
  EXPECT_GE(ours(ended), 2U) << ended.output;
}

TEST_F(Clients, V4l2ComplianceCapturesIntoOurBuffers) {
  expect_dma_bufs_pass(run("export", "v4l2-compliance -d0 -e1 -s5"));
}

// It takes what the camera exports, which must be as large as the output's frames: those of the input of
// televisions are.
TEST_F(Clients, V4l2ComplianceGivesOurBuffersToAVideoOutput) {
  ASSERT_EQ(0, run_command("v4l2-ctl -d0 --set-input=1").status);
  expect_dma_bufs_pass(run("export", "v4l2-compliance -d1 -e0 -s5"));
}

TEST_F(Clients, V4l2CtlStreamsThroughOurBuffers) {
  const std::string file = folder_.path() + "/frames";
  const Ended ended = run("export", std::string("v4l2-ctl -d ") + camera + " -E " + screen +
                                        " --stream-dmabuf --stream-count=5 --stream-to=" + file);
  EXPECT_EQ(0, ended.status) << ended.output;
  EXPECT_GE(ours(ended), 2U) << ended.output;
  std::ifstream frames(file, std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(frames), {}};
  EXPECT_EQ(0U, bytes.size() % 5);
  EXPECT_GT(bytes.size(), 5U << 16);
  // Colour bars, and nothing of a buffer that nobody has filled.
  const std::string_view last = std::string_view(bytes).substr(bytes.size() / 5 * 4);
  EXPECT_GT(std::set<char>(last.begin(), last.end()).size(), 8U);
  EXPECT_LT(std::ranges::count(last, '\0'), static_cast<std::ptrdiff_t>(last.size() / 4));
}

TEST_F(Clients, GstreamerShowsTheCamerasFramesFromOurBuffers) {
  const Ended ended =
      run("capture",
          "gst-launch-1.0 v4l2src device=/dev/video0 io-mode=dmabuf num-buffers=10 ! "
          "video/x-raw,format=BGRx,width=640,height=480 ! "
          "kmssink driver-name=cirrus force-modesetting=true",
          gstreamer() + " GST_DEBUG=kms*:6");
  EXPECT_EQ(0, ended.status) << ended.output;
  EXPECT_TRUE(ended.says("Got EOS")) << ended.output;
  EXPECT_TRUE(ended.says("found these prime ids")) << ended.output;
  EXPECT_GE(ours(ended), 2U) << ended.output;
}

TEST_F(Clients, GstreamerGivesOurBuffersToAVideoOutput) {
  EXPECT_EQ(0, run_command("v4l2-ctl -d1 --set-output=1").status);
  const Ended ended =
      run("capture",
          "gst-launch-1.0 v4l2src device=/dev/video0 io-mode=dmabuf num-buffers=10 ! "
          "video/x-raw,format=BGRx,width=1280,height=720 ! "
          "v4l2sink device=/dev/video1 io-mode=dmabuf-import sync=false",
          gstreamer());
  EXPECT_EQ(0, ended.status) << ended.output;
  EXPECT_TRUE(ended.says("Got EOS")) << ended.output;
  EXPECT_GE(ours(ended), 2U) << ended.output;
}

}  // namespace
}  // namespace accelmm::kernel_test
