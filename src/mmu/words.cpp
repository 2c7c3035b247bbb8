// SPDX-License-Identifier: Apache-2.0
#include <accelmm/mmu/words.hpp>

#include <atomic>
#include <cstddef>
#include <cstring>

// The bodies are written once, in vectors of 32 bytes, which compilers split where the processor has
// only 16; on x86 each is compiled a second time for AVX2 and chosen when first called. Vectors are
// stored through an address that is aligned to a word only, as unaligned vectors: on x86 and Arm a
// vector store is seen word by word, never half a word. Under the thread sanitizer stores are atomic
// one by one, since a vector store is none of the language's atomics.

namespace accelmm::mmu {

namespace {

#if defined(__SANITIZE_THREAD__)
#define ACCELMM_MMU_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define ACCELMM_MMU_TSAN 1
#endif
#endif

template <class Word>
struct Vector {
  static constexpr std::uint32_t lanes = 32 / sizeof(Word);
  using Type [[gnu::vector_size(32)]] = Word;
};

template <class V, class Word>
[[gnu::always_inline]] inline void count_on(V& words, Word entry, Word step) {
  for (std::uint32_t lane = 0; lane < Vector<Word>::lanes; ++lane)
    words[lane] = entry + lane * step;
}

template <class Word>
[[gnu::always_inline]] inline void fill(Word* out, std::uint32_t count, Word entry, Word step) {
#ifdef ACCELMM_MMU_TSAN
  for (std::uint32_t i = 0; i < count; ++i, entry += step)
    std::atomic_ref(out[i]).store(entry, std::memory_order_relaxed);
#else
  using V = typename Vector<Word>::Type;
  constexpr std::uint32_t lanes = Vector<Word>::lanes;
  const V far = V{} + static_cast<Word>(lanes * step);
  std::uint32_t i = 0;
  // Four at a time: where a loop of one lies in the code would decide over a half of its speed. What
  // follows begins anew, or the compiler counts along in a second loop.
  if (count >= 4 * lanes) {
    V words;
    count_on(words, entry, step);
    for (; count - i >= 4 * lanes; i += 4 * lanes) {
      for (std::uint32_t next = 0; next < 4 * lanes; next += lanes, words += far)
        std::memcpy(out + i + next, &words, sizeof words);
    }
  }
  if (count - i >= lanes) {
    V words;
    count_on(words, entry + static_cast<Word>(i * step), step);
    for (; count - i >= lanes; i += lanes, words += far) std::memcpy(out + i, &words, sizeof words);
  }
  for (; i < count; ++i) {
    out[i] = entry + static_cast<Word>(i * step);
    // One store a word: without this, the compiler may gather what is left into pieces of its own.
    asm volatile("" ::: "memory");
  }
#endif
}

template <class Word>
[[gnu::always_inline]] inline bool is_all_zero(const Word* words, std::uint32_t count) {
  using V = typename Vector<Word>::Type;
  constexpr std::uint32_t lanes = Vector<Word>::lanes;
  V some{};
  std::uint32_t i = 0;
  for (; count - i >= 4 * lanes; i += 4 * lanes) {
    for (std::uint32_t next = 0; next < 4 * lanes; next += lanes) {
      V words_here;
      std::memcpy(&words_here, words + i + next, sizeof words_here);
      some |= words_here;
    }
  }
  for (; count - i >= lanes; i += lanes) {
    V words_here;
    std::memcpy(&words_here, words + i, sizeof words_here);
    some |= words_here;
  }
  Word any = 0;
  for (std::uint32_t lane = 0; lane < lanes; ++lane) any |= some[lane];
  for (; i < count; ++i) any |= words[i];
  return any == 0;
}

template <class Word>
[[gnu::always_inline]] inline bool has_zero(const Word* words, std::uint32_t count) {
  using V = typename Vector<Word>::Type;
  constexpr std::uint32_t lanes = Vector<Word>::lanes;
  V empty{};
  std::uint32_t i = 0;
  for (; count - i >= 4 * lanes; i += 4 * lanes) {
    for (std::uint32_t next = 0; next < 4 * lanes; next += lanes) {
      V words_here;
      std::memcpy(&words_here, words + i + next, sizeof words_here);
      empty |= reinterpret_cast<V>(words_here == V{});
    }
  }
  for (; count - i >= lanes; i += lanes) {
    V words_here;
    std::memcpy(&words_here, words + i, sizeof words_here);
    empty |= reinterpret_cast<V>(words_here == V{});
  }
  Word any = 0;
  for (std::uint32_t lane = 0; lane < lanes; ++lane) any |= empty[lane];
  for (; i < count; ++i) any |= words[i] == 0 ? 1 : 0;
  return any != 0;
}

template <class Word>
struct Operations {
  void (*fill)(Word*, std::uint32_t, Word, Word);
  bool (*all_zero)(const Word*, std::uint32_t);
  bool (*any_zero)(const Word*, std::uint32_t);
};

// Usable before any constructor of this program ran; from then on the best.
template <class Word>
constinit Operations<Word> chosen = {
    [](Word* out, std::uint32_t count, Word entry, Word step) { fill(out, count, entry, step); },
    [](const Word* words, std::uint32_t count) { return is_all_zero(words, count); },
    [](const Word* words, std::uint32_t count) { return has_zero(words, count); }};

#ifdef __x86_64__
template <class Word>
constexpr Operations<Word> for_avx2 = {
    [] [[gnu::target("avx2")]] (Word * out, std::uint32_t count, Word entry, Word step) {
      fill(out, count, entry, step);
    },
    [] [[gnu::target("avx2")]] (const Word* words, std::uint32_t count) {
      return is_all_zero(words, count);
    },
    [] [[gnu::target("avx2")]] (const Word* words, std::uint32_t count) {
      return has_zero(words, count);
    }};

[[gnu::constructor]] void choose() {
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2")) return;
  chosen<std::uint64_t> = for_avx2<std::uint64_t>;
  chosen<std::uint32_t> = for_avx2<std::uint32_t>;
}
#endif

}  // namespace

void fill_words(std::uint64_t* out, std::uint32_t count, std::uint64_t entry, std::uint64_t step) {
  chosen<std::uint64_t>.fill(out, count, entry, step);
}
void fill_words(std::uint32_t* out, std::uint32_t count, std::uint32_t entry, std::uint32_t step) {
  chosen<std::uint32_t>.fill(out, count, entry, step);
}
bool all_zero(const std::uint64_t* words, std::uint32_t count) {
  return chosen<std::uint64_t>.all_zero(words, count);
}
bool all_zero(const std::uint32_t* words, std::uint32_t count) {
  return chosen<std::uint32_t>.all_zero(words, count);
}
bool any_zero(const std::uint64_t* words, std::uint32_t count) {
  return chosen<std::uint64_t>.any_zero(words, count);
}
bool any_zero(const std::uint32_t* words, std::uint32_t count) {
  return chosen<std::uint32_t>.any_zero(words, count);
}

}  // namespace accelmm::mmu
