// The gradient of the input of a convolution with a stride.
//
// Input pixels whose places leave the same remainder by the stride meet the same taps: each such phase of the image is a
// convolution of the output's gradient by these taps alone, without a stride and without zeros in between.
#ifndef CXR_JAX_STRIDED_GRADIENT_H_
#define CXR_JAX_STRIDED_GRADIENT_H_

#include <vector>

#include "products.h"

namespace cxr {

// One axis of a phase: the pixels `offset`, `offset` + stride, ... of the input, and the taps `first`, `first` + stride,
// ... of the window, which these pixels meet.
struct Phase {
  int64_t offset, stride, pixels, first, taps, before;  // `before`: zeros in front of the output's gradient

  Phase(int64_t index, int64_t step, int64_t length, int64_t window, int64_t zeros)
      : offset(index), stride(step), pixels((length - index + step - 1) / step), first(((index + zeros) % step + step) % step),
        taps(first < window ? (window - first + step - 1) / step : 0),
        before(taps - 1 - (index + zeros - first) / step) {}
};

// Writes the pixels [batch, rows.pixels, columns.pixels, channels] of a phase to their places in `x`; zeros where `from` is
// null.
inline void spread_phase(const Pool& pool, const ConvolutionShape& shape, const Phase& rows,
                         const Phase& columns, const BFloat16* from, BFloat16* x) {
  const int64_t channels = shape.inputs;
  for_pieces(pool, shape.batch * rows.pixels, [&](int64_t piece) {
    const int64_t image = piece / rows.pixels, row = rows.offset + piece % rows.pixels * rows.stride;
    BFloat16* to = x + ((image * shape.height + row) * shape.width + columns.offset) * channels;
    for (int64_t column = 0; column < columns.pixels; ++column, to += columns.stride * channels) {
      if (from == nullptr) std::memset(to, 0, channels * sizeof(BFloat16));
      else copy_values(from + (piece * columns.pixels + column) * channels, channels, to);
    }
  });
}

// The gradient `x` of the input of a convolution of `shape`, whose kernel is [window_rows, window_columns, inputs,
// outputs], for the gradient `g` of its output.
inline void strided_input_gradient(const Pool& pool, const ConvolutionShape& shape, const BFloat16* g,
                                   const BFloat16* kernel, BFloat16* x) {
  const int64_t tap_size = shape.inputs * shape.outputs;
  std::vector<BFloat16> taps, phase;
  for (int64_t up = 0; up < std::min(shape.stride, shape.height); ++up) {
    for (int64_t across = 0; across < std::min(shape.stride, shape.width); ++across) {
      const Phase rows(up, shape.stride, shape.height, shape.window_rows, shape.top);
      const Phase columns(across, shape.stride, shape.width, shape.window_columns, shape.left);
      if (rows.taps * columns.taps == 0) {
        spread_phase(pool, shape, rows, columns, nullptr, x);
        continue;
      }
      taps.resize(rows.taps * columns.taps * tap_size);
      for (int64_t tap = 0; tap < rows.taps * columns.taps; ++tap) {
        const int64_t row = rows.first + tap / columns.taps * shape.stride;
        const int64_t column = columns.first + tap % columns.taps * shape.stride;
        copy_values(kernel + (row * shape.window_columns + column) * tap_size, tap_size, taps.data() + tap * tap_size);
      }
      const ConvolutionShape back = {shape.batch, shape.rows,     shape.columns, shape.outputs, rows.pixels,
                                     columns.pixels, shape.inputs, rows.taps,     columns.taps,  1,
                                     rows.before,    columns.before};
      const PackedKernel packed(pool, taps.data(), back.taps(), back.inputs, back.outputs, tap_size, 1, back.inputs,
                                true);
      phase.resize(back.pixels() * back.outputs);
      convolve<Activation::kNone>(pool, back, g, packed, nullptr, phase.data());
      spread_phase(pool, shape, rows, columns, phase.data(), x);
    }
  }
}

}  // namespace cxr

#endif  // CXR_JAX_STRIDED_GRADIENT_H_
