// SPDX-License-Identifier: Apache-2.0
#include "bus/vfio_region.hpp"

#include <limits>
#include <new>
#include <utility>

#include <linux/vfio.h>
#include <sys/mman.h>

namespace accelmm {

Result<VfioRegionPlace> place_of_region(const VfioFiles& files, std::uint32_t index) {
  if (index >= files.regions) return fail(Errc::no_device, "device has no such region");
  vfio_region_info info{};
  info.argsz = sizeof info;
  info.index = index;
  const auto told =
      files.kernel().control(files.device.view(), VFIO_DEVICE_GET_REGION_INFO,
                             VfioKernel::address_of(info), "vfio_device_get_region_info");
  if (!told) return fail(told.error());
  constexpr auto last = static_cast<std::uint64_t>(std::numeric_limits<off_t>::max());
  if (info.offset > last || info.size > last - info.offset)
    return fail(Errc::protocol_error, "region of a device lies outside its file");
  return VfioRegionPlace{info.offset, ByteCount(info.size), info.flags};
}

VfioRegion::VfioRegion(std::unique_ptr<State> state) : state_(std::move(state)) {}
VfioRegion::VfioRegion(VfioRegion&&) noexcept = default;
VfioRegion& VfioRegion::operator=(VfioRegion&&) noexcept = default;
VfioRegion::~VfioRegion() = default;

// A part of a region may have no mapping (the tables of MSI-X, say): then `sparse` is told, and all
// of it goes by system calls.
Result<std::unique_ptr<VfioRegion::State>> VfioRegion::State::open(
    std::shared_ptr<const VfioFiles> files, std::uint32_t index) try {
  const auto place = place_of_region(*files, index);
  if (!place) return fail(place.error());
  constexpr std::uint32_t both = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE;
  if (place->size == ByteCount(0) || (place->flags & both) != both)
    return fail(Errc::no_device, "device has no such registers");
  auto state = std::make_unique<State>();
  state->place = *place;
  const bool whole = (place->flags & VFIO_REGION_INFO_FLAG_MMAP) != 0 &&
                     (place->flags & VFIO_REGION_INFO_FLAG_CAPS) == 0;
  if (whole) {
    auto mapping =
        Mapping::create(files->device.view(), place->offset, place->size, PROT_READ | PROT_WRITE);
    if (!mapping) return fail(mapping.error());
    if (auto excluded = mapping->exclude_from_fork(); !excluded) return fail(excluded.error());
    state->mapping = std::move(*mapping);
  }
  state->files = std::move(files);
  return state;
} catch (const std::bad_alloc&) {
  return fail(Errc::no_memory, "no memory for a region of a device");
}

namespace {

Result<void> check(ByteCount offset, std::size_t width, ByteCount size) {
  if (offset.value() % width != 0 || offset > size || width > (size - offset).value())
    return fail(Errc::invalid_argument, "register is unaligned or beyond the end");
  return {};
}

}  // namespace

// Registers are little-endian, as the CPUs are that this runs on.
template <class Word>
Result<Word> VfioRegion::State::read(ByteCount offset) const {
  if (auto valid = check(offset, sizeof(Word), place.size); !valid) return fail(valid.error());
  if (mapping.valid())
    return *reinterpret_cast<const volatile Word*>(mapping.bytes().data() + offset.value());
  Word word{};
  const auto bytes = std::as_writable_bytes(std::span(&word, 1));
  if (auto done =
          files->kernel().read_at(files->device.view(), place.offset + offset.value(), bytes);
      !done)
    return fail(done.error());
  return word;
}

template <class Word>
Result<void> VfioRegion::State::write(ByteCount offset, Word word) {
  if (auto valid = check(offset, sizeof(Word), place.size); !valid) return valid;
  if (mapping.valid()) {
    *reinterpret_cast<volatile Word*>(mapping.bytes().data() + offset.value()) = word;
    return {};
  }
  return files->kernel().write_at(files->device.view(), place.offset + offset.value(),
                                  std::as_bytes(std::span(&word, 1)));
}

Result<std::uint32_t> VfioRegion::read32(ByteCount offset) const {
  return state_->read<std::uint32_t>(offset);
}
Result<std::uint64_t> VfioRegion::read64(ByteCount offset) const {
  return state_->read<std::uint64_t>(offset);
}
Result<void> VfioRegion::write32(ByteCount offset, std::uint32_t value) {
  return state_->write(offset, value);
}
Result<void> VfioRegion::write64(ByteCount offset, std::uint64_t value) {
  return state_->write(offset, value);
}
ByteCount VfioRegion::size() const {
  return state_->place.size;
}
bool VfioRegion::is_mapped() const {
  return state_->mapping.valid();
}

}  // namespace accelmm
