// Convolutions of bfloat16 values as matrix products with float32 sums, and both of their gradients.
//
// Two neighbours along the summed axis lie in one 32-bit word, as the processor's bfloat16 instruction takes them. The
// windows of a few output pixels at a time are gathered into rows that stay in the cache; a 1x1 convolution reads its
// input as it lies.
#ifndef CXR_JAX_PRODUCTS_H_
#define CXR_JAX_PRODUCTS_H_

#include <type_traits>
#include <vector>

#include "parallel.h"
#include "vectors.h"

namespace cxr {

// Vectors of columns that one tile holds at most: half as many where there are half as many registers.
constexpr int kPanel = kLanes == 16 ? 4 : 2;
constexpr int64_t kRowChunk = 192;  // rows that are gathered at once

struct ConvolutionShape {
  int64_t batch, height, width, inputs;  // of the input
  int64_t rows, columns, outputs;        // of the output
  int64_t window, stride, top, left;     // zeros above and to the left
  int64_t dilation;                      // 1, or the step between the input's pixels with zeros between them

  int64_t taps() const { return window * window; }
  int64_t depth() const { return taps() * inputs; }
  int64_t pixels() const { return batch * rows * columns; }
  // True if every output pixel meets the input pixel in its own place: the input is a matrix as it lies.
  bool is_pointwise() const {
    return window == 1 && stride == 1 && dilation == 1 && top == 0 && left == 0 && rows == height && columns == width;
  }
};

// sums + a * b over both halves of every word.
inline Floats add_products(Floats sums, Words a, Words b) {
#if defined(__AVX512BF16__)
  return reinterpret_cast<Floats>(_mm512_dpbf16_ps(reinterpret_cast<__m512>(sums), reinterpret_cast<__m512bh>(a),
                                                   reinterpret_cast<__m512bh>(b)));
#else
  const Words high = Words{} + 0xffff0000u;
  sums += reinterpret_cast<Floats>(a << 16) * reinterpret_cast<Floats>(b << 16);
  return sums + reinterpret_cast<Floats>(a & high) * reinterpret_cast<Floats>(b & high);
#endif
}

inline uint32_t word_of(BFloat16 low, BFloat16 high) { return low.bits | static_cast<uint32_t>(high.bits) << 16; }

inline uint32_t word_at(const uint32_t* from) {
  uint32_t word;
  std::memcpy(&word, from, sizeof word);
  return word;
}

inline Words words_at(const uint32_t* from) {
  Words words;
  std::memcpy(&words, from, sizeof words);
  return words;
}

// Rows of a tile for so many vectors of columns: as many sums as registers hold, and enough to hide their latency.
template <int kVectors>
constexpr int kTileRows = kPanel == 2   ? (kVectors == 1 ? 8 : 4)
                          : kVectors == 1 ? 14
                          : kVectors == 2 ? 12
                          : kVectors == 3 ? 8
                                          : 6;
constexpr int kMostTileRows = 14;

// Calls `work` with the number of vectors of columns, kPanel at most, as a type.
template <typename Work>
void with_vectors(int64_t vectors, const Work& work) {
  switch (std::min<int64_t>(kPanel, vectors)) {
    case 1: return work(std::integral_constant<int, 1>());
    case 2: return work(std::integral_constant<int, 2>());
    case 3: return work(std::integral_constant<int, 3>());
    default: return work(std::integral_constant<int, kPanel>());
  }
}

// tile += words of kTileRows rows, `a_stride` words apart, times `pairs` rows of kVectors vectors, `b_stride` apart;
// along a row of `a` the words are `a_step` apart.
template <int kVectors>
inline void multiply(const uint32_t* a, int64_t a_stride, int64_t a_step, const uint32_t* b, int64_t b_stride,
                     int64_t pairs, Floats (&tile)[kTileRows<kVectors>][kVectors]) {
  for (int64_t pair = 0; pair < pairs; ++pair) {
    Words columns[kVectors];
    for (int vector = 0; vector < kVectors; ++vector) columns[vector] = words_at(b + pair * b_stride + vector * kLanes);
#pragma GCC unroll 16
    for (int row = 0; row < kTileRows<kVectors>; ++row) {
      const Words value = Words{} + word_at(a + row * a_stride + pair * a_step);
#pragma GCC unroll 4
      for (int vector = 0; vector < kVectors; ++vector) {
        tile[row][vector] = add_products(tile[row][vector], columns[vector], value);
      }
    }
  }
}

// The kernel as words [panel][pairs][columns], zeros beyond its depth and outputs. Value (tap, input, output) lies at
// tap * tap_stride + input * input_stride + output * output_stride; the taps are taken backwards where `turned`.
class PackedKernel {
 public:
  PackedKernel(const BFloat16* kernel, int64_t taps, int64_t inputs, int64_t outputs, int64_t tap_stride,
               int64_t input_stride, int64_t output_stride, bool turned)
      : pairs_((taps * inputs + 1) / 2), vectors_((outputs + kLanes - 1) / kLanes),
        words_(pairs_ * vectors_ * kLanes) {
    std::vector<const BFloat16*> starts(2 * pairs_, nullptr);
    for (int64_t index = 0; index < taps * inputs; ++index) {
      const int64_t tap = turned ? taps - 1 - index / inputs : index / inputs;
      starts[index] = kernel + tap * tap_stride + index % inputs * input_stride;
    }
    for (int64_t vector = 0; vector < vectors_; vector += kPanel) {
      const int64_t columns = kLanes * std::min<int64_t>(kPanel, vectors_ - vector);
      const int64_t filled = std::min(columns, outputs - vector * kLanes);
      for (int64_t pair = 0; pair < pairs_; ++pair) {
        uint32_t* to = words_.data() + vector * kLanes * pairs_ + pair * columns;
        const int64_t offset = vector * kLanes * output_stride;
        const BFloat16 *low = starts[2 * pair] + offset, *high = starts[2 * pair + 1];
        if (high == nullptr) {
          for (int64_t column = 0; column < filled; ++column) to[column] = low[column * output_stride].bits;
          continue;
        }
        high += offset;
        // neighbours are packed by vectors, which takes a stride that the compiler knows
        if (output_stride == 1) {
          for (int64_t column = 0; column < filled; ++column) {
            to[column] = word_of(low[column], high[column]);
          }
        } else {
          for (int64_t column = 0; column < filled; ++column) {
            to[column] = word_of(low[column * output_stride], high[column * output_stride]);
          }
        }
      }
    }
  }

  int64_t pairs() const { return pairs_; }
  int64_t vectors() const { return vectors_; }
  const uint32_t* panel(int64_t vector) const { return words_.data() + vector * kLanes * pairs_; }

 private:
  int64_t pairs_, vectors_;
  std::vector<uint32_t> words_;
};

// The window [window, window, inputs] that output pixel `pixel` meets, with zeros outside of the image.
inline void gather(const ConvolutionShape& shape, const BFloat16* x, int64_t pixel, BFloat16* to) {
  const int64_t column = pixel % shape.columns, row = pixel / shape.columns % shape.rows;
  const BFloat16* image = x + pixel / (shape.columns * shape.rows) * shape.height * shape.width * shape.inputs;
  const int64_t size = shape.inputs * static_cast<int64_t>(sizeof(BFloat16));
  for (int64_t up = 0; up < shape.window; ++up) {
    const int64_t y = row * shape.stride - shape.top + up;
    const bool row_is_inside = y >= 0 && y % shape.dilation == 0 && y / shape.dilation < shape.height;
    const int64_t first = column * shape.stride - shape.left;
    if (row_is_inside && shape.dilation == 1 && first >= 0 && first + shape.window <= shape.width) {
      std::memcpy(to, image + (y * shape.width + first) * shape.inputs, size * shape.window);
      to += shape.window * shape.inputs;
      continue;
    }
    for (int64_t across = 0; across < shape.window; ++across, to += shape.inputs) {
      const int64_t place = first + across;
      if (row_is_inside && place >= 0 && place % shape.dilation == 0 && place / shape.dilation < shape.width) {
        std::memcpy(to, image + (y / shape.dilation * shape.width + place / shape.dilation) * shape.inputs, size);
      } else {
        std::memset(to, 0, size);
      }
    }
  }
}

// `rows` rows of y, of one panel's columns; the last vector of the panel has `last_columns` of them.
template <int kVectors, Activation kActivation>
void multiply_rows(const uint32_t* a, int64_t stride, int64_t rows, const uint32_t* panel, int64_t pairs,
                   int64_t last_columns, const float* offset, BFloat16* y, int64_t outputs) {
  constexpr int tile_rows = kTileRows<kVectors>;
  Floats offsets[kVectors];
  for (int vector = 0; vector < kVectors; ++vector) offsets[vector] = load(offset + vector * kLanes);
  for (int64_t begin = 0; begin < rows; begin += tile_rows) {
    // the last tile goes back and computes some rows once more; with too few rows there is room for a whole one
    const int64_t row = std::max<int64_t>(0, std::min(begin, rows - tile_rows));
    Floats tile[tile_rows][kVectors] = {};
    multiply<kVectors>(a + row * stride, stride, 1, panel, kVectors * kLanes, pairs, tile);
    for (int64_t index = 0; index < std::min<int64_t>(tile_rows, rows); ++index) {
      BFloat16* to = y + (row + index) * outputs;
      for (int vector = 0; vector < kVectors; ++vector) {
        const Floats value = activate<kActivation>(tile[index][vector] + offsets[vector]);
        const bool is_whole = vector < kVectors - 1 || last_columns == kLanes;
        if (is_whole) store(to + vector * kLanes, value);
        else store_part(to + vector * kLanes, value, static_cast<int>(last_columns));
      }
    }
  }
}

// y [pixels, outputs] of `x` and a packed kernel, plus `offset` [outputs] and activated.
template <Activation kActivation>
void convolve(xla::ffi::ThreadPool& pool, const ConvolutionShape& shape, const BFloat16* x, const PackedKernel& kernel,
              const float* offset, BFloat16* y) {
  const int64_t pixels = shape.pixels(), pairs = kernel.pairs(), vectors = kernel.vectors(), outputs = shape.outputs;
  const int64_t fair = (pixels + pool.num_threads() - 1) / std::max<int64_t>(1, pool.num_threads());
  const int64_t chunk = std::max<int64_t>(1, std::min(kRowChunk, fair));
  std::vector<float> offsets(vectors * kLanes);
  if (offset != nullptr) std::copy_n(offset, outputs, offsets.data());
  for_pieces(pool, (pixels + chunk - 1) / chunk, [&](int64_t piece) {
    const int64_t first = piece * chunk, rows = std::min(chunk, pixels - first);
    const uint32_t* a;
    if (shape.is_pointwise() && shape.inputs % 2 == 0 && rows >= kMostTileRows) {
      a = reinterpret_cast<const uint32_t*>(x + first * shape.inputs);
    } else {
      uint32_t* words = scratch<Room::kWindows, uint32_t>((kRowChunk + kMostTileRows) * pairs);
      for (int64_t row = 0; row < rows; ++row) {
        words[row * pairs + pairs - 1] = 0;
        gather(shape, x, first + row, reinterpret_cast<BFloat16*>(words + row * pairs));
      }
      a = words;
    }
    for (int64_t vector = 0; vector < vectors; vector += kPanel) {
      with_vectors(vectors - vector, [&](auto held) {
        constexpr int panel = decltype(held)::value;
        const int64_t last = std::min<int64_t>(kLanes, outputs - (vector + panel - 1) * kLanes);
        multiply_rows<panel, kActivation>(a, pairs, rows, kernel.panel(vector), pairs, last,
                                          offsets.data() + vector * kLanes, y + first * outputs + vector * kLanes,
                                          outputs);
      });
    }
  });
}

// Two rows as words; `count` values, then zeros up to `padded`.
inline void interleave(const BFloat16* low, const BFloat16* high, int64_t count, int64_t padded, uint32_t* to) {
  if (high == nullptr) {
    for (int64_t index = 0; index < count; ++index) to[index] = low[index].bits;
  } else {
    for (int64_t index = 0; index < count; ++index) to[index] = word_of(low[index], high[index]);
  }
  std::fill(to + count, to + padded, 0u);
}

// The windows of the pixels from `first` on as words [pairs of pixels][a_stride], and their rows of `g` [..][g_stride].
inline void pair_pixels(const ConvolutionShape& shape, const BFloat16* x, const BFloat16* g, int64_t first,
                        int64_t count, int64_t a_stride, uint32_t* a, int64_t g_stride, uint32_t* b) {
  const int64_t depth = shape.depth(), outputs = shape.outputs;
  BFloat16* windows = scratch<Room::kTwoWindows, BFloat16>(2 * depth);
  for (int64_t index = 0; index < count; index += 2, a += a_stride, b += g_stride) {
    const int64_t pixel = first + index;
    const bool both = index + 1 < count;
    const BFloat16* window = windows;
    if (shape.is_pointwise()) {
      window = x + pixel * depth;
    } else {
      gather(shape, x, pixel, windows);
      if (both) gather(shape, x, pixel + 1, windows + depth);
    }
    interleave(window, both ? window + depth : nullptr, depth, a_stride, a);
    const BFloat16* of_output = g + pixel * outputs;
    interleave(of_output, both ? of_output + outputs : nullptr, outputs, g_stride, b);
  }
}

// sums [depth][g_stride] += the outer products of the words `a` and `g` of every pair.
template <int kVectors>
void add_outer(const uint32_t* a, int64_t depth, int64_t a_stride, const uint32_t* g, int64_t g_stride, int64_t pairs,
               float* sums) {
  constexpr int tile_rows = kTileRows<kVectors>;
  for (int64_t row = 0; row < depth; row += tile_rows) {
    Floats tile[tile_rows][kVectors];
    for (int index = 0; index < tile_rows; ++index) {
      for (int vector = 0; vector < kVectors; ++vector) {
        tile[index][vector] = load(sums + (row + index) * g_stride + vector * kLanes);
      }
    }
    multiply<kVectors>(a + row, 1, a_stride, g, g_stride, pairs, tile);
    for (int index = 0; index < tile_rows; ++index) {
      for (int vector = 0; vector < kVectors; ++vector) {
        store(sums + (row + index) * g_stride + vector * kLanes, tile[index][vector]);
      }
    }
  }
}

// The gradient [window, window, inputs, outputs] of the kernel for the gradient `g` [pixels, outputs] of the output.
// Every thread adds up a share of the pixels: the last bits depend on the number of threads, not on their order.
inline void kernel_gradient(xla::ffi::ThreadPool& pool, const ConvolutionShape& shape, const BFloat16* x,
                            const BFloat16* g, float* kernel) {
  constexpr int64_t chunk = 128;
  const int64_t pixels = shape.pixels(), depth = shape.depth(), outputs = shape.outputs;
  const int64_t a_stride = depth + kMostTileRows, g_stride = (outputs + kLanes - 1) / kLanes * kLanes;
  const int64_t chunks = (pixels + chunk - 1) / chunk;
  const int64_t pieces = std::max<int64_t>(1, std::min<int64_t>(pool.num_threads(), chunks));
  const int64_t share = (chunks + pieces - 1) / pieces * chunk, size = a_stride * g_stride;
  float* shares = scratch<Room::kKernelShares, float>(pieces * size);
  for_pieces(pool, pieces, [&](int64_t piece) {
    float* sums = shares + piece * size;
    std::fill(sums, sums + size, 0.0f);
    uint32_t* a = scratch<Room::kWindowPairs, uint32_t>(chunk / 2 * a_stride);
    uint32_t* b = scratch<Room::kGradientPairs, uint32_t>(chunk / 2 * g_stride);
    for (int64_t first = piece * share; first < std::min(pixels, (piece + 1) * share); first += chunk) {
      const int64_t count = std::min(chunk, pixels - first), pairs = (count + 1) / 2;
      pair_pixels(shape, x, g, first, count, a_stride, a, g_stride, b);
      const int64_t vectors = g_stride / kLanes;
      for (int64_t vector = 0; vector < vectors; vector += kPanel) {
        with_vectors(vectors - vector, [&](auto held) {
          add_outer<decltype(held)::value>(a, depth, a_stride, b + vector * kLanes, g_stride, pairs,
                                           sums + vector * kLanes);
        });
      }
    }
  });
  for (int64_t row = 0; row < depth; ++row) {
    for (int64_t output = 0; output < outputs; ++output) {
      float sum = 0;
      for (int64_t piece = 0; piece < pieces; ++piece) sum += shares[piece * size + row * g_stride + output];
      kernel[row * outputs + output] = sum;
    }
  }
}

}  // namespace cxr

#endif  // CXR_JAX_PRODUCTS_H_
