// How the work of an inverted residual block is cut into pieces.
#ifndef CXR_JAX_BLOCK_PIECES_H_
#define CXR_JAX_BLOCK_PIECES_H_

#include <algorithm>

#include "operands.h"

namespace cxr {

constexpr int64_t kPanelColumns = kPanel * kLanes;
constexpr int64_t kChunk = std::max<int64_t>(1, 48 / kPanelColumns) * kPanelColumns;  // wide channels at a time
constexpr int64_t kBandRoom = 320 * 1024;  // bytes that a piece of work may take beside its weights

inline int64_t vectors_of(int64_t channels) { return (channels + kLanes - 1) / kLanes; }

struct BlockShape {
  int64_t batch, height, width, inputs;
  int64_t channels;  // between the convolutions: whole vectors
  int64_t rows, columns, outputs;
  int64_t window, stride, top, left;  // of the depthwise convolution

  // Pixels of a widened row: all that the input has, and all that windows meet.
  int64_t widened_width() const { return std::max((columns - 1) * stride + window, left + width); }
  int64_t rows_met(int64_t count) const { return (count - 1) * stride + window; }
  int64_t chunks() const { return (channels + kChunk - 1) / kChunk; }
};

// How the work is cut: into bands of an image's output rows, or else into stacks of whole images; and the wide channels of
// each of them among `groups` of pieces.
struct Cut {
  int64_t bands = 1, rows, stacks, images = 1, groups;  // `rows` and `images` of one of them at most

  Cut(const BlockShape& shape, int64_t threads) : rows(shape.rows), stacks(shape.batch) {
    while (rows > 1 && room(shape, rows, 1) > kBandRoom) cut_into(++bands, shape);
    // all threads begin and end together
    while (bands > 1 && rows > 1 && shape.batch * bands < 4 * threads && shape.batch * bands % threads != 0) {
      cut_into(++bands, shape);
    }
    if (bands == 1 && shape.rows_met(rows) >= shape.height + shape.top) {
      while ((images + 1) * threads <= shape.batch && room(shape, rows, images + 1) <= kBandRoom) ++images;
      stacks = std::min(shape.batch, ((shape.batch + images - 1) / images + threads - 1) / threads * threads);
    }
    groups = std::max<int64_t>(1, std::min(shape.chunks(), threads / (stacks * bands)));
  }

  int64_t count() const { return stacks * bands; }

 private:
  void cut_into(int64_t count, const BlockShape& shape) { rows = (shape.rows + count - 1) / count; }

  // Bytes that so many rows of each of so many images take.
  static int64_t room(const BlockShape& shape, int64_t rows, int64_t images) {
    const int64_t before = shape.rows_met(rows) * (shape.width * shape.inputs + shape.widened_width() * kChunk);
    const int64_t behind = rows * shape.columns * (kChunk + vectors_of(shape.outputs) * kLanes);
    return images * (before + behind) * static_cast<int64_t>(sizeof(float));
  }
};

// One band of an image, or some whole images.
struct Band {
  int64_t image, images;  // the first one, and how many
  int64_t first, rows;    // of the output
  int64_t above, met;     // the row of the input that windows meet first, outside of the image too, and how many they meet
  int64_t from, inside;   // those of them in the image

  Band(const BlockShape& shape, const Cut& cut, int64_t number)
      : image(number / cut.bands * shape.batch / cut.stacks),
        images((number / cut.bands + 1) * shape.batch / cut.stacks - image),
        first(std::min(shape.rows, number % cut.bands * cut.rows)), rows(std::min(cut.rows, shape.rows - first)),
        above(first * shape.stride - shape.top), met(shape.rows_met(rows)), from(std::max<int64_t>(0, above)),
        inside(std::max<int64_t>(0, std::min(shape.height, above + met) - from)) {}

  int64_t pixels(const BlockShape& shape) const { return images * inside * shape.width; }    // of the input
  int64_t outputs(const BlockShape& shape) const { return images * rows * shape.columns; }  // pixels of the output
};

}  // namespace cxr

#endif  // CXR_JAX_BLOCK_PIECES_H_
