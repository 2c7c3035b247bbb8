// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/error.hpp>

#include <utility>

namespace accelmm {

/// A borrowed file descriptor: valid while its owner lives, never closed through this.
class FdView {
 public:
  constexpr FdView() = default;
  explicit constexpr FdView(int fd) : fd_(fd) {}
  [[nodiscard]] constexpr int get() const { return fd_; }
  [[nodiscard]] constexpr bool valid() const { return fd_ >= 0; }

 private:
  int fd_ = -1;
};

/// Owns a file descriptor and closes it once.
///
/// Taking ownership is a parameter of this type by value; borrowing is an FdView.
/// Every descriptor that accelmm makes is O_CLOEXEC. errno survives the destructor.
class UniqueFd {
 public:
  constexpr UniqueFd() = default;
  explicit constexpr UniqueFd(int fd) noexcept : fd_(fd) {}
  UniqueFd(UniqueFd&& other) noexcept : fd_(other.release()) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept {
    if (this != &other) reset(other.release());
    return *this;
  }
  UniqueFd(const UniqueFd&) = delete;
  UniqueFd& operator=(const UniqueFd&) = delete;
  ~UniqueFd() { reset(); }

  [[nodiscard]] int get() const noexcept { return fd_; }
  [[nodiscard]] FdView view() const noexcept { return FdView(fd_); }
  [[nodiscard]] bool valid() const noexcept { return fd_ >= 0; }
  /// Gives the descriptor up without closing it.
  [[nodiscard]] int release() noexcept { return std::exchange(fd_, -1); }
  void reset(int fd = -1) noexcept;

 private:
  int fd_ = -1;
};

/// A second descriptor of the same open file, close-on-exec.
[[nodiscard]] Result<UniqueFd> duplicate(FdView fd);

}  // namespace accelmm
