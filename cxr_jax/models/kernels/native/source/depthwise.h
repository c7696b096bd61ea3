// The depthwise convolution with windows of three by three pixels, and both of its gradients.
//
// Rows are widened once to float32, with their padding, into a ring of rows that stays in the second-level cache; what
// a tap reads is then one vector at an address without conditions.
#ifndef CXR_JAX_DEPTHWISE_H_
#define CXR_JAX_DEPTHWISE_H_

#include <type_traits>
#include <vector>

#include "ahead.h"
#include "loaded.h"
#include "parallel.h"
#include "vectors.h"

namespace cxr {

constexpr int kWindow = 3;
constexpr int64_t kBandBytes = 256 * 1024;

struct DepthwiseShape {
  int64_t batch, height, width, channels;  // of the input
  int64_t rows, columns;                   // of the output
  int64_t stride, top, left;               // zeros above and to the left

  // Pixels of a widened row of the input: all that it has, and all that windows meet.
  int64_t widened_width() const { return std::max((columns - 1) * stride + kWindow, left + width); }
};

// The rows of one image [rows, columns, channels], normalised unless there is no normalisation, and widened to float32
// with zeros to the left and right; those outside of the image are zeros altogether.
class WidenedRows {
 public:
  WidenedRows(const BFloat16* image, int64_t rows, int64_t columns, int64_t channels, int64_t left, int64_t width,
              float* room, const Normalisation* normalisation = nullptr)
      : image_(image), rows_(rows), columns_(columns), channels_(channels), left_(left), length_(width * channels),
        room_(room), normalisation_(normalisation) {
    const int64_t before = left_ * channels_, after = before + columns_ * channels_;
    for (int slot = 0; slot < kWindow; ++slot) {
      std::fill(room_ + slot * length_, room_ + slot * length_ + before, 0.0f);
      std::fill(room_ + slot * length_ + after, room_ + (slot + 1) * length_, 0.0f);
    }
    std::fill(room_ + kWindow * length_, room_ + (kWindow + 1) * length_, 0.0f);
    std::fill(held_, held_ + kWindow, int64_t{-1});
  }

  static int64_t room(int64_t width, int64_t channels) { return (kWindow + 1) * width * channels; }

  const float* row(int64_t index) {
    if (index < 0 || index >= rows_) return room_ + kWindow * length_;
    const int64_t slot = index % kWindow;
    float* place = room_ + slot * length_;
    if (held_[slot] != index) {
      const BFloat16* from = image_ + index * columns_ * channels_;
      float* to = place + left_ * channels_;
      if (normalisation_ != nullptr) {
        normalisation_->copy(from, columns_, to);
      } else {
        for (int64_t element = 0; element < columns_ * channels_; element += kLanes) {
          store(to + element, load(from + element));
        }
      }
      held_[slot] = index;
    }
    return place;
  }

 private:
  const BFloat16* image_;
  int64_t rows_, columns_, channels_, left_, length_;
  float* room_;
  const Normalisation* normalisation_;
  int64_t held_[kWindow];
};

// How images are cut into bands of output rows, one piece of work each.
struct Bands {
  int64_t per_image, rows, total;
  Bands(int64_t image_rows, int64_t row_bytes, int64_t batch) : total(image_rows) {
    const int64_t fitting = std::max<int64_t>(1, kBandBytes / std::max<int64_t>(1, row_bytes));
    // a few images are cut anyway, so that all threads have work
    const int64_t fewest = batch < 8 ? std::min<int64_t>(8, image_rows) : 1;
    per_image = std::max<int64_t>({1, fewest, (image_rows + fitting - 1) / fitting});
    rows = (image_rows + per_image - 1) / per_image;
  }
  int64_t first(int64_t band) const { return std::min(total, band * rows); }
  int64_t end(int64_t band) const { return std::min(total, (band + 1) * rows); }
};

// Vectors of channels that are filtered at a time: of more, the taps of a window would not stay in 16 registers.
#if defined(__AVX2__) && !defined(__AVX512F__)
constexpr int kFilteredAtOnce = 1;
#else
constexpr int kFilteredAtOnce = 2;
#endif

// Calls `work` for kMost vectors of channels at a time, and for one that is left over: with their number as a type, and the
// first channel.
template <int kMost, typename Work>
void for_vectors(int64_t channels, const Work& work) {
  int64_t channel = 0;
  for (; channel + kMost * kLanes <= channels; channel += kMost * kLanes) {
    work(std::integral_constant<int, kMost>(), channel);
  }
  for (; channel < channels; channel += kLanes) work(std::integral_constant<int, 1>(), channel);
}

// The rows of the input that the output row behind `row` meets first, and that row itself, of one image: a row is read or
// written by a few channels of all its pixels at a time, which the processor does not foresee.
inline Ahead next_rows(const DepthwiseShape& shape, const BFloat16* input, const BFloat16* output, int64_t row,
                       int64_t calls) {
  Ahead ahead(calls);
  const int64_t first = row * shape.stride - shape.top + kWindow, count = std::min(shape.stride, shape.height - first);
  const int64_t width = shape.width * shape.channels, columns = shape.columns * shape.channels;
  if (count > 0) ahead.add(input + first * width, count * width);
  if (row + 1 < shape.rows) ahead.add(output + (row + 1) * columns, columns);
  return ahead;
}

// One output row: `width` pixels of kVectors * kLanes channels, from three widened rows, plus `offset` and activated.
template <int kVectors, Activation kActivation>
inline void filter_row(const float* const* rows, const float* kernel, const float* offset, int64_t channels,
                       int64_t stride, int64_t width, BFloat16* to) {
  Floats taps[kWindow * kWindow][kVectors], offsets[kVectors];
  for (int vector = 0; vector < kVectors; ++vector) offsets[vector] = load(offset + vector * kLanes);
  for (int tap = 0; tap < kWindow * kWindow; ++tap) {
    for (int vector = 0; vector < kVectors; ++vector) {
      taps[tap][vector] = load(kernel + tap * channels + vector * kLanes);
    }
  }
  for (int64_t column = 0; column < width; ++column) {
    Floats sums[kVectors];
    for (int vector = 0; vector < kVectors; ++vector) sums[vector] = offsets[vector];
    for (int row = 0; row < kWindow; ++row) {
      const float* from = rows[row] + column * stride * channels;
      for (int tap = 0; tap < kWindow; ++tap) {
        for (int vector = 0; vector < kVectors; ++vector) {
          sums[vector] += load(from + tap * channels + vector * kLanes) * taps[row * kWindow + tap][vector];
        }
      }
    }
    for (int vector = 0; vector < kVectors; ++vector) {
      store(to + column * channels + vector * kLanes, activate<kActivation>(sums[vector]));
    }
  }
}

// `x` [batch, height, width, channels] by `kernel` [3, 3, channels], plus `offset` [channels] and activated; channels
// are a multiple of kLanes. Where a `normalisation` is given, `x` is what it is to be applied to.
template <Activation kActivation>
void depthwise_forward(const Pool& pool, const DepthwiseShape& shape, const BFloat16* x, const float* kernel,
                       const float* offset, BFloat16* y, const Normalisation* normalisation = nullptr) {
  const int64_t channels = shape.channels, width = shape.widened_width();
  const Bands bands(shape.rows, shape.stride * shape.width * channels * sizeof(BFloat16), shape.batch);
  for_pieces(pool, shape.batch * bands.per_image, [&](int64_t piece) {
    const int64_t image = piece / bands.per_image, band = piece % bands.per_image;
    const BFloat16* input = x + image * shape.height * shape.width * channels;
    BFloat16* output = y + image * shape.rows * shape.columns * channels;
    WidenedRows widened(input, shape.height, shape.width, channels, shape.left, width,
                        scratch<Room::kWidenedRows, float>(WidenedRows::room(width, channels)), normalisation);
    for (int64_t row = bands.first(band); row < bands.end(band); ++row) {
      const float* rows[kWindow];
      for (int tap = 0; tap < kWindow; ++tap) rows[tap] = widened.row(row * shape.stride - shape.top + tap);
      BFloat16* to = output + row * shape.columns * channels;
      Ahead ahead = next_rows(shape, input, output, row, channels / (kFilteredAtOnce * kLanes));
      for_vectors<kFilteredAtOnce>(channels, [&](auto held, int64_t channel) {
        ahead.fetch();
        const float* shifted[kWindow] = {rows[0] + channel, rows[1] + channel, rows[2] + channel};
        filter_row<held(), kActivation>(shifted, kernel + channel, offset + channel, channels, shape.stride,
                                        shape.columns, to + channel);
      });
    }
  });
}

// One row of the input's gradient at stride 2, kVectors * kLanes channels: each pixel meets only the taps of its own
// parity.
template <int kVectors>
inline void spread_row(const float* const* rows, const int* row_taps, int row_count, const float* kernel,
                       int64_t channels, int64_t width, int64_t left, BFloat16* to) {
  Floats taps[2][kWindow][kVectors];
  for (int row = 0; row < row_count; ++row) {
    for (int tap = 0; tap < kWindow; ++tap) {
      for (int vector = 0; vector < kVectors; ++vector) {
        taps[row][tap][vector] = load(kernel + (row_taps[row] * kWindow + tap) * channels + vector * kLanes);
      }
    }
  }
  for (int64_t column = 0; column < width; ++column) {
    Floats sums[kVectors] = {};
    for (int tap = static_cast<int>((column + left) % 2); tap < kWindow; tap += 2) {
      // the widened gradient has one zero pixel to its left
      const int64_t place = ((column + left - tap) / 2 + 1) * channels;
      for (int row = 0; row < row_count; ++row) {
        for (int vector = 0; vector < kVectors; ++vector) {
          sums[vector] += load(rows[row] + place + vector * kLanes) * taps[row][tap][vector];
        }
      }
    }
    for (int vector = 0; vector < kVectors; ++vector) store(to + column * channels + vector * kLanes, sums[vector]);
  }
}

// The gradient of `x` for the gradient `g` [batch, rows, columns, channels] of the output, at stride 1 or 2.
inline void depthwise_input_gradient(const Pool& pool, const DepthwiseShape& shape, const BFloat16* g,
                                     const float* kernel, BFloat16* x) {
  if (shape.stride == 1) {
    std::vector<float> turned(kWindow * kWindow * shape.channels), nothing(shape.channels);
    for (int tap = 0; tap < kWindow * kWindow; ++tap) {
      std::copy_n(kernel + (kWindow * kWindow - 1 - tap) * shape.channels, shape.channels,
                  turned.data() + tap * shape.channels);
    }
    const DepthwiseShape back = {
        shape.batch,  shape.rows,  shape.columns, shape.channels,
        shape.height, shape.width, 1,             kWindow - 1 - shape.top, kWindow - 1 - shape.left};
    depthwise_forward<Activation::kNone>(pool, back, g, turned.data(), nothing.data(), x);
    return;
  }
  const int64_t channels = shape.channels;
  const int64_t width = std::max(shape.columns, (shape.width + shape.left) / 2 + 1) + 2;
  const Bands bands(shape.height, shape.width * channels * sizeof(BFloat16), shape.batch);
  for_pieces(pool, shape.batch * bands.per_image, [&](int64_t piece) {
    const int64_t image = piece / bands.per_image, band = piece % bands.per_image;
    WidenedRows widened(g + image * shape.rows * shape.columns * channels, shape.rows, shape.columns, channels, 1,
                        width, scratch<Room::kWidenedRows, float>(WidenedRows::room(width, channels)));
    for (int64_t row = bands.first(band); row < bands.end(band); ++row) {
      const float* rows[2];
      int taps[2], count = 0;
      for (int tap = static_cast<int>((row + shape.top) % 2); tap < kWindow; tap += 2) {
        rows[count] = widened.row((row + shape.top - tap) / 2);
        taps[count++] = tap;
      }
      BFloat16* to = x + (image * shape.height + row) * shape.width * channels;
      Ahead ahead(channels / (2 * kLanes));
      if (row + 1 < bands.end(band)) ahead.add(to + shape.width * channels, shape.width * channels);
      for_vectors<2>(channels, [&](auto held, int64_t channel) {
        ahead.fetch();
        const float* shifted[2] = {rows[0] + channel, rows[count - 1] + channel};
        spread_row<held()>(shifted, taps, count, kernel + channel, channels, shape.width, shape.left, to + channel);
      });
    }
  });
}

// The gradient [3, 3, channels] of the kernel; each band's share is added up by itself, and all in order. A
// `normalisation` as of `depthwise_forward`.
inline void depthwise_kernel_gradient(const Pool& pool, const DepthwiseShape& shape, const BFloat16* x,
                                      const BFloat16* g, float* kernel,
                                      const Normalisation* normalisation = nullptr) {
  const int64_t channels = shape.channels, width = shape.widened_width(), size = kWindow * kWindow * channels;
  const Bands bands(shape.rows, shape.stride * shape.width * channels * sizeof(BFloat16), shape.batch);
  const int64_t pieces = shape.batch * bands.per_image;
  std::vector<float> shares(pieces * size);
  for_pieces(pool, pieces, [&](int64_t piece) {
    const int64_t image = piece / bands.per_image, band = piece % bands.per_image;
    const BFloat16* input = x + image * shape.height * shape.width * channels;
    const BFloat16* output = g + image * shape.rows * shape.columns * channels;
    WidenedRows widened(input, shape.height, shape.width, channels, shape.left, width,
                        scratch<Room::kWidenedRows, float>(WidenedRows::room(width, channels)), normalisation);
    float* share = shares.data() + piece * size;
    for (int64_t row = bands.first(band); row < bands.end(band); ++row) {
      const float* rows[kWindow];
      for (int tap = 0; tap < kWindow; ++tap) rows[tap] = widened.row(row * shape.stride - shape.top + tap);
      const BFloat16* gradient = output + row * shape.columns * channels;
      Ahead ahead = next_rows(shape, input, output, row, channels / kLanes);
      for (int64_t channel = 0; channel < channels; channel += kLanes) {
        ahead.fetch();
        Floats sums[kWindow * kWindow];
        for (int tap = 0; tap < kWindow * kWindow; ++tap) sums[tap] = load(share + tap * channels + channel);
        for (int64_t column = 0; column < shape.columns; ++column) {
          const Floats of_output = load(gradient + column * channels + channel);
          for (int tap_row = 0; tap_row < kWindow; ++tap_row) {
            const float* from = rows[tap_row] + column * shape.stride * channels + channel;
            for (int tap = 0; tap < kWindow; ++tap) {
              sums[tap_row * kWindow + tap] += load(from + tap * channels) * of_output;
            }
          }
        }
        for (int tap = 0; tap < kWindow * kWindow; ++tap) store(share + tap * channels + channel, sums[tap]);
      }
    }
  });
  std::vector<double> total(size);
  for (int64_t piece = 0; piece < pieces; ++piece) {
    for (int64_t index = 0; index < size; ++index) total[index] += shares[piece * size + index];
  }
  for (int64_t index = 0; index < size; ++index) kernel[index] = static_cast<float>(total[index]);
}

}  // namespace cxr

#endif  // CXR_JAX_DEPTHWISE_H_
