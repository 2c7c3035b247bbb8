// SPDX-License-Identifier: Apache-2.0
#include "application.hpp"

#include "child_process.hpp"
#include "exchange.hpp"
#include "npu.hpp"
#include "picture.hpp"
#include "say.hpp"

#include <chrono>
#include <cstring>
#include <fstream>
#include <optional>
#include <sstream>
#include <utility>

#include <sys/socket.h>
#include <unistd.h>

namespace demo {
namespace {

using namespace accelmm;
using Clock = std::chrono::steady_clock;

double milliseconds(Clock::duration duration) {
  return std::chrono::duration<double, std::milli>(duration).count();
}

unsigned long long number(std::uint64_t value) {
  return value;
}

std::uint64_t differing(const Picture& a, const Picture& b) {
  std::uint64_t count = 0;
  for (std::size_t i = 0; i < a.pixels.size(); ++i)
    if (a.pixels[i] != b.pixels[i]) ++count;
  return count;
}

Picture picture_of(std::span<const std::byte> bytes, const Picture& like) {
  Picture picture{like.width, like.height, std::vector<std::uint8_t>(like.pixels.size())};
  std::memcpy(picture.pixels.data(), bytes.data(), picture.pixels.size());
  return picture;
}

/// How often a process maps the memory with this inode.
std::uint64_t mappings_of(pid_t process, std::uint64_t inode) {
  std::ifstream maps("/proc/" + std::to_string(process) + "/maps");
  std::uint64_t count = 0;
  for (std::string line; std::getline(maps, line);) {
    std::istringstream fields(line);
    std::string range, modes, offset, device;
    std::uint64_t found = 0;
    if (fields >> range >> modes >> offset >> device >> found && found == inode) ++count;
  }
  return count;
}

/// The first half: accel0.
class EdgeFinder {
 public:
  [[nodiscard]] static Outcome<EdgeFinder> open(const std::string& directory) {
    auto npu = Npu::open(0, directory);
    if (!npu) return refuse(npu.error());
    return EdgeFinder(std::move(*npu));
  }

  /// Host buffers for the picture and the result, device memory for both, all of it mapped.
  [[nodiscard]] Outcome<void> prepare(const Picture& picture);
  /// Picture to device memory, edges there, edges back.
  [[nodiscard]] Outcome<Picture> find(const Picture& picture);

  [[nodiscard]] Npu& npu() { return npu_; }
  [[nodiscard]] const Buffer& result() const { return buffers_[host_result].buffer; }
  [[nodiscard]] std::uint64_t bytes_in(Domain domain) const {
    const std::size_t first = domain == Domain::host ? host_input : device_input;
    return buffers_[first].buffer.size().value() + buffers_[first + 1].buffer.size().value();
  }

 private:
  enum Place : std::size_t { host_input, host_result, device_input, device_result, places };
  explicit EdgeFinder(Npu npu) : npu_(std::move(npu)) {}

  Npu npu_;
  std::vector<NpuBuffer> buffers_;  // by Place
};

Outcome<void> EdgeFinder::prepare(const Picture& picture) {
  const ByteCount size(picture.pixels.size());
  for (std::size_t place = 0; place < places; ++place) {
    auto buffer = npu_.allocate(size, place < device_input ? Domain::host : Domain::device);
    if (!buffer) return refuse(buffer.error());
    buffers_.push_back(std::move(*buffer));
  }
  const auto mapped = buffers_[host_input].buffer.map_cpu();
  if (!mapped) return refuse("cannot map a host buffer", mapped.error());
  std::memcpy(mapped->bytes().data(), picture.pixels.data(), picture.pixels.size());
  return {};
}

Outcome<Picture> EdgeFinder::find(const Picture& picture) {
  const ByteCount size(picture.pixels.size());
  const auto frame = [&](Place place) {
    return Npu::Frame{buffers_[place].address(), picture.width, picture.height};
  };
  // Submitted at once, run in order; nothing is waited for in between.
  if (auto in = npu_.copy(buffers_[host_input].address(), buffers_[device_input].address(), size);
      !in)
    return refuse(in.error());
  if (auto edges = npu_.filter(find_edges, frame(device_input), frame(device_result)); !edges)
    return refuse(edges.error());
  if (auto back =
          npu_.copy(buffers_[device_result].address(), buffers_[host_result].address(), size);
      !back)
    return refuse(back.error());
  if (auto finished = npu_.finish(); !finished) return refuse(finished.error());
  const auto mapped = result().map_cpu(Access::read);
  if (!mapped) return refuse("cannot map the result", mapped.error());
  return picture_of(mapped->bytes(), picture);
}

/// The second half: another process with accel1.
class SecondProcess {
 public:
  [[nodiscard]] static Outcome<SecondProcess> start(const std::string& directory) {
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0)
      return refuse_errno("cannot make a socket", errno);
    UniqueFd here(ends[0]);
    const UniqueFd there(ends[1]);
    auto process = ChildProcess::start({this_program(), "--second-process", directory},
                                       {.input = {}, .output = {}, .socket = there.view()});
    if (!process) return refuse(process.error());
    return SecondProcess(std::move(*process), std::move(here));
  }

  /// Hands it the picture and takes its drawing.
  [[nodiscard]] Outcome<Export> draw(const Export& edges, const Picture& like) {
    const SharedPicture shared{like.width, like.height};
    if (auto sent = send_bytes(socket_.view(), &shared, sizeof shared); !sent)
      return refuse(sent.error());
    if (auto sent = send_export(socket_.view(), edges); !sent)
      return refuse("cannot share the edges", sent.error());
    if (auto heard = receive_bytes(socket_.view(), &report_, sizeof report_); !heard)
      return refuse(heard.error());
    if (report_.failure[0] != '\0')
      return refuse(std::string("second process: ") + report_.failure);
    auto result = receive_export(socket_.view());
    if (!result) return refuse("cannot receive the drawing", result.error());
    return std::move(*result);
  }

  [[nodiscard]] const SecondReport& report() const { return report_; }
  [[nodiscard]] pid_t pid() const { return process_.pid(); }
  [[nodiscard]] Outcome<void> end() {
    socket_.reset();
    if (const int status = process_.wait(); status != 0)
      return refuse("the second process ended with status " + std::to_string(status));
    return {};
  }

 private:
  SecondProcess(ChildProcess process, UniqueFd socket)
      : process_(std::move(process)), socket_(std::move(socket)) {}
  ChildProcess process_;
  UniqueFd socket_;
  SecondReport report_{};
};

/// What a device was asked for the closing numbers.
struct DeviceNumbers {
  accelmm_info_npu hardware;
  accelmm_info_usage usage;
};

Outcome<DeviceNumbers> ask(std::uint32_t device, const std::string& directory) {
  const auto client = Client::connect(device, NodeKind::control, directory);
  if (!client) return refuse("cannot open a control node", client.error());
  const auto usage = client->usage();
  if (!usage) return refuse("cannot ask for a device's usage", usage.error());
  const auto bytes = client->driver_info(ACCELMM_INFO_NPU - ACCELMM_INFO_DRIVER);
  if (!bytes) return refuse("cannot ask for a device's counters", bytes.error());
  DeviceNumbers numbers{.hardware = {}, .usage = *usage};
  std::memcpy(&numbers.hardware, bytes->data(), std::min(bytes->size(), sizeof numbers.hardware));
  return numbers;
}

Outcome<void> save_all(const std::string& out, const Picture& input, const Picture& edges,
                       const Picture& drawing) {
  const Picture all = side_by_side({&input, &edges, &drawing});
  for (const auto& [name, picture] : {std::pair{"1-input.png", &input},
                                      {"2-edges.png", &edges},
                                      {"3-drawing.png", &drawing},
                                      {"side-by-side.png", &all}}) {
    const std::string path = out + "/" + name;
    if (auto saved = save_png(path, *picture); !saved) return saved;
    say("    %s", path.c_str());
  }
  return {};
}

void say_numbers(const DeviceNumbers& first, const DeviceNumbers& second) {
  const auto both = [&](auto member) {
    return number(first.hardware.*member + second.hardware.*member);
  };
  say("  jobs          %llu run, %llu faulted", both(&accelmm_info_npu::jobs),
      both(&accelmm_info_npu::faults));
  say("  bursts        %llu translated by the TLB, %llu walks that read %llu table entries",
      both(&accelmm_info_npu::tlb_hits), both(&accelmm_info_npu::tlb_misses),
      both(&accelmm_info_npu::table_reads));
  say("  bytes moved   %llu read, %llu written by the NPUs", both(&accelmm_info_npu::bytes_read),
      both(&accelmm_info_npu::bytes_written));
  say("  page tables   %llu bytes on accel0, %llu bytes on accel1",
      number(first.usage.page_table_bytes), number(second.usage.page_table_bytes));
  say("  mappings      %llu on accel0, %llu on accel1", number(first.usage.mappings),
      number(second.usage.mappings));
  say("  NPUs at work  %.2f ms", static_cast<double>(both(&accelmm_info_npu::busy_ns)) / 1e6);
}

/// What the closing lines tell besides what the devices count.
struct Totals {
  std::uint64_t host_bytes;
  std::uint64_t device_bytes;
  std::uint64_t inode_here;
  std::uint64_t inode_there;
  std::uint64_t driver_mappings;
  double elapsed_ms;
};

void say_totals(const Picture& input, const Totals& totals, const DeviceNumbers& first,
                const DeviceNumbers& second) {
  say("\nWhat was done:");
  say("  picture       %u x %u, %llu pixels", input.width, input.height,
      number(input.pixels.size()));
  say("  memory        %llu bytes in 3 host buffers, %llu bytes of device memory in 2",
      number(totals.host_bytes), number(totals.device_bytes));
  say_numbers(first, second);
  say("  shared        0 bytes copied between processes: the edges are inode %llu here, inode %llu "
      "in the second process; the driver process knew them again, and maps them for both NPUs at "
      "once "
      "(mappings: %llu)",
      number(totals.inode_here), number(totals.inode_there), number(totals.driver_mappings));
  say("  time          %.1f ms from opening accel0 to the drawing, checks by the CPU included",
      totals.elapsed_ms);
}

/// Puts the picture where accel0 reaches it, finds its edges there, and compares them with the
/// CPU's.
Outcome<Picture> find_edges_of(const Picture& input, EdgeFinder& finder, MonitorView& monitor) {
  if (auto prepared = finder.prepare(input); !prepared) return refuse(prepared.error());
  say("[3] accel0: the picture lies in host buffers (%llu bytes), room in device memory (%llu "
      "bytes), all mapped",
      number(finder.bytes_in(Domain::host)), number(finder.bytes_in(Domain::device)));
  monitor.show_now();
  auto edges = finder.find(input);
  if (!edges) return edges;
  if (const std::uint64_t wrong = differing(*edges, apply_on_cpu(find_edges, input)); wrong != 0)
    return refuse("accel0's edges differ from the CPU's in " + std::to_string(wrong) + " pixels");
  say("[4] accel0: copied in, found the edges, copied out: %llu jobs; all %llu pixels are those "
      "that the CPU computes",
      number(finder.npu().jobs()), number(input.pixels.size()));
  return edges;
}

/// Checks what the second process says it did.
Outcome<void> judge(const SecondProcess& second, std::uint64_t inode) {
  const SecondReport& report = second.report();
  if (report.differing_pixels != 0)
    return refuse("accel1's drawing differs from the CPU's in " +
                  std::to_string(report.differing_pixels) + " pixels");
  if (report.inode != inode) return refuse("the second process received other memory");
  say("[5] process %d imported the edges into accel1 and drew them: %llu job; all pixels are those "
      "that the CPU computes",
      static_cast<int>(second.pid()), number(report.jobs));
  return {};
}

}  // namespace

Outcome<void> run_application(const Setting& setting, MonitorView& monitor) {
  const Picture& input = setting.picture.luma;
  say("[2] %s: %u x %u pixels, %s", setting.name.c_str(), input.width, input.height,
      setting.picture.kind == LoadedPicture::Kind::colour
          ? "colour, made grey by the CPU (luma, BT.601)"
          : "grey");

  const auto begin = Clock::now();
  auto finder = EdgeFinder::open(setting.directory);
  if (!finder) return refuse(finder.error());
  const auto edges = find_edges_of(input, *finder, monitor);
  if (!edges) return refuse(edges.error());

  auto second = SecondProcess::start(setting.directory);
  if (!second) return refuse(second.error());
  const auto shared = finder->result().export_view();
  if (!shared) return refuse("cannot export the edges", shared.error());
  const auto inode = inode_of(*shared);
  if (!inode) return refuse(inode.error());
  const auto drawn = second->draw(*shared, input);
  if (!drawn) return refuse(drawn.error());
  if (auto right = judge(*second, *inode); !right) return right;
  monitor.show_now();

  auto drawing_buffer = finder->npu().client().import_view(*drawn);
  if (!drawing_buffer) return refuse("cannot import the drawing", drawing_buffer.error());
  const auto drawing_bytes = drawing_buffer->map_cpu(Access::read);
  if (!drawing_bytes) return refuse("cannot look at the drawing", drawing_bytes.error());
  const Picture drawing = picture_of(drawing_bytes->bytes(), input);
  const Totals totals{
      .host_bytes = finder->bytes_in(Domain::host) + drawn->size().value(),
      .device_bytes = finder->bytes_in(Domain::device),
      .inode_here = *inode,
      .inode_there = second->report().inode,
      .driver_mappings = mappings_of(setting.driver, *inode),
      .elapsed_ms = milliseconds(Clock::now() - begin),
  };
  const auto first_numbers = ask(0, setting.directory);
  if (!first_numbers) return refuse(first_numbers.error());
  const auto second_numbers = ask(1, setting.directory);
  if (!second_numbers) return refuse(second_numbers.error());
  if (auto ended = second->end(); !ended) return ended;

  say("[6] written:");
  if (auto saved = save_all(setting.out, input, *edges, drawing); !saved) return saved;
  say_totals(input, totals, *first_numbers, *second_numbers);
  return {};
}

}  // namespace demo
