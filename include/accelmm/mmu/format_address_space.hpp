// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/mmu/address_space.hpp>

#include <array>
#include <memory>
#include <new>
#include <utility>

namespace accelmm::mmu {

/// The address space of one format. Made by make_address_space().
template <PteFormat F>
class FormatAddressSpace final : public AddressSpace {
  using G = Geometry<F>;

 public:
  FormatAddressSpace(TablePool& pool, PageTable<F, TablePool> table, BooksOwner books)
      : AddressSpace(pool, facts(), std::move(books)), table_(std::move(table)) {}

  [[nodiscard]] static Result<std::unique_ptr<AddressSpace>> create(TablePool& pool,
                                                                    const SpaceOptions& options) {
    auto books = open_books(options, Alignment(G::page_size), G::va_end);
    if (!books) return fail(books.error());
    auto table = PageTable<F, TablePool>::create(pool);
    if (!table) return fail(table.error());
    try {
      return std::make_unique<FormatAddressSpace>(pool, std::move(*table), std::move(*books));
    } catch (const std::bad_alloc&) {
      table->detach_all().release(InvalidationDone::never_shown());
      return fail(Errc::no_memory, "no memory for an address space");
    }
  }

 private:
  static constexpr FormatFacts facts() {
    FormatFacts facts{G::leaf_sizes(), F::bus_bits, F::hops, {}};
    for (unsigned hop = 0; hop < F::hops; ++hop) facts.leaf_sizes_at[hop] = F::leaf_sizes(hop);
    return facts;
  }

  Result<void> write(DeviceAddr va, std::span<const Run> runs, Attributes attributes) override {
    return table_.map(va, runs, attributes);
  }
  Result<Detached<TablePool>> overwrite(Range<DeviceAddr> range, std::span<const Run> runs,
                                        Attributes attributes, TableList& cuts) override {
    auto prepared = table_.prepare_over(range.begin, runs, attributes);
    if (!prepared) return fail(prepared.error());
    if (const auto done = cut(range, cuts); !done) return fail(done.error());
    auto detached = table_.unmap(range, {Edges::refuse, Gaps::skip});
    ACCELMM_CHECK(detached.has_value());  // no leaf crosses its ends any more
    if (F::breaks_before_make && forget_now()) forget_now()(range);
    table_.commit(std::move(*prepared), runs);
    return detached;
  }
  Result<void> cut(Range<DeviceAddr> range, TableList& cuts) override {
    if (F::breaks_before_make && !forget_now()) {
      const auto first = table_.translate(range.begin);
      const auto last = table_.translate(range.end - ByteCount(1));
      if ((!first || first->remaining == first->leaf_size) &&
          (!last || last->remaining == ByteCount(1)))
        return {};
      return fail(Errc::not_supported, "format breaks before it makes: say how to invalidate");
    }
    return table_.split(range, cuts, [this](Range<DeviceAddr> broken) { forget_now()(broken); });
  }
  Result<Detached<TablePool>> remove(Range<DeviceAddr> range) override {
    return table_.unmap(range, {Edges::refuse, Gaps::skip});
  }
  Result<void> change(Range<DeviceAddr> range, Attributes attributes) override {
    return table_.protect(range, attributes);
  }
  Result<Detached<TablePool>> join(Range<DeviceAddr> range) override {
    if constexpr (F::breaks_before_make) {
      if (!forget_now())
        return fail(Errc::not_supported, "format breaks before it makes: say how to invalidate");
      return table_.merge(range, [this](Range<DeviceAddr> broken) { forget_now()(broken); });
    } else {
      return table_.merge(range);
    }
  }
  Result<void> clean(Range<DeviceAddr> range,
                     const std::function<void(Range<DeviceAddr>)>& f) override {
    if constexpr (F::has_dirty)
      return table_.read_and_clear_dirty(
          range, [&f](DeviceAddr begin, DeviceAddr end) { f({begin, end}); });
    else
      return fail(Errc::not_supported, "format has no marks of what was written");
  }
  Detached<TablePool> remove_all() override { return table_.detach_all(); }
  Result<TableList> room_for(DeviceAddr va, std::span<const Run> runs,
                             Attributes attributes) override {
    auto prepared = table_.prepare_over(va, runs, attributes);
    if (!prepared) return fail(prepared.error());
    return std::move(*prepared).take_tables();
  }
  Detached<TablePool> lead_elsewhere(Range<DeviceAddr> range, std::span<const Run> runs,
                                     Attributes attributes, TableList room) override {
    auto detached = table_.unmap(range);
    ACCELMM_CHECK(detached.has_value());  // it is what one map() made
    if (F::breaks_before_make && forget_now()) forget_now()(range);
    Prepared<F, TablePool> prepared(pool(), range, *F::leaf_bits(attributes), std::move(room));
    table_.commit(std::move(prepared), runs);
    return std::move(*detached);
  }
  std::uint64_t sizes(DeviceAddr va, std::span<const Run> runs) const override {
    std::uint64_t found = 0;
    for (RunCursor<F> cursor(va, runs); !cursor.done();) {
      const unsigned lg2 = cursor.largest_leaf();
      found |= std::uint64_t{1} << lg2;
      unsigned hop = 0;
      while (!G::is_leaf_here(hop, lg2)) ++hop;
      cursor.advance(cursor.stretch(hop, lg2).bytes);
    }
    return found;
  }
  std::optional<Translation> look_up(DeviceAddr va) const override { return table_.translate(va); }
  Walk trace(DeviceAddr va) const override { return table_.walk(va); }
  void visit(Range<DeviceAddr> range, const std::function<void(const Leaf&)>& f) const override {
    table_.for_each_leaf(range, f);
  }
  BusAddr root_address() const override { return table_.root(); }
  std::uint32_t count_tables() const override { return table_.tables(); }
  ByteCount check_tree() const override {
    table_.validate();
    ByteCount mapped;
    table_.for_each_leaf([&mapped](const Leaf& leaf) { mapped += leaf.size; });
    return mapped;
  }

  PageTable<F, TablePool> table_;
};

/// Makes an empty address space of the format F. The pool must outlive it.
/// Errors  invalid_argument: the windows are empty, not whole pages, not disjoint and ascending, or
///         end beyond the format's device addresses; the default page is no whole pages.
///         no_memory: no table for the root, or no memory for the books.
template <PteFormat F>
[[nodiscard]] Result<std::unique_ptr<AddressSpace>> make_address_space(
    TablePool& pool, const SpaceOptions& options) {
  return FormatAddressSpace<F>::create(pool, options);
}

/// The same with one window for any use: an AddressSpaceFactory.
template <PteFormat F>
[[nodiscard]] Result<std::unique_ptr<AddressSpace>> make_address_space(TablePool& pool,
                                                                       Range<DeviceAddr> range) {
  const std::array<VaWindow, 1> windows{VaWindow{VaUse::any, range}};
  SpaceOptions options;
  options.windows = windows;
  return FormatAddressSpace<F>::create(pool, options);
}

}  // namespace accelmm::mmu
