// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/mutex.hpp"
#include "dmabuf/memory_source.hpp"

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace accelmm::dmabuf {

/// The nodes that there are, by their paths, cards before render nodes. Opens none of them.
/// Errors  no_entry: the kernel has none.  Any value of open(2).
[[nodiscard]] Result<std::vector<std::string>> drm_nodes(const std::string& folder = "/dev/dri");

/// A DRM device as a source of memory and as an importer: vgem, a GPU, a display.
///
/// Owns      one open node, without the right to set modes.
/// Threads   any; one mutex, held over the calls that make and close handles.
/// Lifetime  shared: objects keep it.
class DrmDevice final : public MemorySource, public std::enable_shared_from_this<DrmDevice> {
 public:
  struct Limits {
    ByteCount largest;
    ByteCount total;
  };
  /// An object of the device. The kernel gives the same handle to who imports the same dma-buf
  /// twice and closes it at the first close, so that handles are counted here.
  class Object {
   public:
    enum class Held : std::uint8_t { not_yet, yes };
    Object(std::shared_ptr<DrmDevice> device, std::uint32_t handle, Held held)
        : device_(std::move(device)), handle_(handle), held_(held) {}
    ~Object() {
      if (held_ == Held::yes) device_->drop(handle_);
    }
    Object(const Object&) = delete;
    Object& operator=(const Object&) = delete;
    [[nodiscard]] std::uint32_t handle() const { return handle_; }

   private:
    friend class DrmDevice;
    std::shared_ptr<DrmDevice> device_;
    std::uint32_t handle_;
    Held held_;  // whether the device counts it
  };

  /// Errors  any value of open(2): access where the node's mode refuses.  not_supported: no DRM
  ///         node.
  [[nodiscard]] static Result<std::shared_ptr<DrmDevice>> open(const std::string& node,
                                                               const Limits& limits);

  [[nodiscard]] const char* name() const override { return name_.c_str(); }
  [[nodiscard]] Capabilities capabilities() const override;
  [[nodiscard]] FdView node() const { return node_.view(); }

  /// Takes a dma-buf as an object. What the device cannot take only this tells.
  [[nodiscard]] Result<std::unique_ptr<Object>> import(FdView buffer);
  /// The dma-buf of an object: of an imported one, the one that it was.
  [[nodiscard]] Result<DmaBuf> export_object(const Object& object);

 private:
  DrmDevice(UniqueFd node, std::string name, const Limits& limits);
  [[nodiscard]] Result<DmaBuf> make(ByteCount size, Access access) override;
  void drop(std::uint32_t handle) noexcept;

  UniqueFd node_;
  std::string name_;
  ByteCount largest_;
  Mutex mutex_;
  std::map<std::uint32_t, std::uint64_t> holders_ ACCELMM_GUARDED_BY(mutex_);  // of each handle
};

}  // namespace accelmm::dmabuf
