// The instructions of AVX-512 BF16 that the kernels use, one value after another: for processors that lack them.
#include <immintrin.h>

#include <cmath>
#include <cstdint>
#include <cstring>

namespace in_steps {

typedef float Floats __attribute__((vector_size(64)));
typedef uint32_t Words __attribute__((vector_size(64)));
typedef uint16_t Halves __attribute__((vector_size(32)));

inline float widened(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

inline Floats dot(Floats sums, Words a, Words b) {
  for (int lane = 0; lane < 16; ++lane) {
    sums[lane] += widened(a[lane] << 16) * widened(b[lane] << 16);
    sums[lane] += widened(a[lane] & 0xffff0000u) * widened(b[lane] & 0xffff0000u);
  }
  return sums;
}

inline Halves rounded(Floats values) {
  Halves halves;
  for (int lane = 0; lane < 16; ++lane) {
    uint32_t bits;
    const float value = values[lane];
    std::memcpy(&bits, &value, sizeof bits);
    halves[lane] = std::isnan(value) ? bits >> 16 | 0x40u : (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
  }
  return halves;
}

inline Words widened_words(Halves halves) { return __builtin_convertvector(halves, Words); }
inline Halves lower_halves(Words words) { return __builtin_convertvector(words, Halves); }
inline Floats smaller(Floats a, Floats b) { return a < b ? a : b; }
inline Floats larger(Floats a, Floats b) { return a > b ? a : b; }

}  // namespace in_steps

#define __AVX512F__ 1
#define __AVX512BF16__ 1
#define __m512 in_steps::Floats
#define __m512i in_steps::Words
#define __m512bh in_steps::Words
#define __m256i in_steps::Halves
#define __m256bh in_steps::Halves
#define _mm512_dpbf16_ps in_steps::dot
#define _mm512_cvtneps_pbh in_steps::rounded
#define _mm512_cvtepu16_epi32 in_steps::widened_words
#define _mm512_cvtepi32_epi16 in_steps::lower_halves
#define _mm512_min_ps in_steps::smaller
#define _mm512_max_ps in_steps::larger
