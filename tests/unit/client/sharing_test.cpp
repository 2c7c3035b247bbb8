// SPDX-License-Identifier: Apache-2.0
#include "support/census.hpp"
#include "unit/client/fake_driver.hpp"

#include <accelmm/client.hpp>

#include <array>
#include <optional>

#include <gtest/gtest.h>
#include <sys/stat.h>

namespace accelmm {
namespace {

using test::FakeChannel;
using test::FakeDriver;
using test::page;
using test::Reply;

UniqueFd make_fd() {
  return UniqueFd(::memfd_create("test", MFD_CLOEXEC));
}

ino_t inode(const UniqueFd& fd) {
  struct stat status = {};
  EXPECT_EQ(0, ::fstat(fd.get(), &status));
  return status.st_ino;
}

class Sharing : public testing::Test {
 protected:
  void SetUp() override {
    auto client = Client::connect(std::make_unique<FakeChannel>(driver_));
    ASSERT_TRUE(client);
    client_ = std::move(*client);
    auto buffer = client_->allocate(ByteCount(4 * page));
    ASSERT_TRUE(buffer);
    buffer_ = std::move(*buffer);
    int ends[2];
    ASSERT_EQ(0, ::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends));
    sender_ = UniqueFd(ends[0]);
    receiver_ = UniqueFd(ends[1]);
  }

  std::shared_ptr<FakeDriver> driver_ = std::make_shared<FakeDriver>();
  std::optional<Client> client_;
  std::optional<Buffer> buffer_;
  UniqueFd sender_;
  UniqueFd receiver_;
};

TEST_F(Sharing, AnExportIsImportedElsewhereAsTheSameMemory) {
  const auto view = buffer_->export_view({BufferOffset(page), BufferOffset(3 * page)});
  ASSERT_TRUE(view);
  ASSERT_EQ(1u, view->pieces.size());
  EXPECT_EQ(page, view->pieces[0].offset);
  EXPECT_EQ(ByteCount(2 * page), view->size());
  const auto imported = client_->import_view(*view);
  ASSERT_TRUE(imported);
  EXPECT_EQ(ByteCount(2 * page), imported->size());
  EXPECT_EQ(Access::read, imported->access());
  EXPECT_EQ(inode(driver_->buffers[buffer_->handle()]),
            inode(driver_->buffers[imported->handle()]));
  EXPECT_TRUE(view->pieces[0].fd.valid()) << "the descriptors stay the caller's";
}

TEST_F(Sharing, PiecesThatShareADescriptorGetOneEach) {
  driver_->tamper(ACCELMM_IOCTL_EXPORT, [](Reply& reply) {
    auto& args = reply.as<accelmm_export>();
    args.count = 2;
    args.pieces[0] = {.fd = 0, .reserved = 0, .offset = 0, .length = page};
    args.pieces[1] = {.fd = 0, .reserved = 0, .offset = 8 * page, .length = 3 * page};
  });
  const auto view = buffer_->export_view();
  ASSERT_TRUE(view);
  ASSERT_EQ(2u, view->pieces.size());
  EXPECT_NE(view->pieces[0].fd.get(), view->pieces[1].fd.get());
  EXPECT_EQ(inode(view->pieces[0].fd), inode(view->pieces[1].fd));
  EXPECT_EQ(8 * page, view->pieces[1].offset);
}

TEST_F(Sharing, AnExportReplyThatLiesIsRefusedAndItsDescriptorsAreClosed) {
  const std::vector<std::pair<const char*, std::function<void(Reply&, accelmm_export&)>>> lies = {
      {"no pieces", [](Reply&, accelmm_export& args) { args.count = 0; }},
      {"too many pieces", [](Reply&, accelmm_export& args) { args.count = 9; }},
      {"count of 4 G", [](Reply&, accelmm_export& args) { args.count = UINT32_MAX; }},
      {"fd index", [](Reply&, accelmm_export& args) { args.pieces[0].fd = 1; }},
      {"no fd", [](Reply& reply, accelmm_export&) { reply.fds.clear(); }},
      {"fd without piece", [](Reply& reply, accelmm_export&) { reply.fds.push_back(make_fd()); }},
      {"reserved", [](Reply&, accelmm_export& args) { args.pieces[0].reserved = 1; }},
      {"piece of no bytes", [](Reply&, accelmm_export& args) { args.pieces[0].length = 0; }},
      {"shorter", [](Reply&, accelmm_export& args) { args.pieces[0].length -= page; }},
      {"longer", [](Reply&, accelmm_export& args) { args.pieces[0].length += page; }},
      {"end beyond 64 bits",
       [](Reply&, accelmm_export& args) { args.pieces[0].offset = UINT64_MAX; }},
      {"sum beyond 64 bits",
       [](Reply&, accelmm_export& args) {
         args.count = 2;
         args.pieces[0].length = UINT64_MAX;
         args.pieces[1] = {.fd = 0, .reserved = 0, .offset = 0, .length = 4 * page + 1};
       }},
  };
  const std::size_t before = test::count_fds();
  for (const auto& [field, lie] : lies) {
    SCOPED_TRACE(field);
    driver_->tamper(ACCELMM_IOCTL_EXPORT, [&](Reply& reply) {
      lie(reply, reply.as<accelmm_export>());
      reply.header.fd_count = static_cast<std::uint16_t>(reply.fds.size());
    });
    const auto view = buffer_->export_view();
    ASSERT_FALSE(view);
    EXPECT_EQ(Errc::protocol_error, view.error().code);
    EXPECT_EQ(before, test::count_fds());
  }
  EXPECT_TRUE(buffer_->export_view());
}

TEST_F(Sharing, AnImportReplyThatLiesIsRefused) {
  const auto view = buffer_->export_view();
  ASSERT_TRUE(view);
  const std::vector<std::pair<const char*, std::function<void(accelmm_import&)>>> lies = {
      {"size", [](accelmm_import& args) { args.size -= 1; }},
      {"no access", [](accelmm_import& args) { args.access = 0; }},
      {"unknown access", [](accelmm_import& args) { args.access = 4; }},
  };
  for (const auto& [field, lie] : lies) {
    SCOPED_TRACE(field);
    driver_->tamper(ACCELMM_IOCTL_IMPORT, [&](Reply& reply) { lie(reply.as<accelmm_import>()); });
    EXPECT_EQ(Errc::protocol_error, client_->import_view(*view).error().code);
  }
  EXPECT_TRUE(client_->import_view(*view));
}

Export make_pieces(std::size_t count) {
  Export view;
  for (std::size_t i = 0; i < count; ++i)
    view.pieces.push_back({make_fd(), i * page, ByteCount(page)});
  return view;
}

TEST_F(Sharing, ListsThatAreNoExportAreRefusedBeforeTheyAreSent) {
  Export empty_piece = make_pieces(1);
  empty_piece.pieces[0].length = ByteCount();
  Export beyond = make_pieces(1);
  beyond.pieces[0].offset = UINT64_MAX;
  Export closed = make_pieces(1);
  closed.pieces[0].fd.reset();
  const std::size_t sent = driver_->log.size();
  EXPECT_EQ(Errc::invalid_argument, client_->import_view(Export()).error().code);
  EXPECT_EQ(Errc::invalid_argument, client_->import_view(make_pieces(9)).error().code);
  EXPECT_EQ(Errc::invalid_argument, client_->import_view(empty_piece).error().code);
  EXPECT_EQ(Errc::overflow, client_->import_view(beyond).error().code);
  EXPECT_EQ(EBADF, static_cast<int>(client_->import_view(closed).error().code));
  EXPECT_EQ(sent, driver_->log.size());
  EXPECT_EQ(Errc::invalid_argument, send_export(sender_.view(), Export()).error().code);
  EXPECT_EQ(Errc::invalid_argument, send_export(sender_.view(), make_pieces(9)).error().code);
}

TEST_F(Sharing, AnExportArrivesAtTheOtherEndOfASocket) {
  const Export sent = make_pieces(ACCELMM_MAX_PIECES);
  ASSERT_TRUE(send_export(sender_.view(), sent));
  const auto received = receive_export(receiver_.view());
  ASSERT_TRUE(received);
  ASSERT_EQ(sent.pieces.size(), received->pieces.size());
  for (std::size_t i = 0; i < sent.pieces.size(); ++i) {
    EXPECT_EQ(sent.pieces[i].offset, received->pieces[i].offset);
    EXPECT_EQ(sent.pieces[i].length, received->pieces[i].length);
    EXPECT_EQ(inode(sent.pieces[i].fd), inode(received->pieces[i].fd));
    EXPECT_EQ(FD_CLOEXEC, ::fcntl(received->pieces[i].fd.get(), F_GETFD));
  }
}

TEST_F(Sharing, AClosedSocketIsAConnectionReset) {
  sender_.reset();
  EXPECT_EQ(ECONNRESET, static_cast<int>(receive_export(receiver_.view()).error().code));
  EXPECT_EQ(EPIPE, static_cast<int>(send_export(receiver_.view(), make_pieces(1)).error().code));
}

// What send_export() sends, for packets that it would not.
struct Packet {
  std::uint32_t magic = 0x58454341;
  std::uint32_t count = 1;
  std::array<accelmm_piece, ACCELMM_MAX_PIECES> pieces = {};
};

void send_raw(const UniqueFd& socket, std::span<const std::byte> bytes, const UniqueFd& fd) {
  iovec vector{.iov_base = const_cast<std::byte*>(bytes.data()), .iov_len = bytes.size()};
  alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(sizeof(int))> control = {};
  msghdr message = {};
  message.msg_iov = &vector;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  cmsghdr* const header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  const int number = fd.get();
  std::memcpy(CMSG_DATA(header), &number, sizeof(int));
  ASSERT_EQ(static_cast<ssize_t>(bytes.size()), ::sendmsg(socket.get(), &message, 0));
}

TEST_F(Sharing, APacketThatIsNoExportIsRefusedAndItsDescriptorIsClosed) {
  Packet good;
  good.pieces[0].length = page;
  Packet magic = good;
  magic.magic = ACCELMM_MAGIC;
  Packet count = good;
  count.count = 0;
  Packet many = good;
  many.count = 9;
  Packet index = good;
  index.pieces[0].fd = 1;
  Packet reserved = good;
  reserved.pieces[0].reserved = 1;
  Packet empty = good;
  empty.pieces[0].length = 0;
  Packet beyond = good;
  beyond.pieces[0].offset = UINT64_MAX;
  const UniqueFd fd = make_fd();
  const std::size_t before = test::count_fds();
  for (const Packet& packet : {magic, count, many, index, reserved, empty, beyond}) {
    send_raw(sender_, std::as_bytes(std::span(&packet, 1)), fd);
    EXPECT_EQ(Errc::protocol_error, receive_export(receiver_.view()).error().code);
    EXPECT_EQ(before, test::count_fds());
  }
  const auto bytes = std::as_bytes(std::span(&good, 1));
  send_raw(sender_, bytes.first(bytes.size() - 1), fd);
  EXPECT_EQ(Errc::protocol_error, receive_export(receiver_.view()).error().code);
  EXPECT_EQ(before, test::count_fds());
  send_raw(sender_, bytes, fd);
  EXPECT_TRUE(receive_export(receiver_.view()));
}

}  // namespace
}  // namespace accelmm
