// Vectors of float32 by the compiler's extensions, as wide as the processor's: 64 bytes with AVX-512, 32 with AVX, and 16
// anywhere else.
// bfloat16 is storage only: values are widened when loaded and rounded to the nearest, ties to even, when stored.
#ifndef CXR_JAX_VECTORS_H_
#define CXR_JAX_VECTORS_H_

#include <cstdint>
#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace cxr {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

typedef float Floats __attribute__((vector_size(4 * kLanes)));
typedef int32_t Integers __attribute__((vector_size(4 * kLanes)));
typedef uint32_t Words __attribute__((vector_size(4 * kLanes)));
typedef uint16_t Halves __attribute__((vector_size(2 * kLanes)));

struct BFloat16 {
  uint16_t bits;
};

// The sum with 0 would cost an addition, as it is not the value itself where that is -0; this difference always is.
inline Floats spread(float value) { return value - Floats{}; }

inline Floats load(const float* from) {
  Floats values;
  std::memcpy(&values, from, sizeof values);
  return values;
}

inline float widened(BFloat16 value) {
  const uint32_t bits = static_cast<uint32_t>(value.bits) << 16;
  float wide;
  std::memcpy(&wide, &bits, sizeof wide);
  return wide;
}

// Of 16-bit values into the lower halves of words and back. The compilers have no short way to do so by themselves.
#if defined(__AVX512F__)

inline Words words_of(Halves halves) {
  return reinterpret_cast<Words>(_mm512_cvtepu16_epi32(reinterpret_cast<__m256i>(halves)));
}

inline Halves lower_halves(Words words) {
  return reinterpret_cast<Halves>(_mm512_cvtepi32_epi16(reinterpret_cast<__m512i>(words)));
}

#elif defined(__AVX2__)

inline Words words_of(Halves halves) {
  return reinterpret_cast<Words>(_mm256_cvtepu16_epi32(reinterpret_cast<__m128i>(halves)));
}

inline Halves lower_halves(Words words) {
  const __m256i both = reinterpret_cast<__m256i>(words);
  return reinterpret_cast<Halves>(_mm_packus_epi32(_mm256_castsi256_si128(both), _mm256_extracti128_si256(both, 1)));
}

#else

inline Words words_of(Halves halves) { return __builtin_convertvector(halves, Words); }
inline Halves lower_halves(Words words) { return __builtin_convertvector(words, Halves); }

#endif

inline Floats load(const BFloat16* from) {
  Halves halves;
  std::memcpy(&halves, from, sizeof halves);
  return reinterpret_cast<Floats>(words_of(halves) << 16);
}

#if defined(__AVX512BF16__)

inline Halves rounded(Floats values) {
  const __m256bh rounded = _mm512_cvtneps_pbh(reinterpret_cast<__m512>(values));
  Halves halves;
  std::memcpy(&halves, &rounded, sizeof halves);
  return halves;
}

#else

// The rounded values in the upper half of each word; the lower one is left over.
inline Words rounded_words(Floats values) {
  const Words bits = reinterpret_cast<Words>(values);
  const Words up = bits + 0x7fffu + ((bits >> 16) & 1u);
  // a NaN must not be rounded into an infinity or beyond
  const Words not_a_number = reinterpret_cast<Words>(values != values) & 0x7fc00000u;
  return up | not_a_number;
}

inline Halves rounded(Floats values) { return lower_halves(rounded_words(values) >> 16); }

#endif

// The nearest values that bfloat16 has, as float32.
inline Floats as_if_stored(Floats values) {
#if defined(__AVX512BF16__)
  return reinterpret_cast<Floats>(words_of(rounded(values)) << 16);
#else
  return reinterpret_cast<Floats>(rounded_words(values) & 0xffff0000u);
#endif
}

inline void store(float* to, Floats values) { std::memcpy(to, &values, sizeof values); }

inline void store(BFloat16* to, Floats values) {
  const Halves halves = rounded(values);
  std::memcpy(to, &halves, sizeof halves);
}

// Two vectors one after the other.
inline void store(BFloat16* to, Floats first, Floats second) {
#if defined(__AVX2__) && !defined(__AVX512F__)
  // one instruction packs both, each half of 16 bytes by itself
  const __m256i packed = _mm256_packus_epi32(reinterpret_cast<__m256i>(rounded_words(first) >> 16),
                                             reinterpret_cast<__m256i>(rounded_words(second) >> 16));
  const __m256i ordered = _mm256_permute4x64_epi64(packed, 0xd8);
  std::memcpy(to, &ordered, sizeof ordered);
#else
  store(to, first);
  store(to + kLanes, second);
#endif
}

// The first `count` lanes alone; the others are 0 when loaded and left alone when stored.
inline Floats load_part(const BFloat16* from, int count) {
  BFloat16 lanes[kLanes] = {};
  std::memcpy(lanes, from, sizeof(BFloat16) * count);
  return load(lanes);
}

inline void store_part(BFloat16* to, Floats values, int count) {
  BFloat16 lanes[kLanes];
  store(lanes, values);
  std::memcpy(to, lanes, sizeof(BFloat16) * count);
}

// The second value where one of the two is a NaN: what the instructions do, and the compilers do not see.
#if defined(__AVX512F__)
inline Floats smaller(Floats a, Floats b) {
  return reinterpret_cast<Floats>(_mm512_min_ps(reinterpret_cast<__m512>(a), reinterpret_cast<__m512>(b)));
}
inline Floats larger(Floats a, Floats b) {
  return reinterpret_cast<Floats>(_mm512_max_ps(reinterpret_cast<__m512>(a), reinterpret_cast<__m512>(b)));
}
#elif defined(__AVX2__)
inline Floats smaller(Floats a, Floats b) {
  return reinterpret_cast<Floats>(_mm256_min_ps(reinterpret_cast<__m256>(a), reinterpret_cast<__m256>(b)));
}
inline Floats larger(Floats a, Floats b) {
  return reinterpret_cast<Floats>(_mm256_max_ps(reinterpret_cast<__m256>(a), reinterpret_cast<__m256>(b)));
}
#else
inline Floats smaller(Floats a, Floats b) { return a < b ? a : b; }
inline Floats larger(Floats a, Floats b) { return a > b ? a : b; }
#endif

// e^x within 3 units in the last place (Cody and Waite's reduction, a polynomial of degree 6), 0 and infinity cut to
// the smallest and largest that fit.
inline Floats exponential(Floats x) {
  x = larger(smaller(x, spread(88.0f)), spread(-87.0f));
  const float magic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to whole numbers
  const Floats shifted = x * 1.44269504f + magic;
  const Floats power = shifted - magic;
  const Floats rest = (x - power * 0.693145752f) - power * 1.42860677e-6f;
  Floats sum = spread(1.0f / 720.0f);
  sum = sum * rest + 1.0f / 120.0f;
  sum = sum * rest + 1.0f / 24.0f;
  sum = sum * rest + 1.0f / 6.0f;
  sum = sum * rest + 0.5f;
  sum = sum * rest + 1.0f;
  sum = sum * rest + 1.0f;
  const Integers exponent = (reinterpret_cast<Integers>(shifted) << 23) + 0x3f800000;
  return sum * reinterpret_cast<Floats>(exponent);
}

inline Floats sigmoid(Floats x) { return 1.0f / (1.0f + exponential(-x)); }

enum class Activation : int64_t { kNone = 0, kRelu6 = 1, kSilu = 2, kRelu = 3 };

template <Activation kind>
inline Floats activate(Floats x) {
  // in this order a NaN stays one: where two values cannot be compared, the second is taken
  if constexpr (kind == Activation::kRelu6) return smaller(spread(6.0f), larger(Floats{}, x));
  if constexpr (kind == Activation::kSilu) return x * sigmoid(x);
  if constexpr (kind == Activation::kRelu) return larger(Floats{}, x);
  return x;
}

template <Activation kind>
inline Floats slope_times(Floats x, Floats gradient) {
  if constexpr (kind == Activation::kRelu6) {
    // 0 at 0 and at 6, as in torch
    return ((x > 0.0f) & (x < 6.0f)) ? gradient : Floats{};
  }
  if constexpr (kind == Activation::kRelu) return x > 0.0f ? gradient : Floats{};
  if constexpr (kind == Activation::kSilu) {
    const Floats share = sigmoid(x);
    return gradient * share * (1.0f + x * (1.0f - share));
  }
  return gradient;
}

}  // namespace cxr

#endif  // CXR_JAX_VECTORS_H_
