// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "support/driver_process.hpp"
#include "support/npu_host.hpp"

#include <accelmm/client.hpp>

#include <chrono>
#include <string>
#include <thread>

#include <gtest/gtest.h>

namespace accelmm::test {

/// Watches over what a driver process holds: in its books, through the control node, and in /proc.
///
/// What is there when it begins, with no compute session, is what must be left after any session.
class Witness {
 public:
  Witness(const DriverProcess& driver, const std::string& directory)
      : driver_(driver),
        control_(value(Client::connect(driver.number(), NodeKind::control, directory))),
        books_(value(control_.usage())),
        holdings_(driver.holdings()) {}

  /// Whether all is as it was, within the time that the driver may take to notice.
  [[nodiscard]] testing::AssertionResult everything_was_given_back() const {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(2);
    while (true) {
      const accelmm_info_usage books = value(control_.usage());
      const Holdings holdings = driver_.holdings();
      if (same(books, books_) && holdings == holdings_) return testing::AssertionSuccess();
      if (std::chrono::steady_clock::now() > deadline)
        return testing::AssertionFailure()
               << "driver holds " << text(books) << ", " << holdings << "; before it held "
               << text(books_) << ", " << holdings_;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }

  [[nodiscard]] const accelmm_info_usage& books() const { return books_; }
  [[nodiscard]] const Holdings& holdings() const { return holdings_; }
  [[nodiscard]] const Client& control() const { return control_; }

  [[nodiscard]] static bool same(const accelmm_info_usage& a, const accelmm_info_usage& b) {
    return a.compute_sessions == b.compute_sessions && a.memory_used == b.memory_used &&
           a.host_used == b.host_used && a.page_table_bytes == b.page_table_bytes &&
           a.mappings == b.mappings && a.buffers == b.buffers;
  }
  [[nodiscard]] static std::string text(const accelmm_info_usage& books) {
    return std::to_string(books.compute_sessions) + " sessions, " +
           std::to_string(books.memory_used) + " bytes of device memory, " +
           std::to_string(books.host_used) + " bytes of host buffers, " +
           std::to_string(books.page_table_bytes) + " bytes of page tables, " +
           std::to_string(books.mappings) + " mappings, " + std::to_string(books.buffers) +
           " buffers";
  }

 private:
  const DriverProcess& driver_;
  Client control_;
  accelmm_info_usage books_;
  Holdings holdings_;
};

}  // namespace accelmm::test
