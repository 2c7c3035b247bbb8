// SPDX-License-Identifier: Apache-2.0
// accelmm-demo: a real picture through two NPUs and two processes. tools/demo builds and runs it.

#include "application.hpp"
#include "child_process.hpp"
#include "exchange.hpp"
#include "monitor_view.hpp"
#include "outcome.hpp"
#include "say.hpp"

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <getopt.h>
#include <pthread.h>
#include <unistd.h>

namespace demo {
namespace {

constexpr const char* usage =
    "usage: demo [PICTURE.png] [--out DIR]\n"
    "Finds the edges of a picture on one NPU, shares them with a second process that makes a\n"
    "pencil drawing of them on another NPU, and writes all of it as PNGs.\n"
    "  PICTURE.png     any PNG (default: a cat)\n"
    "  --out DIR       where the pictures go (default: demo-out)\n"
    "  --drop-entry N  test hook: each NPU's Nth job misses a page-table entry\n";

struct Arguments {
  std::string picture = ACCELMM_DEMO_PICTURE;
  std::string out = "demo-out";
  std::string drop_entry = "0";
  std::string second_process;  // not empty: this is the second process, over these nodes
};

Arguments parse(int argc, char** argv) {
  static constexpr option options[] = {{"out", required_argument, nullptr, 'o'},
                                       {"drop-entry", required_argument, nullptr, 'e'},
                                       {"second-process", required_argument, nullptr, 's'},
                                       {"help", no_argument, nullptr, 'h'},
                                       {}};
  Arguments arguments;
  for (int option = 0; (option = getopt_long(argc, argv, "", options, nullptr)) != -1;) {
    if (option == 'o') {
      arguments.out = optarg;
    } else if (option == 'e') {
      arguments.drop_entry = optarg;
    } else if (option == 's') {
      arguments.second_process = optarg;
    } else {
      std::fputs(usage, option == 'h' ? stdout : stderr);
      std::exit(option == 'h' ? EXIT_SUCCESS : EXIT_FAILURE);
    }
  }
  if (optind < argc) arguments.picture = argv[optind++];
  if (optind < argc) {
    std::fprintf(stderr, "demo: one picture at a time, please\n%s", usage);
    std::exit(EXIT_FAILURE);
  }
  return arguments;
}

/// A folder of our own for the nodes, gone at the end.
class PrivateFolder {
 public:
  [[nodiscard]] static Outcome<std::unique_ptr<PrivateFolder>> make() {
    std::error_code error;
    std::string path =
        (std::filesystem::temp_directory_path(error) / "accelmm-demo-XXXXXX").string();
    if (error || mkdtemp(path.data()) == nullptr)
      return refuse_errno("cannot make " + path, error ? error.value() : errno);
    return std::unique_ptr<PrivateFolder>(new PrivateFolder(std::move(path)));
  }
  ~PrivateFolder() { remove(); }
  PrivateFolder(const PrivateFolder&) = delete;
  PrivateFolder& operator=(const PrivateFolder&) = delete;

  [[nodiscard]] const std::string& path() const { return path_; }
  void remove() const {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }

 private:
  explicit PrivateFolder(std::string path) : path_(std::move(path)) {}
  std::string path_;
};

/// Lets Ctrl-C and SIGTERM leave nothing behind. The other processes end with this one.
void remove_when_interrupted(const PrivateFolder& folder) {
  static sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  std::thread([&folder] {
    int signal = 0;
    sigwait(&signals, &signal);
    folder.remove();
    // By the signal itself, so that whoever waits sees what ended the program.
    std::signal(signal, SIG_DFL);
    pthread_sigmask(SIG_UNBLOCK, &signals, nullptr);
    raise(signal);
  }).detach();
}

/// The driver process with its two NPUs.
Outcome<ChildProcess> start_driver(const std::string& directory, const std::string& drop_entry) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return refuse_errno("cannot make a pipe", errno);
  const accelmm::UniqueFd here(ends[0]);
  accelmm::UniqueFd there(ends[1]);
  auto process = ChildProcess::start({program_folder() + "/acceld", "--devices", "2", "--directory",
                                      directory, "--drop-entry", drop_entry},
                                     {.input = {}, .output = there.view(), .socket = {}});
  if (!process) return process;
  there.reset();
  // One line when the nodes are there; the end of the file when there will be none.
  std::array<char, 512> line;
  if (read(here.get(), line.data(), line.size()) <= 0)
    return refuse("the driver process did not start (status " + std::to_string(process->wait()) +
                  ")");
  return process;
}

/// Makes the folder for the pictures, and finds out early whether it can be written.
Outcome<void> make_out(const std::string& out) {
  std::error_code error;
  std::filesystem::create_directories(out, error);
  if (error) return refuse("cannot make the folder " + out + ": " + error.message());
  if (access(out.c_str(), W_OK | X_OK) != 0)
    return refuse_errno("cannot write into the folder " + out, errno);
  return {};
}

Outcome<void> run(const Arguments& arguments) {
  const auto picture = load_png(arguments.picture);
  if (!picture) return refuse(picture.error());
  if (auto made = make_out(arguments.out); !made) return made;
  const auto folder = PrivateFolder::make();
  if (!folder) return refuse(folder.error());
  remove_when_interrupted(**folder);
  const std::string& directory = (*folder)->path();
  auto driver = start_driver(directory, arguments.drop_entry);
  if (!driver) return refuse(driver.error());
  say("[1] driver process %d hosts accel0 and accel1 in %s", static_cast<int>(driver->pid()),
      directory.c_str());
  auto monitor = MonitorView::start(directory);
  if (!monitor) return refuse(monitor.error());
  (*monitor)->wait_for_first();
  const auto done = run_application({.name = arguments.picture,
                                     .picture = *picture,
                                     .out = arguments.out,
                                     .directory = directory,
                                     .driver = driver->pid()},
                                    **monitor);
  monitor->reset();
  if (const int status = driver->stop(); status != 0 && done)
    return refuse("the driver process ended with status " + std::to_string(status));
  return done;
}

}  // namespace
}  // namespace demo

int main(int argc, char** argv) {
  const demo::Arguments arguments = demo::parse(argc, argv);
  if (!arguments.second_process.empty())
    return demo::run_second_process(accelmm::FdView(demo::ChildProcess::socket_number),
                                    arguments.second_process);
  std::signal(SIGPIPE, SIG_IGN);
  if (const auto done = demo::run(arguments); !done) {
    std::fprintf(stderr, "demo: %s\n", done.error().c_str());
    return EXIT_FAILURE;
  }
  return EXIT_SUCCESS;
}
