// Convolutions of bfloat16 values as matrix products with float32 sums.
//
// The windows of a few output pixels at a time are gathered into rows that stay in the cache; a 1x1 convolution reads its
// input as it lies, or widened.
#ifndef CXR_JAX_PRODUCTS_H_
#define CXR_JAX_PRODUCTS_H_

#include <vector>

#include "ahead.h"
#include "loaded.h"
#include "packed_kernel.h"
#include "parallel.h"
#include "windows.h"

namespace cxr {

constexpr int64_t kMostRows = 192;   // rows that are gathered at once
constexpr int64_t kFewestRows = 48;  // a whole number of tiles of every height
constexpr int64_t kPiecesOfThread = 8;
constexpr int64_t kRowBytes = 128 * 1024;

// Rows that are gathered at once: so many that they stay in the second-level cache while all panels pass them.
inline int64_t rows_at_once(int64_t depth) {
  if (kHeld == 2) return kMostRows;
  const int64_t fitting = kRowBytes / (std::max<int64_t>(1, depth) * static_cast<int64_t>(sizeof(Element)));
  return std::max(kFewestRows, std::min(kMostRows, fitting / kFewestRows * kFewestRows));
}

// How far apart the rows are into which windows are gathered.
inline int64_t row_stride(int64_t depth) {
  if (kHeld == 2) return depth;
  const int64_t whole = (depth + kLanes - 1) / kLanes * kLanes;
  // rows of one tile must not share their places in the first-level cache
  return whole % 256 == 0 ? whole + 64 / static_cast<int64_t>(sizeof(Element)) : whole;
}

struct Rows {
  const Element* elements;
  int64_t stride;
};

// The windows of `count` output pixels from `first` on, as rows of elements. A 1x1 convolution may have a
// `normalisation` to be applied to `x`.
inline Rows rows_of(const ConvolutionShape& shape, const BFloat16* x, int64_t first, int64_t count, int64_t depth,
                    const Normalisation* normalisation) {
  if (kHeld == 2 && normalisation == nullptr && shape.is_pointwise() && shape.inputs % 2 == 0 && count >= kMostTileRows) {
    return {reinterpret_cast<const Element*>(x + first * shape.inputs), depth};
  }
  const int64_t stride = row_stride(depth);
  Element* elements = scratch<Room::kWindows, Element>((rows_at_once(depth) + kMostTileRows) * stride);
  if (normalisation != nullptr && stride * kHeld == shape.inputs) {
    normalisation->copy(x + first * shape.inputs, count, reinterpret_cast<Value*>(elements));
    return {elements, stride};
  }
  for (int64_t row = 0; row < count; ++row) {
    Element* to = elements + row * stride;
    if (kHeld == 2) to[depth - 1] = 0;
    Value* values = reinterpret_cast<Value*>(to);
    if (normalisation != nullptr) normalisation->copy(x + (first + row) * shape.inputs, 1, values);
    else if (shape.is_pointwise()) copy_values(x + (first + row) * shape.inputs, shape.inputs, values);
    else gather(shape, x, first + row, values);
  }
  return {elements, stride};
}

// What the next `count` output pixels need, to be fetched while all panels pass the rows before them. Windows overlap, and
// are in the cache for the most part; rows that are read as they lie are fetched by the processor itself.
inline Ahead next_pixels(const ConvolutionShape& shape, const BFloat16* x, const BFloat16* y, int64_t first,
                         int64_t count, int64_t vectors) {
  Ahead ahead(count / kMostTileRows * ((vectors + kPanel - 1) / kPanel));
  if (kHeld == 1 && shape.is_pointwise()) ahead.add(x + first * shape.inputs, count * shape.inputs);
  if (kHeld == 1) ahead.add(y + first * shape.outputs, count * shape.outputs);
  return ahead;
}

// `values` as one row of columns; the last vector has `last_columns` of them.
template <int kVectors>
inline __attribute__((always_inline)) void store_columns(const Floats (&values)[kVectors], int64_t last_columns,
                                                         BFloat16* to) {
  constexpr int last = (kVectors - 1) * kLanes;
  if (last_columns == kLanes) {
    int vector = 0;
    for (; vector + 1 < kVectors; vector += 2) store(to + vector * kLanes, values[vector], values[vector + 1]);
    if (vector < kVectors) store(to + last, values[kVectors - 1]);
  } else {
    for (int vector = 0; vector + 1 < kVectors; ++vector) store(to + vector * kLanes, values[vector]);
    store_part(to + last, values[kVectors - 1], static_cast<int>(last_columns));
  }
}

// Adds the offset to the first `rows` rows of one tile of sums, activates and stores them; the last vector has
// `last_columns` columns.
template <Activation kActivation, int kRows, int kVectors>
void finish_tile(const Floats (&tile)[kRows][kVectors], const float* offset, int64_t rows, int64_t last_columns,
                BFloat16* y, int64_t outputs) {
  Floats offsets[kVectors];
  for (int vector = 0; vector < kVectors; ++vector) offsets[vector] = load(offset + vector * kLanes);
  const auto store_row = [&](const Floats (&sums)[kVectors], int row, int64_t columns) {
    Floats values[kVectors];
    for (int vector = 0; vector < kVectors; ++vector) {
      values[vector] = activate<kActivation>(sums[vector] + offsets[vector]);
    }
    store_columns(values, columns, y + row * outputs);
  };
  if (rows == kRows && last_columns == kLanes) {
#pragma GCC unroll 24
    for (int row = 0; row < kRows; ++row) store_row(tile[row], row, kLanes);
    return;
  }
  // a copy: a tile of which the compiler does not know the row is kept in memory, from its first sum on
  Floats kept[kRows][kVectors];
  store_tile(tile, reinterpret_cast<float*>(kept), kVectors * kLanes);
  for (int row = 0; row < rows; ++row) store_row(kept[row], row, last_columns);
}

// `rows` rows of y, of one panel's columns; the last vector of the panel has `last_columns` of them.
template <int kVectors, Activation kActivation>
void multiply_rows(const Element* a, int64_t stride, int64_t rows, const Element* panel, int64_t depth,
                   int64_t last_columns, const float* offset, BFloat16* y, int64_t outputs, Ahead& ahead) {
  constexpr int tile_rows = kTileRows<kVectors>, columns = kVectors * kLanes;
  float* sums = depth > kDepthBlock ? scratch<Room::kTileSums, float>((kMostRows + tile_rows) * columns) : nullptr;
  int64_t first = 0, count;
  do {
    count = std::min(kDepthBlock, depth - first);
    for (int64_t begin = 0; begin < rows; begin += tile_rows) {
      // the last tile goes back and computes some rows once more; with too few rows there is room for a whole one
      const int64_t row = std::max<int64_t>(0, std::min(begin, rows - tile_rows));
      Floats tile[tile_rows][kVectors];
      float* kept = sums + begin * columns;
      if (first == 0) clear_tile(tile);
      else load_tile(kept, columns, tile);
      ahead.fetch();
      multiply(a + row * stride + first, stride, 1, panel + first * columns, columns, count, tile);
      if (first + count < depth) {
        store_tile(tile, kept, columns);
      } else {
        finish_tile<kActivation>(tile, offset, std::min<int64_t>(tile_rows, rows), last_columns, y + row * outputs,
                                outputs);
      }
    }
  } while ((first += count) < depth);
}

// y [pixels, outputs] of `x` and a packed kernel, plus `offset` [outputs] and activated. A 1x1 convolution may have a
// `normalisation` to be applied to `x`.
template <Activation kActivation>
void convolve(const Pool& pool, const ConvolutionShape& shape, const BFloat16* x, const PackedKernel& kernel,
              const float* offset, BFloat16* y, const Normalisation* normalisation = nullptr) {
  const int64_t pixels = shape.pixels(), depth = kernel.depth(), vectors = kernel.vectors(), outputs = shape.outputs;
  const int64_t fair = (pixels + pool.num_threads() - 1) / std::max<int64_t>(1, pool.num_threads());
  const int64_t chunk = std::max<int64_t>(1, std::min(rows_at_once(depth), fair));
  std::vector<float> offsets(vectors * kLanes);
  if (offset != nullptr) std::copy_n(offset, outputs, offsets.data());
  const int64_t chunks = (pixels + chunk - 1) / chunk;
  const int64_t pieces = std::min(chunks, kPiecesOfThread * std::max<int64_t>(1, pool.num_threads()));
  for_pieces(pool, pieces, [&](int64_t piece) {
    const int64_t end = std::min(pixels, (piece + 1) * chunks / pieces * chunk);
    for (int64_t first = piece * chunks / pieces * chunk; first < end; first += chunk) {
      const int64_t rows = std::min(chunk, end - first);
      const Rows a = rows_of(shape, x, first, rows, depth, normalisation);
      Ahead ahead = next_pixels(shape, x, y, first + rows, std::min(chunk, end - first - rows), vectors);
      for (int64_t vector = 0; vector < vectors; vector += kPanel) {
        with_vectors(vectors - vector, [&](auto held) {
          constexpr int panel = decltype(held)::value;
          const int64_t last = std::min<int64_t>(kLanes, outputs - (vector + panel - 1) * kLanes);
          multiply_rows<panel, kActivation>(a.elements, a.stride, rows, kernel.panel(vector), depth, last,
                                            offsets.data() + vector * kLanes, y + first * outputs + vector * kLanes,
                                            outputs, ahead);
        });
      }
    }
  });
}

}  // namespace cxr

#endif  // CXR_JAX_PRODUCTS_H_
