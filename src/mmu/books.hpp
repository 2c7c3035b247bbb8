// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "mmu/operations.hpp"

#include <accelmm/error.hpp>
#include <accelmm/mmu/attributes.hpp>
#include <accelmm/mmu/space_options.hpp>
#include <accelmm/mmu/table_memory.hpp>
#include <accelmm/units.hpp>
#include <accelmm/va_allocator.hpp>

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include <boost/intrusive/list.hpp>
#include <boost/intrusive/set.hpp>

namespace accelmm::mmu {

struct InBooks;
struct InPending;

/// A stretch that was mapped, or left of a mapping, as a whole.
struct Piece : boost::intrusive::set_base_hook<boost::intrusive::tag<InBooks>>,
               boost::intrusive::list_base_hook<boost::intrusive::tag<InPending>> {
  enum class Kind : std::uint8_t {
    memory,
    null,   ///< the default page, at addresses that were asked for
    cover,  ///< the default page, at addresses that nobody has
  };

  Range<DeviceAddr> range{};
  Attributes attributes{};
  std::uint64_t leaf_sizes = 0;  ///< it has leaves of no other sizes
  Kind kind = Kind::memory;
  std::uint64_t map = 0;  ///< number of the map that made it; cuts leave pieces of one number
  TableList reserve;      ///< for the leaves that its first cut has to cut
  Piece* next = nullptr;  ///< of those that are unmapped together, or spare
};

/// Pieces that are in no books: each to be used or given back.
class PieceChain {
 public:
  PieceChain() = default;
  PieceChain(PieceChain&& other) noexcept : first_(std::exchange(other.first_, nullptr)) {}
  PieceChain& operator=(PieceChain&&) = delete;
  PieceChain(const PieceChain&) = delete;
  PieceChain& operator=(const PieceChain&) = delete;
  ~PieceChain() {
    while (first_ != nullptr) delete pop();
  }
  void push(Piece* piece) {
    piece->next = first_;
    first_ = piece;
  }
  [[nodiscard]] Piece* pop() { return std::exchange(first_, first_->next); }
  [[nodiscard]] bool empty() const { return first_ == nullptr; }
  [[nodiscard]] std::size_t size() const;
  /// Answers no where memory ran out.
  [[nodiscard]] bool grow_to(std::size_t count);

 private:
  Piece* first_ = nullptr;
};

/// Begin % alignment == phase.
struct Fit {
  Alignment alignment{1};
  ByteCount phase{};
};

/// Which device addresses are taken, by what, and what is under way. Knows nothing of the tree.
///
/// A window's addresses come in blocks, as its VaAllocator gave them out. What has a part of a block
/// (a mapping, a reservation, something unmapped that waits) holds its bytes, and a block goes back
/// when nothing holds it any more.
/// Threads   all under `mutex`, which is held for no longer than the books need.
class Books {
 public:
  using Pieces = boost::intrusive::set<
      Piece,
      boost::intrusive::base_hook<boost::intrusive::set_base_hook<boost::intrusive::tag<InBooks>>>>;

  /// Windows as SpaceOptions wants them. May throw bad_alloc.
  [[nodiscard]] static Result<Books*> create(const SpaceOptions& options, Alignment page);
  Books(const Books&) = delete;
  Books& operator=(const Books&) = delete;
  ~Books();

  [[nodiscard]] Alignment page() const { return page_; }
  [[nodiscard]] Range<DeviceAddr> hull() const;

  // Addresses.

  /// Whether a range is whole pages of one window.
  [[nodiscard]] bool is_inside(Range<DeviceAddr> range) const;
  /// Whether a range has a part of a reservation and not all of itself in it.
  [[nodiscard]] bool crosses_reservation(Range<DeviceAddr> range) const;
  [[nodiscard]] bool is_reserved(Range<DeviceAddr> range) const;
  /// Takes free addresses that fit best: as the first of `fits` says, or else the second, ...
  [[nodiscard]] Result<Range<DeviceAddr>> take(ByteCount size, std::span<const Fit> fits,
                                               VaUse use);
  /// Holds a range, taken or free. Pre: it is inside. Errors  no_memory.
  [[nodiscard]] Result<void> hold(Range<DeviceAddr> range);
  void drop(Range<DeviceAddr> range);

  // Mappings.

  [[nodiscard]] Pieces::iterator from(DeviceAddr va);  ///< the first that ends above
  [[nodiscard]] Piece* containing(DeviceAddr va);
  [[nodiscard]] bool is_mapped_in_part(Range<DeviceAddr> range);
  [[nodiscard]] bool is_mapped_all_over(Range<DeviceAddr> range);
  [[nodiscard]] const Piece* pending_in(Range<DeviceAddr> range) const;
  /// The range with the whole of each leaf that may cross its ends.
  [[nodiscard]] Range<DeviceAddr> grown(Range<DeviceAddr> range);
  /// Ends a piece at an address inside of it, and begins the next there, with one of `spares`.
  void cut(DeviceAddr at, PieceChain& spares);
  /// Whether `next` was cut off `piece`, and is like it again.
  [[nodiscard]] static bool belong_together(const Piece& piece, const Piece& next);
  /// Lets the piece at `at` end where the next one does. Returns that one, which is out of the books
  /// but for its tables. Pre: they belong together.
  Piece& join_next(Pieces::iterator at);
  void insert(Piece& piece);
  void erase(Piece& piece);

  /// Pieces for an operation; of the space's own spares where memory has run out.
  [[nodiscard]] Result<PieceChain> nodes(std::size_t count);
  void keep_spares(PieceChain& rest);

  void wait_and_begin(std::unique_lock<std::mutex>& lock, Operation& operation,
                      Range<DeviceAddr> range);
  void validate() const;

  std::mutex mutex;
  std::condition_variable ended;  // an operation
  Operations operations;
  Pieces pieces;
  boost::intrusive::list<Piece, boost::intrusive::base_hook<boost::intrusive::list_base_hook<
                                    boost::intrusive::tag<InPending>>>>
      pending;
  std::map<DeviceAddr, DeviceAddr> reservations;  // begin to end
  std::size_t mappings = 0;
  std::uint64_t maps = 0;  // ever
  ByteCount mapped_bytes;
  ByteCount covered_bytes;
  std::uint32_t spare_tables = 0;
  std::size_t unreleased = 0;  // Unmapped objects that live
  bool has_ended = false;
  // Unmapped and invalidated, but operations may still pass them: until those ended that began
  // before. What comes meanwhile waits for its own turn.
  TableList passing;
  std::uint64_t passing_since = 0;
  TableList passing_later;
  std::uint64_t passing_later_since = 0;

  std::optional<Run> default_page;
  std::function<void(Range<DeviceAddr>)> forget_now;
  std::function<void(Range<DeviceAddr>)> prefetch;

 private:
  struct Block {
    DeviceAddr end;
    std::uint64_t held = 0;  // bytes, each as often as something holds it
  };
  using Blocks = std::map<DeviceAddr, Block>;
  struct Window {
    VaUse use;
    Range<DeviceAddr> range;
    VaAllocator addresses;
    Blocks blocks;
  };

  explicit Books(Alignment page) : page_(page) {}
  [[nodiscard]] Window& window_of(DeviceAddr va);
  [[nodiscard]] static Blocks::iterator block_from(Window& window, DeviceAddr va);
  static void release(Window& window, Blocks& blocks);
  [[nodiscard]] static Result<void> take_gaps(Window& window, Range<DeviceAddr> range,
                                              Blocks& fresh);

  static constexpr std::size_t spare_count = 2;  // what one operation can cut

  Alignment page_;
  std::vector<Window> windows_;
  PieceChain spares_;
};

inline bool operator<(const Piece& a, const Piece& b) {
  return a.range.begin < b.range.begin;
}

}  // namespace accelmm::mmu
