// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/uapi.h>

#include <cstdint>
#include <span>
#include <string>

/// What one device told of itself.
struct Reading {
  std::uint32_t number;
  std::string driver;
  accelmm_info_usage usage;
};

/// Readings in the text format of Prometheus: each metric once, with a sample a device.
std::string metrics_text(std::span<const Reading> readings);
