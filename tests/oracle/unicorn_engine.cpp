// SPDX-License-Identifier: Apache-2.0
#include "oracle/unicorn_engine.hpp"

#include <bit>
#include <cstring>

#include <sys/mman.h>
#include <unicorn/unicorn.h>

static_assert(std::endian::native == std::endian::little);

namespace accelmm::test {

void UnicornEngine::Close::operator()(uc_struct* engine) const {
  ::uc_close(engine);
}

void UnicornEngine::Unmap::operator()(std::byte* memory) const {
  ::munmap(memory, size);
}

Result<UnicornEngine> UnicornEngine::create(const Machine& machine) {
  const auto size = static_cast<std::size_t>(machine.memory_size.value());
  void* mapped = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) return fail(Errc::no_memory, "no memory for an emulated machine");
  Memory memory(static_cast<std::byte*>(mapped), Unmap{size});

  uc_engine* raw = nullptr;
  if (::uc_open(static_cast<uc_arch>(machine.arch), static_cast<uc_mode>(machine.mode), &raw) !=
      UC_ERR_OK)
    return fail(Errc::io_error, "unicorn does not know the architecture");
  UnicornEngine engine(std::move(memory), size, raw);
  if (uc_ctl_set_cpu_model(raw, machine.cpu) != UC_ERR_OK)
    return fail(Errc::io_error, "unicorn does not know the CPU");
  if (::uc_mem_map_ptr(raw, machine.memory_begin, size, UC_PROT_ALL, mapped) != UC_ERR_OK)
    return fail(Errc::io_error, "unicorn does not take the memory");
  return engine;
}

Result<void> UnicornEngine::set_register(int id, std::uint64_t value) {
  if (::uc_reg_write(engine_.get(), id, &value) != UC_ERR_OK)
    return fail(Errc::io_error, "unicorn does not write a register");
  return {};
}

Result<std::uint64_t> UnicornEngine::register_value(int id) const {
  std::uint64_t value = 0;
  if (::uc_reg_read(engine_.get(), id, &value) != UC_ERR_OK)
    return fail(Errc::io_error, "unicorn does not read a register");
  return value;
}

Result<void> UnicornEngine::run(std::uint64_t begin, std::uint64_t end) {
  if (::uc_emu_start(engine_.get(), begin, end, 0, 0) != UC_ERR_OK)
    return fail(Errc::io_error, "the emulated CPU stopped");
  return {};
}

void store(std::span<std::byte> memory, std::uint64_t offset, std::uint32_t word) {
  std::memcpy(memory.subspan(offset, sizeof word).data(), &word, sizeof word);
}

void store(std::span<std::byte> memory, std::uint64_t offset, std::uint64_t word) {
  std::memcpy(memory.subspan(offset, sizeof word).data(), &word, sizeof word);
}

std::uint64_t load(std::span<const std::byte> memory, std::uint64_t offset) {
  std::uint64_t word = 0;
  std::memcpy(&word, memory.subspan(offset, sizeof word).data(), sizeof word);
  return word;
}

}  // namespace accelmm::test
