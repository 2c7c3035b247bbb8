// SPDX-License-Identifier: Apache-2.0
//
// Preloaded into a program that streams video through V4L2, it makes the program's buffers ours: what the program exports
// from the driver is a dma-buf of an accelmm session in its place. The program itself is as its makers built it.
//
//   ACCELMM_DIRECTORY  the runtime whose device 0 the buffers come from
//   ACCELMM_INTERPOSE  export: VIDIOC_EXPBUF alone answers with a buffer of ours, of the size of the driver's
//                      capture: besides, a capture queue of mapped buffers is one of imported buffers, so that the
//                      camera fills what the program exports
#include <accelmm/client.hpp>

#include <cerrno>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string_view>
#include <utility>

#include <dlfcn.h>
#include <fcntl.h>
#include <linux/videodev2.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

namespace {

using namespace accelmm;

int call_driver(int fd, unsigned long request, void* argument) {
  using Ioctl = int (*)(int, unsigned long, ...);
  static const auto real = reinterpret_cast<Ioctl>(::dlsym(RTLD_NEXT, "ioctl"));
  return real(fd, request, argument);
}

/// A buffer of ours and its one dma-buf.
struct Shared {
  Buffer buffer;
  Export view;
  [[nodiscard]] int fd() const { return view.pieces.front().fd.get(); }
};

class Interposer {
 public:
  static Interposer& only() {
    static Interposer& one = *new Interposer;  // outlives what the program does while it ends
    return one;
  }

  int ioctl(int fd, unsigned long request, void* argument) {
    const std::scoped_lock lock(mutex_);
    switch (request) {
      case VIDIOC_EXPBUF:
        return export_buffer(fd, *static_cast<v4l2_exportbuffer*>(argument));
      case VIDIOC_REQBUFS:
        return request_buffers(fd, *static_cast<v4l2_requestbuffers*>(argument));
      case VIDIOC_QUERYBUF:
      case VIDIOC_QBUF:
      case VIDIOC_PREPARE_BUF:
        return pass_buffer(fd, request, *static_cast<v4l2_buffer*>(argument));
      default:
        return call_driver(fd, request, argument);
    }
  }

  /// Blocks until there is a frame, so that it holds no lock.
  int dequeue(int fd, v4l2_buffer& buffer) {
    if (!imports(fd, buffer.type)) return call_driver(fd, VIDIOC_DQBUF, &buffer);
    buffer.memory = V4L2_MEMORY_DMABUF;
    const int status = call_driver(fd, VIDIOC_DQBUF, &buffer);
    show_as_mapped(buffer);
    return status;
  }

 private:
  using Place =
      std::pair<int,
                std::uint32_t>;  // the program's descriptor of the driver, and the buffer's index

  Interposer() {
    const char* const directory = std::getenv("ACCELMM_DIRECTORY");
    const char* const mode = std::getenv("ACCELMM_INTERPOSE");
    captures_ = mode != nullptr && std::string_view(mode) == "capture";
    if (directory == nullptr) return;
    auto client = Client::connect(0, NodeKind::compute, directory);
    if (client) client_ = std::make_unique<Client>(std::move(*client));
  }

  [[nodiscard]] bool imports(int fd, std::uint32_t type) {
    const std::scoped_lock lock(importing_mutex_);
    return type == V4L2_BUF_TYPE_VIDEO_CAPTURE && importing_.contains(fd);
  }
  void set_importing(int fd, std::uint32_t buffers) {
    const std::scoped_lock lock(importing_mutex_);
    if (buffers > 0)
      importing_[fd] = buffers;
    else
      importing_.erase(fd);
  }

  static void show_as_mapped(v4l2_buffer& buffer) {
    buffer.memory = V4L2_MEMORY_MMAP;
    buffer.m.offset = buffer.index * 4096;
  }

  /// What stands for buffer `index`, made the first time; null where the library has none to give.
  Shared* shared(int fd, std::uint32_t index, std::uint64_t bytes) {
    const Place place{fd, index};
    const auto found = shared_.find(place);
    if (found != shared_.end() && found->second.buffer.size().value() >= bytes)
      return &found->second;
    shared_.erase(place);
    if (!client_) return nullptr;
    auto buffer = client_->allocate(ByteCount((bytes + 4095) / 4096 * 4096));
    if (!buffer) return nullptr;
    auto view = buffer->export_view();
    if (!view || view->pieces.size() != 1) return nullptr;
    Shared& made =
        shared_.emplace(place, Shared{std::move(*buffer), std::move(*view)}).first->second;
    struct stat status{};
    ::fstat(made.fd(), &status);
    std::fprintf(stderr, "accelmm: buffer %u is ours, %llu bytes, inode %llu\n", index,
                 static_cast<unsigned long long>(made.buffer.size().value()),
                 static_cast<unsigned long long>(status.st_ino));
    return &made;
  }

  Shared* shared(int fd, std::uint32_t type, std::uint32_t index, std::uint32_t memory) {
    v4l2_buffer asked{};
    asked.type = type;
    asked.index = index;
    asked.memory = memory;
    if (call_driver(fd, VIDIOC_QUERYBUF, &asked) != 0) return nullptr;
    return shared(fd, index, asked.length);
  }

  int export_buffer(int fd, v4l2_exportbuffer& request) {
    const bool imported = imports(fd, request.type);
    if (!imported) {
      // What the driver refuses it still refuses.
      const int status = call_driver(fd, VIDIOC_EXPBUF, &request);
      if (status != 0) return status;
      ::close(request.fd);
    }
    const Shared* const ours =
        shared(fd, request.type, request.index, imported ? V4L2_MEMORY_DMABUF : V4L2_MEMORY_MMAP);
    if (ours == nullptr) {
      errno = ENOMEM;
      return -1;
    }
    request.fd = ::fcntl(ours->fd(), F_DUPFD_CLOEXEC, 0);
    return request.fd < 0 ? -1 : 0;
  }

  int request_buffers(int fd, v4l2_requestbuffers& request) {
    if (!captures_ || request.type != V4L2_BUF_TYPE_VIDEO_CAPTURE ||
        request.memory != V4L2_MEMORY_MMAP) {
      set_importing(fd, 0);  // another queue, or another node under the same number
      return call_driver(fd, VIDIOC_REQBUFS, &request);
    }
    request.memory = V4L2_MEMORY_DMABUF;
    const int status = call_driver(fd, VIDIOC_REQBUFS, &request);
    request.memory = V4L2_MEMORY_MMAP;
    if (status == 0) set_importing(fd, request.count);
    return status;
  }

  int pass_buffer(int fd, unsigned long request, v4l2_buffer& buffer) {
    if (!imports(fd, buffer.type)) return call_driver(fd, request, &buffer);
    buffer.memory = V4L2_MEMORY_DMABUF;
    if (request != VIDIOC_QUERYBUF) {
      const Shared* const ours = shared(fd, buffer.type, buffer.index, V4L2_MEMORY_DMABUF);
      if (ours == nullptr) {
        errno = ENOMEM;
        return -1;
      }
      buffer.m.fd = ours->fd();
      buffer.length = 0;  // all of it
    }
    const int status = call_driver(fd, request, &buffer);
    show_as_mapped(buffer);
    return status;
  }

  std::mutex mutex_;
  std::mutex importing_mutex_;
  std::map<int, std::uint32_t> importing_;
  std::map<Place, Shared> shared_;
  std::unique_ptr<Client> client_;
  bool captures_ = false;
};

bool concerns_buffers(unsigned long request) {
  switch (request) {
    case VIDIOC_EXPBUF:
    case VIDIOC_REQBUFS:
    case VIDIOC_QUERYBUF:
    case VIDIOC_QBUF:
    case VIDIOC_PREPARE_BUF:
      return true;
    default:
      return false;
  }
}

}  // namespace

extern "C" __attribute__((visibility("default"))) int ioctl(int fd, unsigned long request,
                                                            ...) noexcept {
  va_list arguments;
  va_start(arguments, request);
  void* const argument = va_arg(arguments, void*);
  va_end(arguments);
  if (argument != nullptr && request == VIDIOC_DQBUF)
    return Interposer::only().dequeue(fd, *static_cast<v4l2_buffer*>(argument));
  if (argument != nullptr && concerns_buffers(request))
    return Interposer::only().ioctl(fd, request, argument);
  return call_driver(fd, request, argument);
}
