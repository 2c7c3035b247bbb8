// SPDX-License-Identifier: Apache-2.0
#include "series.hpp"

#include <fstream>

namespace accelmm::bench {
namespace {

std::ofstream& file() {
  static std::ofstream stream;
  return stream;
}

}  // namespace

bool record_series(const std::string& path) {
  file().open(path);
  file() << "work,who,step,occupancy,fragmentation,scattered\n" << std::flush;
  return static_cast<bool>(file());
}

bool series_recorded() {
  return file().is_open();
}

void add_look(const std::string& work, const std::string& who, std::uint64_t step, Look look) {
  if (!series_recorded()) return;
  file() << work << ',' << who << ',' << step << ',' << look.occupancy << ',' << look.fragmentation
         << ',' << look.scattered << '\n'
         << std::flush;
}

}  // namespace accelmm::bench
