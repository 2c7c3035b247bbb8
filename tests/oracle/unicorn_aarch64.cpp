// SPDX-License-Identifier: Apache-2.0
#include "oracle/unicorn_aarch64.hpp"

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

// Bus addresses: 64 MiB of memory for tables, then the guest's own 128 KiB.
constexpr std::uint64_t memory_begin = 0x8000'0000;
constexpr std::uint64_t tables_size = 64ULL << 20;
constexpr std::uint64_t own_size = 128ULL << 10;

// Pages of the guest's own memory. It sees the first three kinds through TTBR1, from own_address on.
constexpr std::uint64_t code_at = 0;
constexpr std::uint64_t addresses_at = 0x1000;
constexpr std::uint64_t results_at = 0x9000;
constexpr std::uint64_t own_tables_at = 0x11000;
constexpr std::size_t batch = 0x8000 / sizeof(std::uint64_t);
constexpr std::uint64_t own_address = 0xffff'8000'0000'0000;

// A page for EL1 alone, accessed, inner shareable.
constexpr std::uint64_t own_page = 0x703;
constexpr std::uint64_t own_link = 0x3;

// at s1e1r, at s1e1w, at s1e0r, at s1e0w: all with x0.
constexpr std::uint32_t at_instructions[] = {0xd508'7800, 0xd508'7820, 0xd508'7840, 0xd508'7860};
// Unicorn remembers what it translated where it stopped: no loop begins where another ends.
constexpr std::uint64_t loop_bytes = 6 * sizeof(std::uint32_t);
constexpr std::uint64_t loop_stride = 0x100;

struct SystemRegister {
  std::uint32_t op0, op1, crn, crm, op2;
  std::uint64_t value;
};

Result<void> set(UnicornEngine& engine, const SystemRegister& wanted) {
  uc_arm64_cp_reg request = {wanted.crn, wanted.crm, wanted.op0,
                             wanted.op1, wanted.op2, wanted.value};
  if (::uc_reg_write(engine.raw(), UC_ARM64_REG_CP_REG, &request) != UC_ERR_OK)
    return fail(Errc::io_error, "unicorn does not write a system register");
  return {};
}

class UnicornAarch64 final : public Oracle {
 public:
  UnicornAarch64(const Aarch64Machine& machine, UnicornEngine engine)
      : machine_(machine), engine_(std::move(engine)) {}

  Result<void> start() {
    write_code();
    write_own_tables();
    // Unicorn wants each address that the guest uses to be mapped, besides what it leads to.
    if (::uc_mem_map(engine_.raw(), own_address, own_size, UC_PROT_ALL) != UC_ERR_OK)
      return fail(Errc::io_error, "unicorn does not map the guest's addresses");
    const std::uint64_t granule = machine_.granule_shift == 12   ? 0
                                  : machine_.granule_shift == 16 ? 1
                                                                 : 2;
    const std::uint64_t control = (64 - machine_.address_bits)  // T0SZ
                                  | granule << 14               // TG0
                                  | 16ULL << 16                 // T1SZ: 48 bits
                                  | 2ULL << 30                  // TG1: 4 KiB
                                  | 5ULL << 32;                 // IPS: 48 bits
    const SystemRegister registers[] = {
        {3, 6, 1, 1, 0, 0x400},                                       // SCR_EL3: EL1 is AArch64
        {3, 0, 10, 2, 0, 0xff},                                       // MAIR_EL1: write-back
        {3, 0, 2, 0, 2, control},                                     // TCR_EL1
        {3, 0, 2, 0, 1, memory_begin + tables_size + own_tables_at},  // TTBR1_EL1
        {3, 0, 1, 0, 0, 0x30d0'0801},                                 // SCTLR_EL1: the MMU is on
    };
    for (const SystemRegister& each : registers)
      if (auto done = set(engine_, each); !done) return done;
    return {};
  }

  std::span<std::byte> memory() override { return engine_.memory().first(tables_size); }
  std::uint64_t base() const override { return memory_begin; }

  Result<std::vector<std::optional<OracleAnswer>>> translate(
      std::uint64_t root, std::span<const std::uint64_t> addresses, Access wanted) override {
    if (wanted != Access::read && wanted != Access::write)
      return fail(Errc::invalid_argument, "one access is translated at a time");
    if (auto done = set(engine_, {3, 0, 2, 0, 0, root}); !done) return fail(done.error());
    std::vector<std::optional<OracleAnswer>> answers;
    answers.reserve(addresses.size());
    while (!addresses.empty()) {
      const auto now = addresses.first(std::min(batch, addresses.size()));
      addresses = addresses.subspan(now.size());
      if (auto done = run(now, wanted); !done) return fail(done.error());
      for (std::size_t i = 0; i < now.size(); ++i)
        answers.push_back(answer(now[i], load(own(), results_at + i * sizeof(std::uint64_t))));
    }
    return answers;
  }

 private:
  [[nodiscard]] std::span<std::byte> own() const { return engine_.memory().subspan(tables_size); }

  void write_code() {
    std::uint64_t loop = code_at;
    for (const std::uint32_t instruction : at_instructions) {
      std::uint64_t at = loop;
      for (const std::uint32_t word : {
               0xf840'8440U,  // ldr  x0, [x2], #8
               instruction,   // at   s1e.., x0
               0xd538'7401U,  // mrs  x1, par_el1
               0xf800'8461U,  // str  x1, [x3], #8
               0xf100'0484U,  // subs x4, x4, #1
               0x54ff'ff61U,  // b.ne to the ldr
           }) {
        store(own(), at, word);
        at += sizeof word;
      }
      loop += loop_stride;
    }
  }

  void write_own_tables() {
    std::uint64_t table = own_tables_at;
    const std::uint64_t own_begin = memory_begin + tables_size;
    for (const std::uint64_t index : {256U, 0U, 0U}) {
      store(own(), table + index * 8, (own_begin + table + 0x1000) | own_link);
      table += 0x1000;
    }
    for (std::uint64_t page = 0; page < own_tables_at; page += 0x1000)
      store(own(), table + page / 0x1000 * 8, (own_begin + page) | own_page);
  }

  Result<void> run(std::span<const std::uint64_t> addresses, Access wanted) {
    for (std::size_t i = 0; i < addresses.size(); ++i)
      store(own(), addresses_at + i * sizeof(std::uint64_t), addresses[i]);
    const std::uint64_t variant = (machine_.from == Aarch64Machine::From::el0 ? 2U : 0U) +
                                  (wanted == Access::write ? 1U : 0U);
    const std::uint64_t begin = own_address + code_at + variant * loop_stride;
    const std::pair<int, std::uint64_t> registers[] = {
        {UC_ARM64_REG_X2, own_address + addresses_at},
        {UC_ARM64_REG_X3, own_address + results_at},
        {UC_ARM64_REG_X4, addresses.size()},
    };
    for (const auto& [id, value] : registers)
      if (auto done = engine_.set_register(id, value); !done) return done;
    if (auto done = engine_.run(begin, begin + loop_bytes); !done) return done;
    const auto left = engine_.register_value(UC_ARM64_REG_X4);
    if (!left) return fail(left.error());
    if (*left != 0) return fail(Errc::io_error, "the guest stopped before it was done");
    return {};
  }

  // PAR_EL1: bit 0 set where the walk failed, else bits 12-47 the address.
  static std::optional<OracleAnswer> answer(std::uint64_t address, std::uint64_t par) {
    // Bit 55 chooses TTBR1: the guest's own pages, which are no tables under test.
    if ((par & 1) != 0 || (address >> 55 & 1) != 0) return std::nullopt;
    return OracleAnswer{(par & 0x0000'ffff'ffff'f000) | (address & 0xfff), 0};
  }

  Aarch64Machine machine_;
  UnicornEngine engine_;
};

}  // namespace

Result<std::unique_ptr<Oracle>> make_unicorn_aarch64(const Aarch64Machine& machine) {
  const unsigned granule = machine.granule_shift;
  if (granule != 12 && granule != 14 && granule != 16)
    return fail(Errc::invalid_argument, "a granule has 4, 16 or 64 KiB");
  if (machine.address_bits < 25 || machine.address_bits > 48)
    return fail(Errc::invalid_argument, "addresses have 25 to 48 bits");
  auto engine = UnicornEngine::create({UC_ARCH_ARM64, UC_MODE_ARM, UC_CPU_ARM64_MAX, memory_begin,
                                       ByteCount(tables_size + own_size)});
  if (!engine) return fail(engine.error());
  auto oracle = std::make_unique<UnicornAarch64>(machine, std::move(*engine));
  if (auto started = oracle->start(); !started) return fail(started.error());
  return oracle;
}

}  // namespace accelmm::test
