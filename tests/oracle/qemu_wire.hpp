// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/error.hpp>
#include <accelmm/fd.hpp>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

namespace accelmm::test {

/// Our end of a socket to QEMU, and of the pipe that its log goes into, if it has one.
///
/// Sending goes on while answers and log are taken in, so neither side can wait for the other for
/// ever, however many commands are sent at once. QEMU's end, its silence, and more than `patience`
/// for one exchange are errors, and so is each exchange after that.
class QemuWire {
 public:
  explicit QemuWire(UniqueFd socket, UniqueFd log = {})
      : socket_(std::move(socket)), log_(std::move(log)) {
    for (const int fd : {socket_.get(), log_.get()})
      if (fd >= 0) ::fcntl(fd, F_SETFL, O_NONBLOCK);
  }

  /// Sends `out` and receives until enough(received) says so; it takes from `received` what it
  /// understood.
  /// Errors  io_error: as above.
  template <class Enough>
  [[nodiscard]] Result<void> exchange(std::string_view out, Enough enough) {
    if (!broken_) broken_ = attempt(out, enough);
    if (broken_) return fail(Errc::io_error, broken_);
    return {};
  }

  [[nodiscard]] std::chrono::milliseconds patience() const { return patience_; }
  void set_patience(std::chrono::milliseconds patience) { patience_ = patience; }

  /// All that QEMU has logged and nobody has taken yet.
  [[nodiscard]] std::string take_logged() {
    take_log();
    return std::exchange(logged_, {});
  }

 private:
  // Null, or why it went wrong.
  template <class Enough>
  [[nodiscard]] const char* attempt(std::string_view out, Enough& enough) {
    const auto end = std::chrono::steady_clock::now() + patience_;
    bool begun = false;
    while (!out.empty() || !enough(received_)) {
      // QEMU writes each answer alone: to wake up for each would take longer than QEMU does.
      if (begun && out.empty()) std::this_thread::sleep_for(std::chrono::microseconds(100));
      const auto left =
          std::chrono::ceil<std::chrono::milliseconds>(end - std::chrono::steady_clock::now());
      if (left.count() <= 0) return "QEMU does not answer in time";
      std::array<pollfd, 2> fds{
          pollfd{socket_.get(), static_cast<short>(out.empty() ? POLLIN : POLLIN | POLLOUT), 0},
          pollfd{log_.get(), POLLIN, 0}};
      if (::poll(fds.data(), fds.size(), static_cast<int>(left.count())) < 0 && errno != EINTR)
        return "poll failed";
      if ((fds[0].revents & POLLOUT) != 0) {
        const ssize_t sent = ::send(socket_.get(), out.data(), out.size(), MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN) return "QEMU has ended";
        out.remove_prefix(static_cast<std::size_t>(std::max<ssize_t>(sent, 0)));
      }
      take_log();
      begun = (fds[0].revents & POLLIN) != 0;
      if (!take(socket_.get(), received_)) return "QEMU has ended";
    }
    return nullptr;
  }

  void take_log() {
    if (log_.valid()) static_cast<void>(take(log_.get(), logged_));
  }

  // Appends what can be read now; false at the end of the file.
  static bool take(int fd, std::string& into) {
    std::array<char, 65536> bytes;
    while (true) {
      const ssize_t length = ::read(fd, bytes.data(), bytes.size());
      if (length == 0) return false;
      if (length < 0) return errno == EAGAIN || errno == EINTR;
      into.append(bytes.data(), static_cast<std::size_t>(length));
    }
  }

  UniqueFd socket_;
  UniqueFd log_;
  std::chrono::milliseconds patience_ = std::chrono::seconds(60);
  std::string received_;
  std::string logged_;
  const char* broken_ = nullptr;
};

}  // namespace accelmm::test
