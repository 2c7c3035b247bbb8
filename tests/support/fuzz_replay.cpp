// SPDX-License-Identifier: Apache-2.0
//
// Runs a fuzz target without libFuzzer: every file of its corpus, then 1000 (or ACCELMM_FUZZ_INPUTS)
// pseudo-random inputs, half of them mutations of corpus files. The seed is printed first and taken
// from ACCELMM_SEED; input i depends on the seed and i alone, so a failing one is repeated with
// ACCELMM_SEED=s ACCELMM_INPUT=i.
#include <algorithm>
#include <charconv>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include <unistd.h>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace {

using Input = std::vector<std::uint8_t>;

// What runs at the moment, as text that a signal handler can write.
char running[512] = "";

void say_what_ran(int signal) {
  // Nothing else to do with what write() returns: the process ends here.
  [[maybe_unused]] const ssize_t written =
      ::write(STDERR_FILENO, static_cast<const char*>(running), std::string_view(running).size());
  std::signal(signal, SIG_DFL);
  std::raise(signal);
}

// A sanitizer's handler stays: its report ends in SIGABRT.
void catch_signal(int signal) {
  struct sigaction present = {};
  if (::sigaction(signal, nullptr, &present) == 0 && present.sa_handler == SIG_DFL)
    std::signal(signal, say_what_ran);
}

void run(const Input& input, const std::string& name) {
  std::snprintf(static_cast<char*>(running), sizeof(running),
                "fuzz_replay: failed in %s (%zu bytes)\n", name.c_str(), input.size());
  LLVMFuzzerTestOneInput(input.data(), input.size());
}

std::optional<std::uint64_t> from_environment(const char* name) {
  const char* text = std::getenv(name);
  if (text == nullptr) return std::nullopt;
  const std::string_view digits(text);
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(digits.begin(), digits.end(), value);
  if (error != std::errc() || end != digits.end()) {
    std::fprintf(stderr, "fuzz_replay: %s is no number: %s\n", name, text);
    std::exit(2);
  }
  return value;
}

std::vector<std::filesystem::path> files_of(const char* folder) {
  std::vector<std::filesystem::path> files;
  std::error_code none;
  for (const auto& entry : std::filesystem::directory_iterator(folder, none))
    if (entry.is_regular_file()) files.push_back(entry.path());
  std::ranges::sort(files);
  return files;
}

Input read(const std::filesystem::path& file) {
  std::ifstream stream(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
}

std::size_t below(std::mt19937_64& random, std::size_t limit) {
  return std::uniform_int_distribution<std::size_t>(0, limit - 1)(random);
}

std::uint8_t any_byte(std::mt19937_64& random) {
  // Bytes at the edges find more than the others: lengths, signs, flags.
  constexpr std::uint8_t edges[] = {0x00, 0x01, 0x7f, 0x80, 0xff};
  if (below(random, 4) == 0) return edges[below(random, std::size(edges))];
  return static_cast<std::uint8_t>(below(random, 256));
}

void mutate_once(std::mt19937_64& random, Input& input, const Input& other) {
  switch (below(random, 4)) {
    case 0:  // change a byte
      if (!input.empty()) input[below(random, input.size())] = any_byte(random);
      break;
    case 1: {  // insert a byte
      const std::size_t place = below(random, input.size() + 1);
      input.insert(input.begin() + static_cast<std::ptrdiff_t>(place), any_byte(random));
      break;
    }
    case 2:  // cut the end off
      input.resize(below(random, input.size() + 1));
      break;
    default: {  // go on as another input does
      input.resize(below(random, input.size() + 1));
      const std::size_t from = below(random, other.size() + 1);
      input.insert(input.end(), other.begin() + static_cast<std::ptrdiff_t>(from), other.end());
    }
  }
}

Input make(std::mt19937_64& random, const std::vector<Input>& corpus) {
  // 4096: libFuzzer's own default for the longest input.
  constexpr std::size_t longest = 4096;
  Input input;
  if (below(random, 2) == 0) {
    input.resize(below(random, below(random, 8) == 0 ? longest : 128));
    for (std::uint8_t& byte : input) byte = any_byte(random);
    return input;
  }
  input = corpus[below(random, corpus.size())];
  for (std::size_t left = 1 + below(random, 8); left > 0; --left)
    mutate_once(random, input, corpus[below(random, corpus.size())]);
  input.resize(std::min(input.size(), longest));
  return input;
}

void run_random(const std::vector<Input>& corpus, std::uint64_t count) {
  const std::uint64_t seed = from_environment("ACCELMM_SEED").value_or(std::random_device()());
  const std::optional<std::uint64_t> only = from_environment("ACCELMM_INPUT");
  std::fprintf(stderr, "fuzz_replay: ACCELMM_SEED=%llu\n", static_cast<unsigned long long>(seed));
  for (std::uint64_t i = only.value_or(0); i < (only ? *only + 1 : count); ++i) {
    std::seed_seq mixed{seed, seed >> 32, i, i >> 32};
    std::mt19937_64 random(mixed);
    run(make(random, corpus), "random input, ACCELMM_SEED=" + std::to_string(seed) +
                                  " ACCELMM_INPUT=" + std::to_string(i));
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: %s CORPUS_FOLDER | FILE\n", argv[0]);
    return 2;
  }
  for (const int signal : {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL}) catch_signal(signal);
  if (std::filesystem::is_regular_file(argv[1])) {
    run(read(argv[1]), argv[1]);
    return 0;
  }
  std::vector<Input> corpus;
  for (const auto& file : files_of(argv[1])) {
    corpus.push_back(read(file));
    run(corpus.back(), file.string());
  }
  if (corpus.empty()) {
    std::fprintf(stderr, "fuzz_replay: no corpus in %s: commit at least one valid input\n",
                 argv[1]);
    return 1;
  }
  const std::uint64_t count = from_environment("ACCELMM_FUZZ_INPUTS").value_or(1000);
  run_random(corpus, count);
  std::printf("fuzz_replay: %zu corpus files, %llu random inputs\n", corpus.size(),
              static_cast<unsigned long long>(count));
  return 0;
}
