// SPDX-License-Identifier: Apache-2.0
#include "dmabuf/shared_file.hpp"

namespace accelmm::dmabuf {

Result<SharedFile> SharedFile::adopt(UniqueFd fd) {
  if (!fd.valid()) return fail(Errc::invalid_argument, "no descriptor");
  const auto kernels = is_dma_buf(fd.view());
  // What cannot even be asked is no memory: an O_PATH descriptor of some file system.
  if (!kernels) return fail(kernels.error());
  if (*kernels) {
    auto buffer = DmaBuf::adopt_known(std::move(fd));
    if (!buffer) return fail(buffer.error());
    return SharedFile(std::move(*buffer));
  }
  auto memfd = SealedMemfd::adopt(std::move(fd));
  if (!memfd) return fail(memfd.error());
  return SharedFile(std::move(*memfd));
}

DescriptorKind SharedFile::kind() const {
  return std::holds_alternative<DmaBuf>(file_) ? DescriptorKind::dma_buf
                                               : DescriptorKind::memory_file;
}

FdView SharedFile::fd() const {
  return std::visit([](const auto& file) { return file.fd(); }, file_);
}

ByteCount SharedFile::size() const {
  return std::visit([](const auto& file) { return file.size(); }, file_);
}

Access SharedFile::access() const {
  return std::visit([](const auto& file) { return file.access(); }, file_);
}

FileIdentity SharedFile::identity() const {
  return std::visit([](const auto& file) { return file.identity(); }, file_);
}

}  // namespace accelmm::dmabuf
