// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/mapping.hpp"

#include <accelmm/error.hpp>
#include <accelmm/fd.hpp>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <utility>

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

namespace accelmm::test {

/// The memory of an emulated machine, which QEMU and this process both map.
class GuestMemory {
 public:
  /// All zero.
  [[nodiscard]] static Result<GuestMemory> create(ByteCount size) {
    UniqueFd file(::memfd_create("accelmm-guest", MFD_CLOEXEC));
    if (!file.valid()) return fail_errno(errno, "no file for the guest's memory");
    if (::ftruncate(file.get(), static_cast<off_t>(size.value())) != 0)
      return fail_errno(errno, "no room for the guest's memory");
    auto mapping = Mapping::create(file.view(), 0, size, PROT_READ | PROT_WRITE);
    if (!mapping) return fail(mapping.error());
    return GuestMemory(std::move(file), std::move(*mapping));
  }

  [[nodiscard]] std::span<std::byte> bytes() const { return mapping_.bytes(); }
  /// Makes all of it zero again, for everyone who maps it.
  [[nodiscard]] Result<void> clear() const {
    constexpr int punch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    if (::fallocate(fd(), punch, 0, static_cast<off_t>(bytes().size())) != 0)
      return fail_errno(errno, "cannot clear the guest's memory");
    return {};
  }
  [[nodiscard]] int fd() const { return file_.get(); }
  /// How a command line names the file to a process that inherits fd().
  [[nodiscard]] std::string path() const { return "/proc/self/fd/" + std::to_string(fd()); }
  [[nodiscard]] std::string megabytes() const { return std::to_string(bytes().size() >> 20) + "M"; }

 private:
  GuestMemory(UniqueFd file, Mapping mapping)
      : file_(std::move(file)), mapping_(std::move(mapping)) {}

  UniqueFd file_;
  Mapping mapping_;
};

/// Reads and stores words of a table as a device would see them, wherever that lies.
[[nodiscard]] inline std::uint64_t load_word(std::span<const std::byte> memory,
                                             std::uint64_t offset) {
  std::uint64_t word = 0;
  std::memcpy(&word, memory.subspan(offset, sizeof word).data(), sizeof word);
  return word;
}
inline void store_word(std::span<std::byte> memory, std::uint64_t offset, std::uint64_t word) {
  std::memcpy(memory.subspan(offset, sizeof word).data(), &word, sizeof word);
}

}  // namespace accelmm::test
