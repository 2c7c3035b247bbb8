// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/access.hpp>
#include <accelmm/buffer.hpp>
#include <accelmm/client.hpp>
#include <accelmm/error.hpp>
#include <accelmm/heap.hpp>
#include <accelmm/heap_source.hpp>
#include <accelmm/units.hpp>

#include <cstdint>
#include <memory>
#include <utility>

namespace accelmm {

/// Whether a heap's memory is mapped for the device's engines.
enum class DeviceUse : std::uint8_t { mapped, none };

/// A session's buffers as the chunks of a heap: each is allocated, mapped for the processor and for
/// the device.
///
/// Owns      a range of addresses; its chunks' buffers and mappings. Keeps the session open.
/// Threads   any.
/// Lifetime  must outlive the heap over it; may outlive the client.
/// Errors    over_quota and no_memory as the driver process says. no_device from grow() when it is
///           gone: what was handed out stays readable and writable for the processor.
/// Cost      grow() is four calls to the driver process and three system calls; give_back() three
///           and one, and waits until the device forgot the mapping, a second at most.
class ClientHeapSource final : public HeapSource {
 public:
  struct Options {
    BufferOptions buffer = {};
    Access access = Access::read_write;  ///< of the device
    DeviceUse device = DeviceUse::mapped;
    ByteCount range{std::uint64_t{64} << 30};  ///< of addresses: no heap over it is larger
  };
  /// Errors  invalid_argument: a range of less than one unit, or an access that does not exist.
  ///         no_memory.  Any value of mmap(2).
  [[nodiscard]] static Result<std::unique_ptr<ClientHeapSource>> create(const Client& client,
                                                                        const Options& options);

  ClientHeapSource(const ClientHeapSource&) = delete;
  ClientHeapSource& operator=(const ClientHeapSource&) = delete;
  ~ClientHeapSource() override;

  [[nodiscard]] HeapRange range() const noexcept override;
  [[nodiscard]] Result<HeapChunk> grow(ByteCount size, Alignment alignment) override;
  void give_back(const HeapChunk& chunk) override;

 private:
  struct State;
  explicit ClientHeapSource(std::unique_ptr<State> state) noexcept;

  std::unique_ptr<State> state_;
};

/// A Heap over the buffers of one session: pieces with a pointer and a device address, from one
/// call that crosses nothing.
///
/// Owns      the heap and its source.
/// Threads   as Heap.
/// Lifetime  move-only; may outlive the client, whose session stays open as long. A piece must not
///           be freed before the device's work on it ended.
/// Errors    as Heap; no_device in a forked child.
class ClientHeap {
 public:
  struct Options {
    ClientHeapSource::Options memory = {};
    Heap::Options heap = {};  ///< without a source
  };
  /// Errors  as ClientHeapSource::create() and Heap::create().
  [[nodiscard]] static Result<ClientHeap> create(const Client& client, const Options& options);
  [[nodiscard]] static Result<ClientHeap> create(const Client& client) {
    return create(client, Options{});
  }

  ClientHeap(ClientHeap&&) noexcept = default;
  ClientHeap& operator=(ClientHeap&&) = delete;

  [[nodiscard]] Heap& heap() noexcept { return heap_; }
  Heap* operator->() noexcept { return &heap_; }

 private:
  ClientHeap(std::unique_ptr<ClientHeapSource> source, Heap heap)
      : source_(std::move(source)), heap_(std::move(heap)) {}
  // The heap ends first.
  std::unique_ptr<ClientHeapSource> source_;
  Heap heap_;
};

}  // namespace accelmm
