// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernel/sharing/kernel_memory.hpp"

#include <cstddef>
#include <cstdint>
#include <set>
#include <vector>

#include <elf.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

/// The memory of the guest by page frames, past every mapping of any process: what is written through
/// one is looked for here.
namespace accelmm::kernel_test {

using Frames = std::vector<std::uint64_t>;

/// Whether there are frames, each another.
[[nodiscard]] inline bool are_all_there(const Frames& frames) {
  const std::set<std::uint64_t> different(frames.begin(), frames.end());
  return different.size() == frames.size() && !different.contains(0);
}

/// Page frames by their numbers, as the kernel's own mapping of all memory shows them.
class PhysicalMemory {
 public:
  PhysicalMemory() : file_(::open("/proc/kcore", O_RDONLY | O_CLOEXEC)) {
    Elf64_Ehdr head = {};
    EXPECT_EQ(ssize_t{sizeof head}, ::pread(file_.get(), &head, sizeof head, 0));
    segments_.resize(head.e_phnum);
    const std::size_t length = segments_.size() * sizeof segments_[0];
    EXPECT_EQ(static_cast<ssize_t>(length),
              ::pread(file_.get(), segments_.data(), length, static_cast<off_t>(head.e_phoff)));
  }
  /// The bytes in these frames, one frame after the other.
  [[nodiscard]] std::vector<std::byte> read(const Frames& frames) const {
    std::vector<std::byte> bytes(frames.size() * page_bytes);
    for (std::size_t i = 0; i < frames.size(); ++i) {
      const off_t at = offset_of(frames[i] * page_bytes);
      EXPECT_GT(at, 0) << "no memory is at frame " << frames[i];
      EXPECT_EQ(static_cast<ssize_t>(page_bytes),
                ::pread(file_.get(), bytes.data() + i * page_bytes, page_bytes, at));
    }
    return bytes;
  }

 private:
  [[nodiscard]] off_t offset_of(std::uint64_t physical) const {
    for (const Elf64_Phdr& segment : segments_) {
      if (segment.p_type != PT_LOAD || segment.p_paddr == ~Elf64_Addr{0}) continue;
      if (physical >= segment.p_paddr && physical - segment.p_paddr < segment.p_memsz)
        return static_cast<off_t>(segment.p_offset + (physical - segment.p_paddr));
    }
    return 0;
  }

  UniqueFd file_;
  std::vector<Elf64_Phdr> segments_;
};

}  // namespace accelmm::kernel_test
