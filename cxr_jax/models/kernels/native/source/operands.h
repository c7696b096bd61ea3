// What the operands of matrix products are packed as, and the sums of one tile in registers.
//
// Activations lie in memory as bfloat16. Where the processor multiplies bfloat16 values itself, two neighbours along the
// summed axis lie in one 32-bit word, as its instruction takes them. Anywhere else every value is widened to float32
// once, when it is packed: a value is read again for each tile that it meets, far more often than it is packed.
#ifndef CXR_JAX_OPERANDS_H_
#define CXR_JAX_OPERANDS_H_

#include <algorithm>
#include <limits>
#include <type_traits>

#include "vectors.h"

namespace cxr {

#if defined(__AVX512BF16__)

using Element = uint32_t;
using Elements = Words;
using Value = BFloat16;    // what elements are made of
constexpr int kHeld = 2;   // values along the summed axis that one element holds
constexpr int kPanel = 4;  // vectors of columns that one tile holds at most
// elements of the summed axis that are taken at once
constexpr int64_t kDepthBlock = std::numeric_limits<int64_t>::max();

// Rows of a tile for so many vectors of columns: as many sums as registers hold, and enough to hide their latency.
template <int kVectors>
constexpr int kTileRows = kVectors == 1 ? 14 : kVectors == 2 ? 12 : kVectors == 3 ? 8 : 6;
constexpr int kMostTileRows = 14;
constexpr int kPanelRows = kMostTileRows;

inline Element element_of(BFloat16 low, BFloat16 high) { return low.bits | static_cast<uint32_t>(high.bits) << 16; }
inline Element element_of(BFloat16 last) { return last.bits; }
inline Elements spread_element(Element value) { return Elements{} + value; }

inline Floats add_products(Floats sums, Elements a, Elements b) {
  return reinterpret_cast<Floats>(_mm512_dpbf16_ps(reinterpret_cast<__m512>(sums), reinterpret_cast<__m512bh>(a),
                                                   reinterpret_cast<__m512bh>(b)));
}

#else

using Element = float;
using Elements = Floats;
using Value = float;
constexpr int kHeld = 1;
#if defined(__aarch64__) || defined(__AVX512F__)
constexpr int kPanel = 3;  // 8 rows of 3 vectors: 24 of 32 registers hold sums
constexpr int kPanelRows = 8;
#else
constexpr int kPanel = 2;  // 6 rows of 2 vectors: 12 of 16 registers
constexpr int kPanelRows = 6;
#endif
// a panel of so many elements stays in the first-level cache while all rows pass it
constexpr int64_t kDepthBlock = 256;

template <int kVectors>
constexpr int kTileRows = kVectors == 1 ? 8 : kPanelRows;
constexpr int kMostTileRows = 8;

inline Element element_of(BFloat16 value) { return widened(value); }
inline Elements spread_element(Element value) { return spread(value); }
inline Floats add_products(Floats sums, Elements a, Elements b) { return sums + a * b; }

#endif

inline Elements elements_at(const Element* from) {
  Elements elements;
  std::memcpy(&elements, from, sizeof elements);
  return elements;
}

inline Element element_at(const Element* from) {
  Element element;
  std::memcpy(&element, from, sizeof element);
  return element;
}

// Calls `work` with the number of vectors of columns, kPanel at most, as a type.
template <typename Work>
void with_vectors(int64_t vectors, const Work& work) {
  switch (std::min<int64_t>(kPanel, vectors)) {
    case 1: return work(std::integral_constant<int, 1>());
    case 2: return work(std::integral_constant<int, 2>());
    case 3: return work(std::integral_constant<int, std::min(3, kPanel)>());
    default: return work(std::integral_constant<int, kPanel>());
  }
}

// A tile of sums stays in registers if every loop over it is unrolled.
template <int kRows, int kVectors>
inline void clear_tile(Floats (&tile)[kRows][kVectors]) {
#pragma GCC unroll 24
  for (int row = 0; row < kRows; ++row) {
#pragma GCC unroll 4
    for (int vector = 0; vector < kVectors; ++vector) tile[row][vector] = Floats{};
  }
}

template <int kRows, int kVectors>
inline void load_tile(const float* from, int64_t stride, Floats (&tile)[kRows][kVectors]) {
#pragma GCC unroll 24
  for (int row = 0; row < kRows; ++row) {
#pragma GCC unroll 4
    for (int vector = 0; vector < kVectors; ++vector) tile[row][vector] = load(from + row * stride + vector * kLanes);
  }
}

template <int kRows, int kVectors>
inline void store_tile(const Floats (&tile)[kRows][kVectors], float* to, int64_t stride) {
#pragma GCC unroll 24
  for (int row = 0; row < kRows; ++row) {
#pragma GCC unroll 4
    for (int vector = 0; vector < kVectors; ++vector) store(to + row * stride + vector * kLanes, tile[row][vector]);
  }
}

// tile += `depth` elements of kRows rows, `a_stride` apart, times as many rows of kVectors vectors, `b_stride` apart;
// along a row of `a` the elements are `a_step` apart.
template <int kRows, int kVectors>
inline void multiply(const Element* a, int64_t a_stride, int64_t a_step, const Element* b, int64_t b_stride,
                     int64_t depth, Floats (&tile)[kRows][kVectors]) {
  for (int64_t index = 0; index < depth; ++index) {
    Elements columns[kVectors];
    for (int vector = 0; vector < kVectors; ++vector) {
      columns[vector] = elements_at(b + index * b_stride + vector * kLanes);
    }
#pragma GCC unroll 24
    for (int row = 0; row < kRows; ++row) {
      const Elements value = spread_element(element_at(a + row * a_stride + index * a_step));
#pragma GCC unroll 4
      for (int vector = 0; vector < kVectors; ++vector) {
        tile[row][vector] = add_products(tile[row][vector], columns[vector], value);
      }
    }
  }
}

}  // namespace cxr

#endif  // CXR_JAX_OPERANDS_H_
