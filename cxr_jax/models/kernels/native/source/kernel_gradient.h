// The gradient of a convolution's kernel: the product of all windows, turned, and the gradient of the output.
#ifndef CXR_JAX_KERNEL_GRADIENT_H_
#define CXR_JAX_KERNEL_GRADIENT_H_

#include "ahead.h"
#include "loaded.h"
#include "operands.h"
#include "parallel.h"
#include "windows.h"

namespace cxr {

// How the values of some pixels are packed: those of one pixel are cut into panels of `width`, each `stride` elements
// after the one before; in a panel, the next elements along the pixels lie `width` further on.
struct Panels {
  int64_t width, stride, count;
  int64_t size() const { return count * stride; }
  int64_t place(int64_t value) const { return value / width * stride + value % width; }
};

#if defined(__AVX512BF16__)

constexpr int64_t kSlack = 0;         // values that are read beyond those of the last pixel
constexpr int64_t kPackedAtOnce = 2;  // pixels
template <int kVectors>
constexpr int kOuterRows = kTileRows<kVectors>;

inline int64_t pixels_at_once(int64_t, int64_t) { return 128; }

// Interleaving costs more than a product here: whole rows are written at once, in one panel, zeros beyond their values.
inline Panels row_panels(int64_t depth, int64_t steps) {
  return {depth + kMostTileRows, steps * (depth + kMostTileRows), 1};
}
inline Panels column_panels(int64_t outputs, int64_t steps) {
  const int64_t width = (outputs + kLanes - 1) / kLanes * kLanes;
  return {width, steps * width, 1};
}

template <int>
void pack(const BFloat16* pixels, int64_t count, int64_t values, const Panels& panels, Element* to) {
  const BFloat16 *low = pixels, *high = pixels + values;
  if (count < 2) {
    for (int64_t index = 0; index < values; ++index) to[index] = element_of(low[index]);
  } else {
    for (int64_t index = 0; index < values; ++index) to[index] = element_of(low[index], high[index]);
  }
  std::fill(to + values, to + panels.width, Element{0});
}

#else

constexpr int64_t kSlack = kPanel * kLanes + kLanes;
constexpr int64_t kPackedAtOnce = 4;
template <int>
constexpr int kOuterRows = kPanelRows;

// So many that their values stay in the second-level cache, and a panel of them in the first-level one.
inline int64_t pixels_at_once(int64_t depth, int64_t outputs) {
  return std::max<int64_t>(64, std::min<int64_t>(256, 32 * 1024 / std::max<int64_t>(1, depth + outputs) / 8 * 8));
}

inline Panels panels_of(int64_t values, int64_t steps, int64_t width) {
  constexpr int64_t line = 64 / sizeof(Element);
  // an odd number of cache lines: panels must not share their places in the cache. The last pixel is stored by whole
  // vectors too
  const int64_t lines = (steps * width + kLanes + line - 1) / line | 1;
  return {width, lines * line, (values + width - 1) / width};
}
inline Panels row_panels(int64_t depth, int64_t steps) { return panels_of(depth, steps, kPanelRows); }
inline Panels column_panels(int64_t outputs, int64_t steps) { return panels_of(outputs, steps, kPanel * kLanes); }

// Values of the next pixel fall into the places of the last panel that have none, and, where panels are no whole vectors,
// into those that the next pixel takes.
template <int kWidth>
void pack(const BFloat16* pixels, int64_t count, int64_t values, const Panels& panels, Element* to) {
  for (int64_t start = 0; start < values; start += kWidth, to += panels.stride) {
    for (int64_t pixel = 0; pixel < count; ++pixel) {
      for (int lane = 0; lane < kWidth; lane += kLanes) {
        store(to + pixel * kWidth + lane, load(pixels + pixel * values + start + lane));
      }
    }
  }
}

#endif

// `count` rows of a matrix [total, width] from `first` on; copied to `room` where more would be read than there is.
inline const BFloat16* rows_with_slack(const BFloat16* matrix, int64_t width, int64_t total, int64_t first,
                                       int64_t count, BFloat16* room) {
  const BFloat16* rows = matrix + first * width;
  if ((first + count) * width + kSlack <= total * width) return rows;
  copy_values(rows, count * width, room);
  return room;
}

// Packs the windows and the gradients of `count` pixels from `first` on.
inline void pack_pixels(const ConvolutionShape& shape, const BFloat16* x, const BFloat16* g, int64_t first,
                        int64_t count, const Panels& rows, Element* a, const Panels& columns, Element* b,
                        const Normalisation* normalisation) {
  const int64_t depth = shape.depth(), outputs = shape.outputs, total = shape.pixels();
  BFloat16* input_room = scratch<Room::kWindowsOfPixels, BFloat16>(kPackedAtOnce * depth + kSlack);
  BFloat16* output_room = scratch<Room::kGradientsOfPixels, BFloat16>(kPackedAtOnce * outputs + kSlack);
  for (int64_t index = 0; index < count; index += kPackedAtOnce) {
    const int64_t begin = first + index, some = std::min(kPackedAtOnce, count - index);
    const BFloat16* windows = input_room;
    if (normalisation != nullptr) {
      normalisation->copy(x + begin * depth, some, input_room);
    } else if (shape.is_pointwise()) {
      windows = rows_with_slack(x, depth, total, begin, some, input_room);
    } else {
      for (int64_t pixel = 0; pixel < some; ++pixel) gather(shape, x, begin + pixel, input_room + pixel * depth);
    }
    const BFloat16* gradients = rows_with_slack(g, outputs, total, begin, some, output_room);
    pack<kPanelRows>(windows, some, depth, rows, a + index / kHeld * rows.width);
    pack<kPanel * kLanes>(gradients, some, outputs, columns, b + index / kHeld * columns.width);
  }
}

// sums [depth][sums_stride] += the outer products of the packed rows and of one panel of columns, over `steps` elements.
template <int kVectors>
void add_outer(const Element* a, const Panels& rows, int64_t depth, const Element* b, int64_t b_stride, int64_t steps,
               float* sums, int64_t sums_stride, Ahead& ahead) {
  constexpr int tile_rows = kOuterRows<kVectors>;
  for (int64_t row = 0; row < depth; row += tile_rows) {
    Floats tile[tile_rows][kVectors];
    load_tile(sums + row * sums_stride, sums_stride, tile);
    ahead.fetch();
    multiply(a + rows.place(row), 1, rows.width, b, b_stride, steps, tile);
    store_tile(tile, sums + row * sums_stride, sums_stride);
  }
}

// The gradient [window_rows, window_columns, inputs, outputs] of the kernel for the gradient `g` [pixels, outputs] of the output.
// Every thread adds up a share of the pixels: the last bits depend on the number of threads, not on their order. A 1x1
// convolution may have a `normalisation` to be applied to `x`.
inline void kernel_gradient(const Pool& pool, const ConvolutionShape& shape, const BFloat16* x,
                            const BFloat16* g, float* kernel, const Normalisation* normalisation = nullptr) {
  const int64_t pixels = shape.pixels(), depth = shape.depth(), outputs = shape.outputs;
  const int64_t chunk = pixels_at_once(depth, outputs), most_steps = chunk / kHeld;
  const Panels rows = row_panels(depth, most_steps), columns = column_panels(outputs, most_steps);
  const int64_t vectors = (outputs + kLanes - 1) / kLanes, sums_stride = vectors * kLanes;
  const int64_t chunks = (pixels + chunk - 1) / chunk;
  const int64_t pieces = std::max<int64_t>(1, std::min<int64_t>(pool.num_threads(), chunks));
  const int64_t share = (chunks + pieces - 1) / pieces * chunk, size = (depth + kMostTileRows) * sums_stride;
  float* shares = scratch<Room::kKernelShares, float>(pieces * size);
  for_pieces(pool, pieces, [&](int64_t piece) {
    float* sums = shares + piece * size;
    std::fill(sums, sums + size, 0.0f);
    Element* a = scratch<Room::kRowPanels, Element>(rows.size());
    Element* b = scratch<Room::kColumnPanels, Element>(columns.size());
    const int64_t end = std::min(pixels, (piece + 1) * share);
    for (int64_t first = piece * share; first < end; first += chunk) {
      const int64_t count = std::min(chunk, end - first), steps = (count + kHeld - 1) / kHeld;
      pack_pixels(shape, x, g, first, count, rows, a, columns, b, normalisation);
      const int64_t next = first + count, some = std::min(chunk, end - next);
      Ahead ahead(depth / kMostTileRows * ((vectors + kPanel - 1) / kPanel));
      if (shape.is_pointwise()) ahead.add(x + next * depth, some * depth);
      ahead.add(g + next * outputs, some * outputs);
      for (int64_t vector = 0; vector < vectors; vector += kPanel) {
        with_vectors(vectors - vector, [&](auto held) {
          add_outer<decltype(held)::value>(a, rows, depth, b + columns.place(vector * kLanes), columns.width, steps,
                                           sums + vector * kLanes, sums_stride, ahead);
        });
      }
    }
  });
  for (int64_t row = 0; row < depth; ++row) {
    for (int64_t output = 0; output < outputs; ++output) {
      float sum = 0;
      for (int64_t piece = 0; piece < pieces; ++piece) sum += shares[piece * size + row * sums_stride + output];
      kernel[row * outputs + output] = sum;
    }
  }
}

}  // namespace cxr

#endif  // CXR_JAX_KERNEL_GRADIENT_H_
