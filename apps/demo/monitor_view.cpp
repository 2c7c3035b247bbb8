// SPDX-License-Identifier: Apache-2.0
#include "monitor_view.hpp"

#include "say.hpp"

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <utility>

#include <fcntl.h>
#include <unistd.h>

namespace demo {
namespace {

constexpr std::uint64_t device_count = 2;

struct CloseFile {
  void operator()(std::FILE* file) const { std::fclose(file); }
};

}  // namespace

Outcome<std::unique_ptr<MonitorView>> MonitorView::start(const std::string& directory) {
  int requests[2];
  int lines[2];
  if (pipe2(requests, O_CLOEXEC) != 0) return refuse_errno("cannot make a pipe", errno);
  const accelmm::UniqueFd requests_in(requests[0]);
  accelmm::UniqueFd requests_out(requests[1]);
  if (pipe2(lines, O_CLOEXEC) != 0) return refuse_errno("cannot make a pipe", errno);
  accelmm::UniqueFd lines_in(lines[0]);
  const accelmm::UniqueFd lines_out(lines[1]);
  auto process =
      ChildProcess::start({program_folder() + "/accelmm-monitor", "--directory", directory,
                           "--interval", "1", "0", "1"},
                          {.input = requests_in.view(), .output = lines_out.view(), .socket = {}});
  if (!process) return refuse(process.error());
  return std::unique_ptr<MonitorView>(
      new MonitorView(std::move(*process), std::move(requests_out), std::move(lines_in)));
}

MonitorView::MonitorView(ChildProcess process, accelmm::UniqueFd requests, accelmm::UniqueFd lines)
    : process_(std::move(process)),
      requests_(std::move(requests)),
      lines_(std::move(lines)),
      relay_([this] { relay(); }) {}

MonitorView::~MonitorView() {
  process_.stop();
  relay_.join();
}

void MonitorView::relay() {
  const std::unique_ptr<std::FILE, CloseFile> lines(fdopen(lines_.release(), "r"));
  if (!lines) return;
  char line[256];
  while (std::fgets(line, sizeof line, lines.get()) != nullptr) {
    line[std::strcspn(line, "\n")] = '\0';
    say("    | %s", line);
    const std::scoped_lock lock(mutex_);
    ++line_count_;
    shown_.notify_all();
  }
}

void MonitorView::wait_for_first() {
  std::unique_lock lock(mutex_);
  wait_for_lines(lock, device_count);
}

void MonitorView::show_now() {
  std::unique_lock lock(mutex_);
  const std::uint64_t wanted = line_count_ + device_count;
  if (write(requests_.get(), "\n", 1) == 1) wait_for_lines(lock, wanted);
}

void MonitorView::wait_for_lines(std::unique_lock<std::mutex>& lock, std::uint64_t count) {
  shown_.wait_for(lock, std::chrono::seconds(2), [&] { return line_count_ >= count; });
}

}  // namespace demo
