// SPDX-License-Identifier: Apache-2.0
#include "oracle/unicorn_riscv.hpp"

#include "oracle/unicorn_engine.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include <unicorn/unicorn.h>

namespace accelmm::test {
namespace {

// The memory lies at the end of the bus addresses; all below is one window, which reports what is
// read and written there. The addresses above 2^56 are a window too: Unicorn wants each address
// that the guest uses to be mapped, besides what it leads to.
constexpr std::uint64_t bus_end = 1ULL << 56;
constexpr std::uint64_t tables_size = 64ULL << 20;
constexpr std::uint64_t own_size = 64ULL << 10;
constexpr std::uint64_t memory_begin = bus_end - tables_size - own_size;
constexpr std::uint64_t own_begin = memory_begin + tables_size;

constexpr std::uint64_t code_at = 0;
constexpr std::uint64_t addresses_at = 0x1000;
constexpr std::size_t batch = 0x8000 / sizeof(std::uint64_t);

// Fetches are not translated in machine mode; with MPRV, loads and stores are, as those of user
// mode where MPP is zero.
constexpr std::uint64_t mstatus_mprv = 1 << 17;

constexpr std::uint32_t load_byte = 0x0007'8503;   // lb a0, 0(a5)
constexpr std::uint32_t store_byte = 0x0007'8023;  // sb zero, 0(a5)
// Unicorn remembers what it translated where it stopped: no program begins where another ends.
constexpr std::uint64_t program_bytes = 10 * sizeof(std::uint32_t);
constexpr std::uint64_t program_stride = 0x100;
constexpr std::uint64_t resume_at = 2 * sizeof(std::uint32_t);

class UnicornRiscv final : public Oracle {
 public:
  UnicornRiscv(unsigned levels, UnicornEngine engine)
      : levels_(levels), engine_(std::move(engine)) {}

  Result<void> start() {
    write_code(code_at, load_byte);
    write_code(code_at + program_stride, store_byte);
    uc_hook hook = 0;
    if (::uc_hook_add(engine_.raw(), &hook, UC_HOOK_INTR, reinterpret_cast<void*>(&on_fault), this,
                      1, 0) != UC_ERR_OK)
      return fail(Errc::io_error, "unicorn takes no hook for faults");
    for (const auto& [begin, end] :
         {std::pair{std::uint64_t{0}, memory_begin}, std::pair{bus_end, std::uint64_t{0}}})
      if (::uc_mmio_map(engine_.raw(), begin, end - begin, &on_load, this, &on_store, this) !=
          UC_ERR_OK)
        return fail(Errc::io_error, "unicorn does not map the window");
    return engine_.set_register(UC_RISCV_REG_X5, mstatus_mprv);
  }

  std::span<std::byte> memory() override { return engine_.memory().first(tables_size); }
  std::uint64_t base() const override { return memory_begin; }

  Result<std::vector<std::optional<OracleAnswer>>> translate(
      std::uint64_t root, std::span<const std::uint64_t> addresses, Access wanted) override {
    if (wanted != Access::read && wanted != Access::write)
      return fail(Errc::invalid_argument, "one access is translated at a time");
    const std::uint64_t mode = levels_ + 5;  // of satp: 8 is Sv39
    if (auto done = engine_.set_register(UC_RISCV_REG_X6, mode << 60 | root >> 12); !done)
      return fail(done.error());
    std::vector<std::optional<OracleAnswer>> answers;
    answers.reserve(addresses.size());
    while (!addresses.empty()) {
      const auto now = addresses.first(std::min(batch, addresses.size()));
      addresses = addresses.subspan(now.size());
      if (auto done = run(now, wanted); !done) return fail(done.error());
      for (const Outcome& outcome : outcomes_) {
        if (outcome.kind == Outcome::Kind::none)
          return fail(Errc::not_supported, "a leaf maps the memory of the tables");
        if (outcome.kind == Outcome::Kind::fault) {
          answers.push_back(std::nullopt);
        } else {
          answers.push_back(OracleAnswer{outcome.bus_address, 0});
        }
      }
    }
    return answers;
  }

 private:
  struct Outcome {
    enum class Kind { none, reached, fault };
    Kind kind = Kind::none;
    std::uint64_t bus_address = 0;
  };

  [[nodiscard]] std::span<std::byte> own() const { return engine_.memory().subspan(tables_size); }

  void write_code(std::uint64_t at, std::uint32_t access) {
    for (const std::uint32_t word : {
             0x1803'1073U,  // csrw satp, t1
             0x1200'0073U,  // sfence.vma
             0x3000'1073U,  // csrw mstatus, zero     resume_at: after a fault
             0x0006'3783U,  // ld   a5, 0(a2)
             0x3002'9073U,  // csrw mstatus, t0
             access,        // through the tables
             0x3000'1073U,  // csrw mstatus, zero
             0x0086'0613U,  // addi a2, a2, 8
             0xfff7'0713U,  // addi a4, a4, -1
             0xfe07'14e3U,  // bnez a4, to the ld
         }) {
      store(own(), at, word);
      at += sizeof word;
    }
  }

  Result<void> run(std::span<const std::uint64_t> addresses, Access wanted) {
    for (std::size_t i = 0; i < addresses.size(); ++i)
      store(own(), addresses_at + i * sizeof(std::uint64_t), addresses[i]);
    outcomes_.assign(addresses.size(), {});
    const std::uint64_t begin =
        own_begin + code_at + (wanted == Access::write ? program_stride : 0);
    for (std::size_t next = 0; next < addresses.size();) {
      faulted_.reset();
      trapped_ = false;
      if (auto done = engine_.set_register(UC_RISCV_REG_X12,
                                           own_begin + addresses_at + next * sizeof(std::uint64_t));
          !done)
        return done;
      if (auto done = engine_.set_register(UC_RISCV_REG_X14, addresses.size() - next); !done)
        return done;
      if (auto done = engine_.run(begin + (next == 0 ? 0 : resume_at), begin + program_bytes);
          !done)
        return done;
      if (trapped_) return fail(Errc::io_error, "the guest took another trap than a page fault");
      // A fault stops the guest: Unicorn runs no trap handler.
      next = faulted_ ? *faulted_ + 1 : addresses.size();
    }
    return {};
  }

  /// Which address the guest is at: it says so in a2.
  [[nodiscard]] std::optional<std::size_t> current() const {
    const auto place = engine_.register_value(UC_RISCV_REG_X12);
    if (!place) return std::nullopt;
    const std::uint64_t index = (*place - own_begin - addresses_at) / sizeof(std::uint64_t);
    if (index >= outcomes_.size()) return std::nullopt;
    return static_cast<std::size_t>(index);
  }

  static std::uint64_t on_load(uc_engine*, std::uint64_t offset, unsigned, void* self) {
    static_cast<UnicornRiscv*>(self)->reach(offset);
    return 0;
  }
  static void on_store(uc_engine*, std::uint64_t offset, unsigned, std::uint64_t, void* self) {
    static_cast<UnicornRiscv*>(self)->reach(offset);
  }
  void reach(std::uint64_t offset) {
    if (const auto index = current()) outcomes_[*index] = {Outcome::Kind::reached, offset};
  }

  static void on_fault(uc_engine* raw, std::uint32_t cause, void* self) {
    constexpr std::uint32_t load_page_fault = 13;
    constexpr std::uint32_t store_page_fault = 15;
    auto* oracle = static_cast<UnicornRiscv*>(self);
    const auto index = oracle->current();
    if (index && (cause == load_page_fault || cause == store_page_fault)) {
      oracle->outcomes_[*index] = {Outcome::Kind::fault, 0};
      oracle->faulted_ = index;
    } else {
      oracle->trapped_ = true;
    }
    ::uc_emu_stop(raw);
  }

  unsigned levels_;
  UnicornEngine engine_;
  std::vector<Outcome> outcomes_;
  std::optional<std::size_t> faulted_;
  bool trapped_ = false;
};

}  // namespace

Result<std::unique_ptr<Oracle>> make_unicorn_riscv(unsigned levels) {
  if (levels < 3 || levels > 5) return fail(Errc::invalid_argument, "there are 3 to 5 levels");
  auto engine = UnicornEngine::create({UC_ARCH_RISCV, UC_MODE_RISCV64, UC_CPU_RISCV64_SIFIVE_U54,
                                       memory_begin, ByteCount(tables_size + own_size)});
  if (!engine) return fail(engine.error());
  auto oracle = std::make_unique<UnicornRiscv>(levels, std::move(*engine));
  if (auto started = oracle->start(); !started) return fail(started.error());
  return oracle;
}

}  // namespace accelmm::test
