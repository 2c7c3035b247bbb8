// SPDX-License-Identifier: Apache-2.0
// What the example finds on the machine, and memory of the accelerator as dma-bufs.
#pragma once

#include <accelmm/client.hpp>
#include <accelmm/drm_display.hpp>
#include <accelmm/trial_import.hpp>
#include <accelmm/v4l2_camera.hpp>

#include <memory>
#include <string>

/// A buffer where the accelerator has it, and what kernel drivers know it by: the same pages.
struct SharedMemory {
  accelmm::Buffer buffer;
  accelmm::DeviceMapping mapping;
  accelmm::UniqueFd dma_buf;
};

accelmm::Result<std::unique_ptr<accelmm::V4l2Camera>> first_camera();
/// The first card with a screen.
accelmm::Result<std::unique_ptr<accelmm::DrmDisplay>> first_display();
bool has_udmabuf();

/// Allocates from the accelerator and makes a dma-buf of it.
accelmm::Result<SharedMemory> share(const accelmm::Client& accelerator, accelmm::ByteCount size);
/// The same, for negotiation.
accelmm::BufferSource memory_source(const accelmm::Client& accelerator);

/// Keeps what is shown as FOLDER/camera.raw, and asks whoever watches the screen from outside for a
/// picture of it: makes FOLDER/camera.wanted, which the other removes when it is taken.
void photograph(const std::string& folder, const SharedMemory& shown);
