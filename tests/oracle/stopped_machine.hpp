// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "oracle/gdb_stub.hpp"
#include "oracle/guest_memory.hpp"
#include "oracle/qemu_process.hpp"

#include <accelmm/error.hpp>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include <sys/socket.h>

namespace accelmm::test {

/// A machine of QEMU whose CPU never runs: it only walks tables for those who ask.
class StoppedMachine {
 public:
  struct Options {
    std::string program;
    std::string machine;
    std::string cpu;
    std::string architecture;  ///< as gdb names it
    ByteCount memory;
  };

  /// Errors  no_entry: the program is not installed.  io_error: it does not run.
  [[nodiscard]] static Result<StoppedMachine> start(const Options& options) {
    const auto program = find_program(options.program);
    if (!program) return fail(Errc::no_entry, "this QEMU is not installed (tools/setup test)");
    auto memory = GuestMemory::create(options.memory);
    if (!memory) return fail(memory.error());
    std::array<int, 2> ends{};
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0)
      return fail_errno(errno, "socketpair");
    UniqueFd ours(ends[0]);
    UniqueFd theirs(ends[1]);
    const std::vector<std::string> arguments{
        "-S",
        "-nodefaults",
        "-display",
        "none",
        "-accel",
        "tcg",
        "-cpu",
        options.cpu,
        "-m",
        memory->megabytes(),
        "-machine",
        options.machine + ",memory-backend=ram",
        "-object",
        "memory-backend-file,id=ram,share=on,size=" + memory->megabytes() +
            ",mem-path=" + memory->path(),
        "-chardev",
        "socket,id=gdb,fd=" + std::to_string(theirs.get()),
        "-gdb",
        "chardev:gdb"};
    const std::array<int, 2> inherited{memory->fd(), theirs.get()};
    auto process = QemuProcess::start(*program, arguments, inherited);
    if (!process) return fail(process.error());
    theirs.reset();
    auto stub = GdbStub::connect(QemuWire(std::move(ours)), options.architecture);
    if (!stub) {
      std::fprintf(stderr, "%s\n", process->last_words().c_str());
      return fail(stub.error());
    }
    // QEMU leaves a description of the machine there. Its CPU will never read it.
    if (auto cleared = memory->clear(); !cleared) return fail(cleared.error());
    return StoppedMachine(std::move(*memory), std::move(*process), std::move(*stub));
  }

  [[nodiscard]] std::span<std::byte> memory() const { return memory_.bytes(); }
  [[nodiscard]] GdbStub& stub() { return stub_; }
  [[nodiscard]] pid_t pid() const { return process_.pid(); }

  /// Where each address leads for a load, by the monitor's gva2gpa; nothing where it faults.
  [[nodiscard]] Result<std::vector<std::optional<std::uint64_t>>> translate(
      std::span<const std::uint64_t> addresses) {
    std::vector<std::string> commands;
    commands.reserve(addresses.size());
    std::ranges::transform(addresses, std::back_inserter(commands),
                           [](std::uint64_t address) { return "gva2gpa " + to_hex(address); });
    const auto printed = stub_.monitor(commands);
    if (!printed) return fail(printed.error());
    std::vector<std::optional<std::uint64_t>> answers;
    answers.reserve(addresses.size());
    for (const std::string& text : *printed) {
      if (text.starts_with("gpa: "))
        answers.emplace_back(parse_hex(std::string_view(text).substr(5)));
      else if (text.starts_with("Unmapped"))
        answers.emplace_back();
      else
        return fail(Errc::io_error, "this QEMU's gva2gpa prints something else");
    }
    return answers;
  }

  /// The one text that one command of the monitor prints.
  [[nodiscard]] Result<std::string> print(const std::string& command) {
    auto printed = stub_.monitor(std::span(&command, 1));
    if (!printed) return fail(printed.error());
    return std::move(printed->front());
  }

 private:
  StoppedMachine(GuestMemory memory, QemuProcess process, GdbStub stub)
      : memory_(std::move(memory)), process_(std::move(process)), stub_(std::move(stub)) {}

  GuestMemory memory_;
  QemuProcess process_;
  GdbStub stub_;
};

}  // namespace accelmm::test
