// SPDX-License-Identifier: Apache-2.0
//
// Every back-end by the same suite, on the kernel that has them all.
#include "dmabuf/memfd_exporter.hpp"
#include "kernel/dmabuf/guest.hpp"
#include "support/export_conformance.hpp"

#include <array>

namespace accelmm::dmabuf::test {

using Make = std::function<Way()>;

std::string name_of(const testing::TestParamInfo<Make>& info) {
  constexpr std::array names{"memfd", "udmabuf", "heap", "vgem"};
  return names.at(info.index);
}

INSTANTIATE_TEST_SUITE_P(
    BackEnds, ExportConformance,
    testing::Values(Make([] {
                      return Way(std::shared_ptr<Exporter>(std::make_shared<MemfdExporter>()));
                    }),
                    Make([] { return Way(std::shared_ptr<Exporter>(guest::udmabuf())); }),
                    Make([] { return Way(std::shared_ptr<MemorySource>(guest::system_heap())); }),
                    Make([] { return Way(std::shared_ptr<MemorySource>(guest::drm("vgem"))); })),
    name_of);

}  // namespace accelmm::dmabuf::test
