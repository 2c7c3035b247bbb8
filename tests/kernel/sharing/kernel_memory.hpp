// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "support/npu_host.hpp"

#include <accelmm/units.hpp>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <fstream>
#include <ostream>
#include <span>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/// What the guest's kernel itself says of memory and who has it: an oracle for what is shared, and for
/// what was left behind. Only the guest's root sees it.
namespace accelmm::kernel_test {

/// What the whole guest has of dma-bufs and of memory files.
struct KernelMemory {
  std::uint64_t dma_bufs = 0;
  std::uint64_t dma_buf_bytes = 0;
  std::uint64_t shmem_kib = 0;
};

inline std::ostream& operator<<(std::ostream& out, const KernelMemory& memory) {
  return out << memory.dma_bufs << " dma-bufs of " << memory.dma_buf_bytes << " bytes, "
             << memory.shmem_kib << " KiB of Shmem";
}

[[nodiscard]] inline KernelMemory kernel_memory() {
  KernelMemory memory;
  std::ifstream buffers("/sys/kernel/debug/dma_buf/bufinfo");
  EXPECT_TRUE(buffers.good()) << "debugfs says nothing of dma-bufs";
  std::string word;
  for (std::string line; std::getline(buffers, line);) {
    // "Total 3 objects, 12288 bytes"
    if (!line.starts_with("Total ")) continue;
    std::istringstream(line) >> word >> memory.dma_bufs >> word >> memory.dma_buf_bytes;
  }
  std::ifstream pages("/proc/meminfo");
  for (std::string line; std::getline(pages, line);)
    if (line.starts_with("Shmem:")) std::istringstream(line) >> word >> memory.shmem_kib;
  return memory;
}

/// Whether nothing more is there than before, once the kernel has taken apart what the dead had. The
/// guest's files lie in Shmem too: results of tests, a log; no buffer of the tests is as small.
[[nodiscard]] inline testing::AssertionResult nothing_was_left_since(const KernelMemory& before) {
  constexpr std::uint64_t files_kib = 256;
  const auto deadline = test::soon();
  while (true) {
    const KernelMemory now = kernel_memory();
    if (now.dma_bufs == before.dma_bufs && now.dma_buf_bytes == before.dma_buf_bytes &&
        now.shmem_kib <= before.shmem_kib + files_kib)
      return testing::AssertionSuccess();
    if (std::chrono::steady_clock::now() > deadline)
      return testing::AssertionFailure() << "there are " << now << "; before, " << before;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
}

/// The device and inode of a file, as a line of maps has them.
struct FileId {
  unsigned major = 0;
  unsigned minor = 0;
  std::uint64_t inode = 0;
  bool operator==(const FileId&) const = default;
};

inline std::ostream& operator<<(std::ostream& out, const FileId& id) {
  return out << id.major << ":" << id.minor << " inode " << id.inode;
}

[[nodiscard]] inline FileId file_id(FdView fd) {
  struct stat status = {};
  EXPECT_EQ(0, ::fstat(fd.get(), &status));
  return {::major(status.st_dev), ::minor(status.st_dev), status.st_ino};
}

/// An area of a process's addresses that shows a file.
struct Area {
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
  std::uint64_t offset = 0;
  FileId file;
};

[[nodiscard]] inline std::vector<Area> areas_of(pid_t process) {
  std::ifstream maps("/proc/" + std::to_string(process) + "/maps");
  std::vector<Area> areas;
  for (std::string line; std::getline(maps, line);) {
    std::istringstream fields(line);
    Area area;
    std::string rights;
    char mark = 0;
    fields >> std::hex >> area.begin >> mark >> area.end >> rights >> area.offset;
    fields >> area.file.major >> mark >> area.file.minor >> std::dec >> area.file.inode;
    areas.push_back(area);
  }
  return areas;
}

/// Where a process has mapped a file from its beginning on; zeroes where it has not.
[[nodiscard]] inline Area area_of_file(pid_t process, const FileId& file) {
  for (const Area& area : areas_of(process))
    if (area.file == file && area.offset == 0) return area;
  return {};
}

/// The file that the calling process has mapped at an address.
[[nodiscard]] inline FileId file_at(const void* address) {
  const auto wanted = reinterpret_cast<std::uint64_t>(address);
  for (const Area& area : areas_of(::getpid()))
    if (area.begin <= wanted && wanted < area.end) return area.file;
  return {};
}

constexpr std::uint64_t page_bytes = 4096;

/// The numbers of the page frames behind addresses of a process; 0 where it has none, or where the
/// kernel does not tell, as of a dma-buf's mapping (VM_PFNMAP).
[[nodiscard]] inline std::vector<std::uint64_t> frames_at(pid_t process, std::uint64_t address,
                                                          ByteCount length) {
  constexpr std::uint64_t present = std::uint64_t{1} << 63;
  constexpr std::uint64_t number = (std::uint64_t{1} << 55) - 1;
  const UniqueFd file(
      ::open(("/proc/" + std::to_string(process) + "/pagemap").c_str(), O_RDONLY | O_CLOEXEC));
  std::vector<std::uint64_t> frames(length.value() / page_bytes);
  const auto size = static_cast<ssize_t>(frames.size() * sizeof frames[0]);
  EXPECT_EQ(size, ::pread(file.get(), frames.data(), static_cast<std::size_t>(size),
                          static_cast<off_t>(address / page_bytes * sizeof frames[0])));
  for (std::uint64_t& frame : frames) frame = (frame & present) != 0 ? frame & number : 0;
  return frames;
}

}  // namespace accelmm::kernel_test
