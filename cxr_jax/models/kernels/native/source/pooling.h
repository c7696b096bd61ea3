// The largest value and the mean of every window, and their gradients.
//
// A gradient is gathered: each pixel of the input adds up what the windows that it lies in give back, in the order of
// these windows, and is rounded once.
#ifndef CXR_JAX_POOLING_H_
#define CXR_JAX_POOLING_H_

#include <limits>
#include <vector>

#include "lanes.h"
#include "parallel.h"

namespace cxr {

// One axis of an image under windows of one axis.
struct PooledAxis {
  int64_t length, windows;         // of the input, and of the output
  int64_t window, stride, before;  // pixels of a window, its step, and what is added before the image

  // The taps of window `index` that lie inside of the image.
  int64_t first_tap(int64_t index) const { return std::max<int64_t>(0, before - index * stride); }
  int64_t end_tap(int64_t index) const { return std::min(window, length + before - index * stride); }
  int64_t place(int64_t index, int64_t tap) const { return index * stride - before + tap; }

  // The windows that input pixel `place` lies in.
  int64_t first_window(int64_t place) const {
    const int64_t beyond = place + before - window;
    return beyond < 0 ? 0 : beyond / stride + 1;
  }
  int64_t end_window(int64_t place) const { return std::min(windows, (place + before) / stride + 1); }
};

struct PoolingShape {
  int64_t batch, channels;
  PooledAxis rows, columns;

  const BFloat16* input(const BFloat16* x, int64_t image, int64_t row, int64_t column) const {
    return x + ((image * rows.length + row) * columns.length + column) * channels;
  }
  int64_t output(int64_t image, int64_t row, int64_t column) const {
    return ((image * rows.windows + row) * columns.windows + column) * channels;
  }
};

// Calls `work` for every pixel of images of `rows` x `columns`, several rows of one image by one thread.
template <typename Work>
void for_pixels(const Pool& pool, int64_t batch, int64_t rows, int64_t columns, const Work& work) {
  constexpr int64_t at_once = 4;
  const int64_t bands = (rows + at_once - 1) / at_once;
  for_pieces(pool, batch * bands, [&](int64_t piece) {
    const Work called = work;  // a copy of this thread's own, which no store can change: it stays in registers
    const int64_t image = piece / bands, first = piece % bands * at_once;
    for (int64_t row = first; row < std::min(rows, first + at_once); ++row) {
      for (int64_t column = 0; column < columns; ++column) called(image, row, column);
    }
  });
}

// The largest value of every window of `x`: `y`. Where `places` is given, the number of the tap that it came from, the
// first of equal ones, lies there; it is whole, and exact below 257. A NaN is larger than any value.
template <bool kPlaces>
void max_pool(const Pool& pool, const PoolingShape& shape, const BFloat16* x, BFloat16* y,
              BFloat16* places) {
  for_pixels(pool, shape.batch, shape.rows.windows, shape.columns.windows, [=](int64_t image, int64_t row,
                                                                             int64_t column) {
    const int64_t to = shape.output(image, row, column);
    const int64_t first_up = shape.rows.first_tap(row), end_up = shape.rows.end_tap(row);
    const int64_t first_across = shape.columns.first_tap(column), end_across = shape.columns.end_tap(column);
    for_lanes(shape.channels, [&](auto lanes, int64_t channel) {
      Floats largest = spread(-std::numeric_limits<float>::infinity());
      Floats place = spread(static_cast<float>(first_up * shape.columns.window + first_across));
      for (int64_t up = first_up; up < end_up; ++up) {
        const BFloat16* from =
            shape.input(x, image, shape.rows.place(row, up), shape.columns.place(column, first_across)) + channel;
        for (int64_t across = first_across; across < end_across; ++across, from += shape.channels) {
          const Floats value = load_lanes(from, lanes);
          const auto is_larger = (value > largest) | (value != value);
          largest = is_larger ? value : largest;
          if (kPlaces) place = is_larger ? spread(static_cast<float>(up * shape.columns.window + across)) : place;
        }
      }
      store_lanes(y + to + channel, largest, lanes);
      if (kPlaces) store_lanes(places + to + channel, place, lanes);
    });
  });
}

// Gives every pixel of `x` the sum of `share(window's place in g, channel, lanes, tap, row and column of the window)` over
// the windows that it lies in.
template <typename Share>
void gather_gradient(const Pool& pool, const PoolingShape& shape, BFloat16* x, const Share& share) {
  for_pixels(pool, shape.batch, shape.rows.length, shape.columns.length, [=](int64_t image, int64_t row,
                                                                           int64_t column) {
    BFloat16* to = x + ((image * shape.rows.length + row) * shape.columns.length + column) * shape.channels;
    const int64_t first_row = shape.rows.first_window(row), end_row = shape.rows.end_window(row);
    const int64_t first_column = shape.columns.first_window(column), end_column = shape.columns.end_window(column);
    for_lanes(shape.channels, [&](auto lanes, int64_t channel) {
      Floats sum = {};
      for (int64_t above = first_row; above < end_row; ++above) {
        const int64_t up = row - shape.rows.place(above, 0);
        for (int64_t before = first_column; before < end_column; ++before) {
          const int64_t across = column - shape.columns.place(before, 0);
          sum += share(shape.output(image, above, before) + channel, lanes, up * shape.columns.window + across, above,
                       before);
        }
      }
      store_lanes(to + channel, sum, lanes);
    });
  });
}

// The gradient of `x` for the gradient `g` of the largest values, which came from `places`.
inline void max_pool_gradient(const Pool& pool, const PoolingShape& shape, const BFloat16* g,
                              const BFloat16* places, BFloat16* x) {
  gather_gradient(pool, shape, x, [=](int64_t place, auto lanes, int64_t tap, int64_t, int64_t) {
    const Floats from = load_lanes(places + place, lanes);
    return from == static_cast<float>(tap) ? load_lanes(g + place, lanes) : Floats{};
  });
}

// What one window's sum is multiplied by: one over its pixels, or over those inside of the image.
inline float share_of_pixel(const PoolingShape& shape, bool counts_padding, int64_t row, int64_t column) {
  const int64_t rows = counts_padding ? shape.rows.window : shape.rows.end_tap(row) - shape.rows.first_tap(row);
  const int64_t columns =
      counts_padding ? shape.columns.window : shape.columns.end_tap(column) - shape.columns.first_tap(column);
  return 1.0f / static_cast<float>(rows * columns);
}

// The mean of every window of `x`: `y`.
inline void average_pool(const Pool& pool, const PoolingShape& shape, bool counts_padding, const BFloat16* x,
                         BFloat16* y) {
  for_pixels(pool, shape.batch, shape.rows.windows, shape.columns.windows, [=](int64_t image, int64_t row,
                                                                             int64_t column) {
    BFloat16* to = y + shape.output(image, row, column);
    const float share = share_of_pixel(shape, counts_padding, row, column);
    const int64_t first_across = shape.columns.first_tap(column), end_across = shape.columns.end_tap(column);
    for_lanes(shape.channels, [&](auto lanes, int64_t channel) {
      Floats sum = {};
      for (int64_t up = shape.rows.first_tap(row); up < shape.rows.end_tap(row); ++up) {
        const BFloat16* from =
            shape.input(x, image, shape.rows.place(row, up), shape.columns.place(column, first_across)) + channel;
        for (int64_t across = first_across; across < end_across; ++across, from += shape.channels) {
          sum += load_lanes(from, lanes);
        }
      }
      store_lanes(to + channel, sum * share, lanes);
    });
  });
}

// The gradient of `x` for the gradient `g` of the means.
inline void average_pool_gradient(const Pool& pool, const PoolingShape& shape, bool counts_padding,
                                  const BFloat16* g, BFloat16* x) {
  const int64_t across = shape.columns.windows;
  std::vector<float> shares(shape.rows.windows * across);
  for (int64_t row = 0; row < shape.rows.windows; ++row) {
    for (int64_t column = 0; column < across; ++column) {
      shares[row * across + column] = share_of_pixel(shape, counts_padding, row, column);
    }
  }
  gather_gradient(pool, shape, x, [=, shares = shares.data()](int64_t place, auto lanes, int64_t, int64_t row,
                                                               int64_t column) {
    return load_lanes(g + place, lanes) * shares[row * across + column];
  });
}

}  // namespace cxr

#endif  // CXR_JAX_POOLING_H_
