// SPDX-License-Identifier: Apache-2.0
#include "base/mapping.hpp"
#include "base/system.hpp"
#include "dmabuf/udmabuf_exporter.hpp"
#include "mm/backing/sealed_memfd.hpp"

#include <accelmm/huge_folio_trial.hpp>

#include <algorithm>
#include <span>

#include <sys/mman.h>

namespace accelmm {

using dmabuf::FileRange;
using dmabuf::UdmabufExporter;

namespace {

constexpr ByteCount huge_page(std::uint64_t{2} << 20);

// No two pages alike, so that none is taken for another's.
std::byte filling(std::size_t at) {
  return static_cast<std::byte>(at * 167 + at / 4096 * 59 + 13);
}

// A page that still holds all its filling was not written.
bool is_written(std::span<const std::byte> page, std::size_t begin) {
  for (std::size_t at = 0; at < page.size(); ++at)
    if (page[at] != filling(begin + at)) return true;
  return false;
}

}  // namespace

Result<HugeImportable> try_huge_folios(const DriverWrite& write, ByteCount length) {
  const auto whole =
      round_up(std::max(length, huge_page + ByteCount(1)), Alignment(huge_page.value()));
  if (!whole) return fail(whole.error());
  auto memfd = SealedMemfd::create("accelmm-trial", *whole, PageSize::huge_2m);
  if (!memfd) return fail(memfd.error());
  const auto view =
      Mapping::create(memfd->fd(), 0, *whole, PROT_READ | PROT_WRITE, Alignment(huge_page.value()));
  if (!view) return fail(view.error());
  // A pool that is empty is an error here, and a SIGBUS at the first touch.
  if (const auto made = sys::populate(view->bytes().data(), *whole); !made)
    return fail(Errc::no_memory, "the pool of huge pages is empty");
  for (std::size_t at = 0; at < view->bytes().size(); ++at) view->bytes()[at] = filling(at);
  auto exporter = UdmabufExporter::open({.huge_pages = HugeImportable::allowed});
  if (!exporter) return fail(exporter.error());
  const FileRange range{memfd->fd(), *whole, ByteCount(), *whole};
  const auto pieces = (*exporter)->export_view({.ranges = std::span(&range, 1)});
  if (!pieces) return fail(pieces.error());
  if (const auto written = write(pieces->front().fd.view(), length); !written)
    return fail(written.error());
  const std::size_t page = host_page_size().value();
  for (std::size_t at = 0; at + page <= length.value(); at += page)
    if (!is_written(view->bytes().subspan(at, page), at)) return HugeImportable::refused;
  return HugeImportable::allowed;
}

}  // namespace accelmm
