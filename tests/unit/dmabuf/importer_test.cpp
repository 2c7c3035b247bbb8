// SPDX-License-Identifier: Apache-2.0
#include "dmabuf/importer.hpp"

#include "base/mapping.hpp"
#include "support/census.hpp"
#include "support/failing_calls.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

namespace accelmm::dmabuf {
namespace {

using accelmm::test::count_fds;

constexpr int fixed = F_SEAL_SHRINK | F_SEAL_GROW;

UniqueFd memfd(ByteCount size, int seals) {
  UniqueFd fd(::memfd_create("raw", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  EXPECT_EQ(0, ::ftruncate(fd.get(), static_cast<off_t>(size.value())));
  EXPECT_EQ(0, ::fcntl(fd.get(), F_ADD_SEALS, seals));
  return fd;
}

std::vector<Piece> one(UniqueFd fd, ByteCount offset, ByteCount length) {
  std::vector<Piece> pieces;
  pieces.push_back({std::move(fd), offset, length});
  return pieces;
}

Errc errc(std::vector<Piece> pieces, const ImportNeeds& needs = {}) {
  const auto view = import_view(std::move(pieces), needs);
  return view ? Errc{} : view.error().code;
}

TEST(Importer, AWholeSealedFileIsTakenAsItIs) {
  UniqueFd fd = memfd(64_KiB, fixed);
  struct stat status = {};
  ASSERT_EQ(0, ::fstat(fd.get(), &status));
  const auto view = import_view(one(std::move(fd), ByteCount(), 64_KiB));
  ASSERT_TRUE(view.has_value());
  EXPECT_EQ(64_KiB, view->length);
  EXPECT_EQ(Access::read_write, view->access);
  const SharedFile& file = view->pieces.front().file;
  EXPECT_EQ(DescriptorKind::memory_file, file.kind());
  EXPECT_EQ(status.st_ino, file.identity().inode);
}

TEST(Importer, SeveralPiecesAreOneViewAndPartsAreParts) {
  auto pieces = one(memfd(64_KiB, fixed), 4_KiB, 8_KiB);
  pieces.push_back({memfd(16_KiB, fixed | F_SEAL_FUTURE_WRITE), 12_KiB, 4_KiB});
  const auto view = import_view(std::move(pieces));
  ASSERT_TRUE(view.has_value());
  EXPECT_EQ(12_KiB, view->length);
  EXPECT_EQ(Access::read, view->access) << "what holds for one piece holds for all";
  EXPECT_EQ(2U, view->pieces.size());
}

TEST(Importer, AViewIsReadOnlyWhicheverPieceIs) {
  auto pieces = one(memfd(8_KiB, fixed | F_SEAL_FUTURE_WRITE), ByteCount(), 8_KiB);
  pieces.push_back({memfd(8_KiB, fixed), ByteCount(), 8_KiB});
  EXPECT_EQ(Access::read, import_view(std::move(pieces))->access);
}

TEST(Importer, WhatCouldEndInASignalIsRefused) {
  EXPECT_EQ(Errc::invalid_argument, errc({}));
  EXPECT_EQ(Errc::invalid_argument, errc(one(memfd(8_KiB, F_SEAL_GROW), ByteCount(), 8_KiB)));
  EXPECT_EQ(Errc::invalid_argument, errc(one(memfd(8_KiB, F_SEAL_SHRINK), ByteCount(), 8_KiB)));
  EXPECT_EQ(Errc::not_supported,
            errc(one(UniqueFd(::eventfd(0, EFD_CLOEXEC)), ByteCount(), 4_KiB)));
  EXPECT_EQ(Errc::invalid_argument, errc(one(UniqueFd(), ByteCount(), 4_KiB)));
}

TEST(Importer, RangesThatAreNoneAreRefusedAtEveryEdge) {
  const ByteCount all(~std::uint64_t{0});
  const ByteCount last_page(~std::uint64_t{0} - 4095);
  const std::vector<std::pair<ByteCount, ByteCount>> wrong{
      {0_B, 0_B},   {0_B, 12_KiB}, {4_KiB, 8_KiB},     {8_KiB, 4_KiB},
      {all, 4_KiB}, {0_B, all},    {last_page, 8_KiB}, {4_KiB, last_page},
      {1_B, 4_KiB}, {0_B, 4097_B}, {12_KiB, 0_B},      {0_B, 1_B}};
  for (const auto& [offset, length] : wrong)
    EXPECT_EQ(Errc::invalid_argument, errc(one(memfd(8_KiB, fixed), offset, length)))
        << offset.value() << " " << length.value();
}

TEST(Importer, WhatNobodyCanKnowIsRefusedWhereItIsNeeded) {
  const auto whole = [] { return one(memfd(8_KiB, fixed), ByteCount(), 8_KiB); };
  EXPECT_EQ(Errc{}, errc(whole(), {.most_segments = 2}));
  EXPECT_EQ(Errc::not_supported, errc(whole(), {.most_segments = 1}));
  EXPECT_EQ(Errc::not_supported, errc(whole(), {.address_bits = 32}));
  EXPECT_EQ(Errc{}, errc(whole(), {.alignment = Alignment(8192)}));
  EXPECT_EQ(Errc::not_supported, errc(whole(), {.alignment = Alignment(16384)}));
  EXPECT_EQ(Errc::not_supported,
            errc(one(memfd(64_KiB, fixed), 4_KiB, 8_KiB), {.alignment = Alignment(8192)}))
      << "the beginning counts like the length";
  EXPECT_EQ(Errc{}, errc(whole(), {.coherence = ImportNeeds::Coherence::always}));
  EXPECT_EQ(Errc{}, errc(whole(), {.access = Access::read_write}));
  EXPECT_EQ(Errc::not_permitted, errc(one(memfd(8_KiB, fixed | F_SEAL_WRITE), ByteCount(), 8_KiB),
                                      {.access = Access::write}));
}

TEST(Importer, TheDescriptorsAreConsumedWhateverFails) {
  const std::size_t fds = count_fds();
  bool succeeded = false;
  for (long k = 1; k < 40 && !succeeded; ++k) {
    auto pieces = one(memfd(8_KiB, fixed), ByteCount(), 8_KiB);
    pieces.push_back({memfd(8_KiB, fixed), ByteCount(), 8_KiB});
    const accelmm::test::FailingCall failing(k, EIO);
    succeeded = import_view(std::move(pieces)).has_value();
    EXPECT_EQ(fds, count_fds()) << k;
  }
  EXPECT_TRUE(succeeded);
}

}  // namespace
}  // namespace accelmm::dmabuf
