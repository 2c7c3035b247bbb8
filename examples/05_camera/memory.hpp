// SPDX-License-Identifier: Apache-2.0
// What the example finds on the machine, and memory that all of its devices reach.
#pragma once

#include <accelmm/client.hpp>
#include <accelmm/drm_display.hpp>
#include <accelmm/trial_import.hpp>
#include <accelmm/v4l2_camera.hpp>

#include <memory>
#include <optional>
#include <string>

/// The devices of driver processes, by the nodes that they are reached through.
struct Engines {
  accelmm::Client accelerator;
  std::optional<accelmm::Client> mover;  ///< edu, where there is one: moves bytes by its own DMA
};

/// A buffer where the mover and the accelerator have it, and what kernel drivers know it by: the same
/// pages.
struct SharedMemory {
  std::optional<accelmm::Buffer> origin;  ///< the mover's, and where its DMA finds it
  std::optional<accelmm::DeviceMapping> origin_mapping;
  accelmm::Buffer buffer;  ///< the accelerator's
  accelmm::DeviceMapping mapping;
  accelmm::UniqueFd dma_buf;
  accelmm::UniqueFd memory_file;  ///< what the accelerator had it from
};

accelmm::Result<std::unique_ptr<accelmm::V4l2Camera>> first_camera();
/// The first card with a screen.
accelmm::Result<std::unique_ptr<accelmm::DrmDisplay>> first_display();
bool has_udmabuf();

/// Allocates from the mover, or without one from the accelerator, has the other import it, and makes a
/// dma-buf of it.
accelmm::Result<SharedMemory> share(const Engines& engines, accelmm::ByteCount size);
/// The same, for negotiation.
accelmm::BufferSource memory_source(const Engines& engines);

/// Says what each device has the memory by, (device, inode), as each of them exports it now.
/// Errors  fault: two have other memory than they were given.
accelmm::Result<void> say_who_has_it(const SharedMemory& memory);

/// Keeps what is shown as FOLDER/camera.raw, and asks whoever watches the screen from outside for a
/// picture of it: makes FOLDER/camera.wanted, which the other removes when it is taken.
void photograph(const std::string& folder, const SharedMemory& shown);
