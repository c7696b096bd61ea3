// The depthwise convolution with windows and channels that `depthwise.h` does not know, and both of its gradients.
//
// Rows are widened once to float32, with their padding, into a ring of rows that stays in the second-level cache; what
// a tap reads is then one vector at an address without conditions.
#ifndef CXR_JAX_ANY_DEPTHWISE_H_
#define CXR_JAX_ANY_DEPTHWISE_H_

#include "depthwise.h"
#include "lanes.h"

namespace cxr {

// Pixels of a widened row of the input: all that it has, and all that windows meet.
inline int64_t widened_width(const DepthwiseShape& shape, int64_t window) {
  return std::max((shape.columns - 1) * shape.stride + window, shape.left + shape.width);
}

inline int64_t whole_vectors(int64_t channels) { return (channels + kLanes - 1) / kLanes * kLanes; }

// How far apart the pixels of a widened row are: whole vectors, and an odd number of cache lines, so that the pixels of a
// window do not share their places in the cache.
inline int64_t pixel_pitch(int64_t channels) {
  constexpr int64_t line = 64 / sizeof(float);
  return ((channels + line - 1) / line | 1) * line;
}

// The rows of one image [rows, columns, channels], widened to float32 with zeros to the left and right; those outside
// of the image are zeros altogether. What lies between the channels of two pixels has no meaning.
template <int kWindow>
class PixelRows {
 public:
  PixelRows(const BFloat16* image, int64_t rows, int64_t columns, int64_t channels, int64_t left, int64_t width)
      : image_(image), rows_(rows), columns_(columns), channels_(channels), pitch_(pixel_pitch(channels)), left_(left),
        length_(width * pitch_), room_(scratch<Room::kWidenedRows, float>((kWindow + 1) * length_)) {
    const int64_t before = left_ * pitch_, after = before + columns_ * pitch_;
    for (int slot = 0; slot < kWindow; ++slot) {
      std::fill(room_ + slot * length_, room_ + slot * length_ + before, 0.0f);
      std::fill(room_ + slot * length_ + after, room_ + (slot + 1) * length_, 0.0f);
    }
    std::fill(room_ + kWindow * length_, room_ + (kWindow + 1) * length_, 0.0f);
    std::fill(held_, held_ + kWindow, int64_t{-1});
  }

  int64_t pitch() const { return pitch_; }

  const float* row(int64_t index) {
    if (index < 0 || index >= rows_) return room_ + kWindow * length_;
    const int64_t slot = index % kWindow;
    float* place = room_ + slot * length_;
    if (held_[slot] != index) {
      const BFloat16* from = image_ + index * columns_ * channels_;
      float* to = place + left_ * pitch_;
      for (int64_t column = 0; column < columns_; ++column, from += channels_, to += pitch_) widen(from, to);
      held_[slot] = index;
    }
    return place;
  }

 private:
  void widen(const BFloat16* from, float* to) const {
    int64_t channel = 0;
    for (; channel + kLanes <= channels_; channel += kLanes) store(to + channel, load(from + channel));
    if (channel < channels_) {
      store(to + channel, load_part(from + channel, static_cast<int>(channels_ - channel)));
    }
  }

  const BFloat16* image_;
  int64_t rows_, columns_, channels_, pitch_, left_, length_;
  float* room_;
  int64_t held_[kWindow];
};

// Parameters [count, channels] with zeros behind the channels, so that they are read by whole vectors.
inline std::vector<float> in_whole_vectors(const float* values, int64_t count, int64_t channels) {
  const int64_t padded = whole_vectors(channels);
  std::vector<float> all(count * padded);
  for (int64_t row = 0; row < count; ++row) std::copy_n(values + row * channels, channels, all.data() + row * padded);
  return all;
}

// kColumns neighbours of one output row, one vector of channels, from widened rows `pitch` floats a pixel, plus `offset`
// and activated. What the neighbours share is read once.
template <int kWindow, int kStride, int kColumns, Activation kActivation, typename Lanes>
inline void filter_pixels(const float* const* rows, int64_t first, int64_t pitch, const float* kernel,
                          int64_t kernel_pitch, Floats offset, BFloat16* to, int64_t channels, Lanes lanes) {
  Floats sums[kColumns];
  for (int column = 0; column < kColumns; ++column) sums[column] = offset;
  for (int row = 0; row < kWindow; ++row) {
    Floats taps[kWindow];
#pragma GCC unroll 8
    for (int tap = 0; tap < kWindow; ++tap) taps[tap] = load(kernel + (row * kWindow + tap) * kernel_pitch);
    const float* from = rows[row] + first;
#pragma GCC unroll 16
    for (int place = 0; place < (kColumns - 1) * kStride + kWindow; ++place) {
      const Floats value = load(from + place * pitch);
#pragma GCC unroll 8
      for (int column = 0; column < kColumns; ++column) {
        const int tap = place - column * kStride;
        if (tap >= 0 && tap < kWindow) sums[column] += value * taps[tap];
      }
    }
  }
  for (int column = 0; column < kColumns; ++column) {
    store_lanes(to + column * channels, activate<kActivation>(sums[column]), lanes);
  }
}

// `x` [batch, height, width, channels] by `kernel` [kWindow, kWindow, channels], plus `offset` [channels] and activated.
template <int kWindow, int kStride, Activation kActivation>
void any_depthwise_at_stride(const Pool& pool, const DepthwiseShape& shape, const BFloat16* x,
                         const float* kernel, const float* offset, BFloat16* y) {
  constexpr int at_once = 4;
  const int64_t channels = shape.channels, kernel_pitch = whole_vectors(channels);
  const std::vector<float> taps = in_whole_vectors(kernel, kWindow * kWindow, channels);
  const std::vector<float> offsets = in_whole_vectors(offset, 1, channels);
  const Bands bands(shape.rows, kStride * shape.width * channels * sizeof(BFloat16), shape.batch);
  for_pieces(pool, shape.batch * bands.per_image, [&](int64_t piece) {
    const int64_t image = piece / bands.per_image, band = piece % bands.per_image;
    PixelRows<kWindow> widened(x + image * shape.height * shape.width * channels, shape.height, shape.width, channels,
                                 shape.left, widened_width(shape, kWindow));
    const int64_t pitch = widened.pitch();
    for (int64_t row = bands.first(band); row < bands.end(band); ++row) {
      const float* rows[kWindow];
      for (int tap = 0; tap < kWindow; ++tap) rows[tap] = widened.row(row * kStride - shape.top + tap);
      BFloat16* to = y + (image * shape.rows + row) * shape.columns * channels;
      for_all_lanes(channels, [&](auto lanes, int64_t channel) {
        const Floats plus = load(offsets.data() + channel);
        const auto filter = [&](auto count, int64_t column) {
          filter_pixels<kWindow, kStride, count(), kActivation>(rows, column * kStride * pitch + channel, pitch,
                                                                taps.data() + channel, kernel_pitch, plus,
                                                                to + column * channels + channel, channels, lanes);
        };
        int64_t column = 0;
        for (; column + at_once <= shape.columns; column += at_once) {
          filter(std::integral_constant<int, at_once>(), column);
        }
        for (; column < shape.columns; ++column) filter(std::integral_constant<int, 1>(), column);
      });
    }
  });
}

template <int kWindow, Activation kActivation>
void any_depthwise_forward(const Pool& pool, const DepthwiseShape& shape, const BFloat16* x, const float* kernel,
                       const float* offset, BFloat16* y) {
  if (shape.stride == 1) any_depthwise_at_stride<kWindow, 1, kActivation>(pool, shape, x, kernel, offset, y);
  else any_depthwise_at_stride<kWindow, 2, kActivation>(pool, shape, x, kernel, offset, y);
}

// One row of the input's gradient at stride 2, one vector of channels: each pixel meets only the taps of its own parity.
// `before` are zero pixels to the left of the widened gradient.
template <int kWindow, typename Lanes>
inline void spread_pixels(const float* const* rows, const int* row_taps, int row_count, int64_t pitch, int64_t before,
                       const float* kernel, int64_t kernel_pitch, int64_t channels, int64_t width, int64_t left,
                       BFloat16* to, Lanes lanes) {
  Floats taps[(kWindow + 1) / 2][kWindow];
  for (int row = 0; row < row_count; ++row) {
    for (int tap = 0; tap < kWindow; ++tap) {
      taps[row][tap] = load(kernel + (row_taps[row] * kWindow + tap) * kernel_pitch);
    }
  }
  for (int64_t column = 0; column < width; ++column) {
    Floats sum = {};
    for (int tap = static_cast<int>((column + left) % 2); tap < kWindow; tap += 2) {
      const int64_t place = ((column + left - tap) / 2 + before) * pitch;
      for (int row = 0; row < row_count; ++row) sum += load(rows[row] + place) * taps[row][tap];
    }
    store_lanes(to + column * channels, sum, lanes);
  }
}

// The gradient of `x` for the gradient `g` [batch, rows, columns, channels] of the output, at stride 1 or 2.
template <int kWindow>
void any_depthwise_input_gradient(const Pool& pool, const DepthwiseShape& shape, const BFloat16* g,
                              const float* kernel, BFloat16* x) {
  const int64_t channels = shape.channels;
  if (shape.stride == 1) {
    std::vector<float> turned(kWindow * kWindow * channels), nothing(channels);
    for (int tap = 0; tap < kWindow * kWindow; ++tap) {
      std::copy_n(kernel + (kWindow * kWindow - 1 - tap) * channels, channels, turned.data() + tap * channels);
    }
    const DepthwiseShape back = {shape.batch, shape.rows, shape.columns, channels, shape.height, shape.width,
                                 1, kWindow - 1 - shape.top, kWindow - 1 - shape.left};
    any_depthwise_forward<kWindow, Activation::kNone>(pool, back, g, turned.data(), nothing.data(), x);
    return;
  }
  const int64_t before = kWindow / 2, kernel_pitch = whole_vectors(channels);
  const int64_t width = std::max(shape.columns, (shape.width + shape.left) / 2 + 1) + 2 * before;
  const std::vector<float> padded = in_whole_vectors(kernel, kWindow * kWindow, channels);
  const Bands bands(shape.height, shape.width * channels * sizeof(BFloat16), shape.batch);
  for_pieces(pool, shape.batch * bands.per_image, [&](int64_t piece) {
    const int64_t image = piece / bands.per_image, band = piece % bands.per_image;
    PixelRows<kWindow> widened(g + image * shape.rows * shape.columns * channels, shape.rows, shape.columns, channels,
                                 before, width);
    for (int64_t row = bands.first(band); row < bands.end(band); ++row) {
      const float* rows[(kWindow + 1) / 2];
      int taps[(kWindow + 1) / 2], count = 0;
      for (int tap = static_cast<int>((row + shape.top) % 2); tap < kWindow; tap += 2) {
        rows[count] = widened.row((row + shape.top - tap) / 2);
        taps[count++] = tap;
      }
      BFloat16* to = x + (image * shape.height + row) * shape.width * channels;
      for_all_lanes(channels, [&](auto lanes, int64_t channel) {
        const float* shifted[(kWindow + 1) / 2];
        for (int index = 0; index < count; ++index) shifted[index] = rows[index] + channel;
        spread_pixels<kWindow>(shifted, taps, count, widened.pitch(), before, padded.data() + channel, kernel_pitch,
                            channels, shape.width, shape.left, to + channel, lanes);
      });
    }
  });
}

// Adds the products of kRows widened rows and of one row `g` of the output's gradient to `sums` [kRows * kWindow], whose
// taps are `sums_pitch` apart: one vector of channels.
template <int kWindow, int kRows, typename Lanes>
inline void add_taps(const float* const* rows, int64_t pitch, int64_t stride, const BFloat16* g, int64_t channels,
                     int64_t columns, float* sums, int64_t sums_pitch, Lanes lanes) {
  Floats taps[kRows * kWindow];
#pragma GCC unroll 32
  for (int tap = 0; tap < kRows * kWindow; ++tap) taps[tap] = load(sums + tap * sums_pitch);
  for (int64_t column = 0; column < columns; ++column) {
    const Floats of_output = load_lanes(g + column * channels, lanes);
#pragma GCC unroll 8
    for (int row = 0; row < kRows; ++row) {
      const float* from = rows[row] + column * stride * pitch;
#pragma GCC unroll 8
      for (int tap = 0; tap < kWindow; ++tap) taps[row * kWindow + tap] += load(from + tap * pitch) * of_output;
    }
  }
#pragma GCC unroll 32
  for (int tap = 0; tap < kRows * kWindow; ++tap) store(sums + tap * sums_pitch, taps[tap]);
}

// The gradient [kWindow, kWindow, channels] of the kernel; each band's share is added up by itself, and all in order.
template <int kWindow>
void any_depthwise_kernel_gradient(const Pool& pool, const DepthwiseShape& shape, const BFloat16* x,
                               const BFloat16* g, float* kernel) {
  // as many rows of taps as registers hold
  constexpr int at_once = kWindow * kWindow <= 9 || kLanes == 16 ? kWindow : 1;
  const int64_t channels = shape.channels, pitch = whole_vectors(channels), size = kWindow * kWindow * pitch;
  const Bands bands(shape.rows, shape.stride * shape.width * channels * sizeof(BFloat16), shape.batch);
  const int64_t pieces = shape.batch * bands.per_image;
  std::vector<float> shares(pieces * size);
  for_pieces(pool, pieces, [&](int64_t piece) {
    const int64_t image = piece / bands.per_image, band = piece % bands.per_image;
    PixelRows<kWindow> widened(x + image * shape.height * shape.width * channels, shape.height, shape.width, channels,
                                 shape.left, widened_width(shape, kWindow));
    float* share = shares.data() + piece * size;
    for (int64_t row = bands.first(band); row < bands.end(band); ++row) {
      const float* rows[kWindow];
      for (int tap = 0; tap < kWindow; ++tap) rows[tap] = widened.row(row * shape.stride - shape.top + tap);
      const BFloat16* gradient = g + (image * shape.rows + row) * shape.columns * channels;
      for_all_lanes(channels, [&](auto lanes, int64_t channel) {
        for (int first = 0; first < kWindow; first += at_once) {
          const float* shifted[at_once];
          for (int index = 0; index < at_once; ++index) shifted[index] = rows[first + index] + channel;
          add_taps<kWindow, at_once>(shifted, widened.pitch(), shape.stride, gradient + channel, channels,
                                     shape.columns, share + first * kWindow * pitch + channel, pitch, lanes);
        }
      });
    }
  });
  std::vector<double> total(size);
  for (int64_t piece = 0; piece < pieces; ++piece) {
    for (int64_t index = 0; index < size; ++index) total[index] += shares[piece * size + index];
  }
  for (int tap = 0; tap < kWindow * kWindow; ++tap) {
    for (int64_t channel = 0; channel < channels; ++channel) {
      kernel[tap * channels + channel] = static_cast<float>(total[tap * pitch + channel]);
    }
  }
}

}  // namespace cxr

#endif  // CXR_JAX_ANY_DEPTHWISE_H_
