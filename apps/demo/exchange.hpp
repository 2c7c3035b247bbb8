// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "outcome.hpp"

#include <accelmm/client.hpp>
#include <accelmm/fd.hpp>

#include <cstdint>
#include <string>

namespace demo {

/// What the two processes of the demo tell each other over a socket of their own, beside the
/// pictures themselves, which go as exports.
struct SharedPicture {
  std::uint32_t width;
  std::uint32_t height;
};

/// What the second process did.
struct SecondReport {
  std::uint64_t inode;  ///< of the memory that it received
  std::uint64_t jobs;
  std::uint64_t differing_pixels;  ///< from the CPU's computation
  char failure[256];               ///< empty: it worked, and an export of its result follows
};

[[nodiscard]] Outcome<void> send_bytes(accelmm::FdView socket, const void* bytes, std::size_t size);
/// Receives exactly `size` bytes, sent at once.
[[nodiscard]] Outcome<void> receive_bytes(accelmm::FdView socket, void* bytes, std::size_t size);

/// The inode of the memory behind an export: the same number is the same memory.
[[nodiscard]] Outcome<std::uint64_t> inode_of(const accelmm::Export& view);

/// Runs the second process: imports what the first one sends over `socket` into accel1, draws, and
/// sends the drawing back. Returns its exit status.
int run_second_process(accelmm::FdView socket, const std::string& directory);

}  // namespace demo
