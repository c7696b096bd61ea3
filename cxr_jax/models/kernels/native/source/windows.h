// The shape of a convolution, and the windows of its input.
#ifndef CXR_JAX_WINDOWS_H_
#define CXR_JAX_WINDOWS_H_

#include "operands.h"

namespace cxr {

struct ConvolutionShape {
  int64_t batch, height, width, inputs;  // of the input
  int64_t rows, columns, outputs;        // of the output
  int64_t window_rows, window_columns;
  int64_t stride, top, left;             // zeros above and to the left

  int64_t taps() const { return window_rows * window_columns; }
  int64_t depth() const { return taps() * inputs; }
  int64_t pixels() const { return batch * rows * columns; }
  // True if every output pixel meets the input pixel in its own place: the input is a matrix as it lies.
  bool is_pointwise() const {
    return taps() == 1 && stride == 1 && top == 0 && left == 0 && rows == height && columns == width;
  }
};

inline void copy_values(const BFloat16* from, int64_t count, BFloat16* to) {
  std::memcpy(to, from, count * sizeof(BFloat16));
}

inline void copy_values(const BFloat16* from, int64_t count, float* to) {
  for (int64_t index = 0; index < count; ++index) to[index] = widened(from[index]);
}

// The window [window_rows, window_columns, inputs] that output pixel `pixel` meets, with zeros outside of the image.
template <typename Value>
void gather(const ConvolutionShape& shape, const BFloat16* x, int64_t pixel, Value* to) {
  const int64_t column = pixel % shape.columns, row = pixel / shape.columns % shape.rows;
  const BFloat16* image = x + pixel / (shape.columns * shape.rows) * shape.height * shape.width * shape.inputs;
  for (int64_t up = 0; up < shape.window_rows; ++up) {
    const int64_t y = row * shape.stride - shape.top + up;
    const bool row_is_inside = y >= 0 && y < shape.height;
    const int64_t first = column * shape.stride - shape.left;
    if (row_is_inside && first >= 0 && first + shape.window_columns <= shape.width) {
      copy_values(image + (y * shape.width + first) * shape.inputs, shape.window_columns * shape.inputs, to);
      to += shape.window_columns * shape.inputs;
      continue;
    }
    for (int64_t across = 0; across < shape.window_columns; ++across, to += shape.inputs) {
      const int64_t place = first + across;
      if (row_is_inside && place >= 0 && place < shape.width) {
        copy_values(image + (y * shape.width + place) * shape.inputs, shape.inputs, to);
      } else {
        std::memset(to, 0, shape.inputs * sizeof(Value));
      }
    }
  }
}

}  // namespace cxr

#endif  // CXR_JAX_WINDOWS_H_
