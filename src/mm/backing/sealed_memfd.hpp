// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/access.hpp>
#include <accelmm/backing.hpp>
#include <accelmm/error.hpp>
#include <accelmm/fd.hpp>
#include <accelmm/units.hpp>

#include <compare>
#include <cstdint>
#include <utility>

#include <sys/types.h>

namespace accelmm {

/// What can never be done to a memfd again, by anyone who holds it.
enum class Sealing : std::uint8_t {
  fixed_size,            ///< change its size
  fixed_size_read_only,  ///< change its size, or write to it through a mapping made from now on
};

/// Tells two descriptors of the same file from descriptors of two files.
struct FileIdentity {
  dev_t device;
  ino_t inode;
  constexpr auto operator<=>(const FileIdentity&) const = default;
};

/// A memory file whose size is fixed for ever: the memory of one buffer.
///
/// A file made here is at first unsealed against further seals, so that its owner can map it
/// writable and then forbid writing to everyone else: create(), place it, seal(), and only then
/// give descriptors away. Owns      one descriptor. Units     whole pages. Threads   externally
/// synchronised. Lifetime  move-only. The memory lives until the last descriptor and mapping of it,
/// in any process, is gone. Invariant size() bytes are there whatever anyone does: no access to a
/// mapping of them is a SIGBUS.
class SealedMemfd {
 public:
  /// Makes a file of zeroes that can neither shrink nor grow.
  /// `name`   shown in /proc/<pid>/maps, at most 249 bytes.
  /// `pages`  huge_2m or huge_1g: of the kernel's pool, whose pages are taken when it is placed.
  ///          The invariant holds for such a file once its pages are there, and as long as nobody
  ///          who can write to it punches a hole. Others: of ordinary pages.
  /// Errors  invalid_argument: size is 0 or not whole pages of the kind.  not_supported: the
  ///         kernel has no pages of that size.  Any value of memfd_create(2), ftruncate(2).
  [[nodiscard]] static Result<SealedMemfd> create(const char* name, ByteCount size,
                                                  PageSize pages = PageSize::base);

  /// Takes a descriptor from outside, if it is a memory file of fixed size. It is closed on
  /// failure. Errors  not_supported: not a memory file at all, or one of huge pages, or one that
  /// cannot be read.
  ///         invalid_argument: a memory file that may shrink or grow, that is empty or not whole
  ///         pages.
  [[nodiscard]] static Result<SealedMemfd> adopt(UniqueFd fd);

  /// Adds the final seals. Mappings that exist keep their permissions.
  /// Pre     made by create() and not sealed yet.
  /// Errors  any value of fcntl(2) F_ADD_SEALS; the file is as before.
  [[nodiscard]] Result<void> seal(Sealing sealing);

  /// A descriptor to give away.
  /// Pre     sealed: whoever holds an unsealed file could add seals to it.
  [[nodiscard]] Result<UniqueFd> duplicate() const;

  [[nodiscard]] FdView fd() const { return fd_.view(); }
  [[nodiscard]] ByteCount size() const { return size_; }
  /// What a new mapping of it may do: read, or read_write.
  [[nodiscard]] Access access() const { return access_; }
  [[nodiscard]] FileIdentity identity() const { return identity_; }

 private:
  enum class Seals : std::uint8_t { open, final };

  SealedMemfd(UniqueFd fd, ByteCount size, Access access, FileIdentity identity, Seals seals)
      : fd_(std::move(fd)), size_(size), identity_(identity), access_(access), seals_(seals) {}

  UniqueFd fd_;
  ByteCount size_;
  FileIdentity identity_;
  Access access_;
  Seals seals_;
};

}  // namespace accelmm
