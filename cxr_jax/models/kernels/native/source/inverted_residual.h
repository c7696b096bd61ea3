// A whole inverted residual block in evaluation: widened by a 1x1 convolution, filtered by a depthwise one and projected
// by another 1x1 convolution, with BatchNorm folded into each of them.
//
// A piece of work is a band of an image's rows, or some small images. It takes some of the wide channels at a time: what
// lies between the convolutions stays in the second-level cache, in float32, and is never written. The thread that uses
// weights folds and packs them. Where there are fewer bands than threads, threads share the wide channels of a band, and
// what they projected is added up in the end.
#ifndef CXR_JAX_INVERTED_RESIDUAL_H_
#define CXR_JAX_INVERTED_RESIDUAL_H_

#include <vector>

#include "block_pieces.h"
#include "products.h"

namespace cxr {

// A convolution whose result is multiplied by a factor and added to an offset, channel by channel.
struct Folded {
  const float *kernel, *factor, *offset;
};

// Calls `work` with the first row of each tile of `rows` rows, where the tile lies among the tiles, and how many of its
// rows there are. The last tile goes back, and some rows are in two.
template <int kRows, typename Work>
void for_tiles(int64_t rows, const Work& work) {
  for (int64_t place = 0; place < rows; place += kRows) {
    work(std::max<int64_t>(0, std::min(place, rows - kRows)), place, std::min<int64_t>(kRows, rows));
  }
}

// About how many tiles so many rows and vectors of columns are computed in.
inline int64_t tiles_of(int64_t rows, int64_t vectors) {
  return std::max<int64_t>(1, rows / kMostTileRows) * ((vectors + kPanel - 1) / kPanel);
}

inline Floats load_some(const float* from, int64_t count) {
  if (count >= kLanes) return load(from);
  float lanes[kLanes] = {};
  std::copy_n(from, count, lanes);
  return load(lanes);
}

inline void store_elements(Element* to, Floats first, [[maybe_unused]] Floats second) {
#if defined(__AVX512BF16__)
  const Words words = words_of(rounded(first)) | words_of(rounded(second)) << 16;
  std::memcpy(to, &words, sizeof words);
#else
  store(to, first);
#endif
}

// `depth` rows of `columns` values of a kernel, `stride` apart, times a factor for each column, as elements
// [panel][depth][columns].
inline void pack_folded(const float* kernel, const float* factor, int64_t stride, int64_t depth, int64_t columns,
                        Element* to) {
  const int64_t vectors = vectors_of(columns), elements = (depth + kHeld - 1) / kHeld;
  for (int64_t row = 0; row < depth; row += kHeld) {
    const float* from = kernel + row * stride;
    const bool has_second = kHeld == 2 && row + 1 < depth;
    for (int64_t panel = 0; panel < vectors; panel += kPanel) {
      const int64_t held = std::min<int64_t>(kPanel, vectors - panel);
      Element* place = to + (panel * elements + row / kHeld * held) * kLanes;
      for (int64_t column = panel * kLanes; column < (panel + held) * kLanes; column += kLanes, place += kLanes) {
        const int64_t lanes = columns - column;
        const Floats factors = load_some(factor + column, lanes);
        store_elements(place, load_some(from + column, lanes) * factors,
                       has_second ? load_some(from + stride + column, lanes) * factors : Floats{});
      }
    }
  }
}

// The pixels of a band as rows of elements, `stride` apart; those of the next pixels lie behind the last.
inline Rows rows_of_band(const BlockShape& shape, const BFloat16* x, int64_t pixels) {
  const int64_t elements = (shape.inputs + kHeld - 1) / kHeld;
  if (kHeld == 2 && shape.inputs % 2 == 0 && pixels >= kMostTileRows) {
    return {reinterpret_cast<const Element*>(x), elements};
  }
  Element* rows = scratch<Room::kWindows, Element>((pixels + kMostTileRows) * elements);
  for (int64_t pixel = 0; pixel < pixels; ++pixel) {
    Element* to = rows + pixel * elements;
    if (kHeld == 2) to[elements - 1] = 0;
    copy_values(x + pixel * shape.inputs, shape.inputs, reinterpret_cast<Value*>(to));
  }
  return {rows, elements};
}

// The wide channels of one chunk: for each vector of them all pixels that windows meet, [vector][image][row][column].
class Wide {
 public:
  Wide(const BlockShape& shape, const Band& band)
      : width_(shape.widened_width()), pixels_(band.images * band.met * width_), places_(band.pixels(shape)),
        values_(scratch<Room::kWidenedRows, float>(pixels_ * kChunk)) {
    for (int64_t pixel = 0; pixel < pixels(); ++pixel) {
      const int64_t row = pixel / shape.width, column = pixel % shape.width + shape.left;
      const int64_t met = row / band.inside * band.met + row % band.inside + band.from - band.above;
      places_[pixel] = (met * width_ + column) * kLanes;
    }
    clear_around(shape, band);
  }

  int64_t pixels() const { return static_cast<int64_t>(places_.size()); }  // of the image
  int64_t row_size() const { return width_ * kLanes; }
  float* channels(int64_t vector) const { return values_ + vector * pixels_ * kLanes; }
  const int64_t* places() const { return places_.data(); }  // of the image's pixels

 private:
  // Writes zeros wherever there is no pixel of the image.
  void clear_around(const BlockShape& shape, const Band& band) {
    const int64_t first = band.from - band.above, behind = (shape.left + shape.width) * kLanes;
    for (int64_t row = 0; row < band.images * band.met * kChunk / kLanes; ++row) {
      const bool is_inside = row % band.met >= first && row % band.met < first + band.inside;
      float* begin = values_ + row * row_size();
      std::fill(begin, begin + (is_inside ? shape.left * kLanes : row_size()), 0.0f);
      if (is_inside) std::fill(begin + behind, begin + row_size(), 0.0f);
    }
  }

  int64_t width_, pixels_;
  std::vector<int64_t> places_;
  float* values_;
};

// Widens the pixels `a` to the channels of a chunk, and activates them.
template <Activation kActivation>
void widen(const Rows& a, const Element* packed, int64_t vectors, const float* offset, Ahead& ahead, const Wide& wide) {
  for (int64_t vector = 0; vector < vectors; vector += kPanel) {
    with_vectors(vectors - vector, [&](auto held) {
      constexpr int panel = decltype(held)::value, tile_rows = kTileRows<panel>;
      // copies: the compiler cannot know that what is written is none of these
      const int64_t* places = wide.places();
      float* to[panel];
      Floats offsets[panel];
      for (int index = 0; index < panel; ++index) {
        to[index] = wide.channels(vector + index);
        offsets[index] = load(offset + (vector + index) * kLanes);
      }
      for_tiles<tile_rows>(wide.pixels(), [=, &a, &ahead](int64_t row, int64_t, int64_t count) {
        Floats tile[tile_rows][panel];
        clear_tile(tile);
        ahead.fetch();
        multiply(a.elements + row * a.stride, a.stride, 1, packed + vector * kLanes * a.stride, panel * kLanes, a.stride,
                 tile);
        const auto store_row = [&](const Floats (&sums)[panel], int64_t pixel) {
          for (int index = 0; index < panel; ++index) {
            store(to[index] + places[pixel], activate<kActivation>(sums[index] + offsets[index]));
          }
        };
        if (count == tile_rows) {
#pragma GCC unroll 24
          for (int index = 0; index < tile_rows; ++index) store_row(tile[index], row + index);
          return;
        }
        Floats kept[tile_rows][panel];
        store_tile(tile, reinterpret_cast<float*>(kept), panel * kLanes);
        for (int64_t index = 0; index < count; ++index) store_row(kept[index], row + index);
      });
    });
  }
}

// Filters the rows of a band, `vectors` vectors of their channels, and activates them: [pixel][kChunk].
template <int kWindow, Activation kActivation>
void filter(const BlockShape& shape, const Band& band, const Wide& wide, int64_t vectors, const Folded& folded,
            Value* to) {
  // copies: the compiler cannot know that what is written is none of these
  const int64_t width = wide.row_size(), columns = shape.columns, stride = shape.stride;
  for (int64_t vector = 0; vector < vectors; ++vector) {
    const int64_t channel = vector * kLanes;
    const Floats factor = load(folded.factor + channel), offset = load(folded.offset + channel);
    Floats taps[kWindow * kWindow];
    for (int tap = 0; tap < kWindow * kWindow; ++tap) {
      taps[tap] = load(folded.kernel + tap * shape.channels + channel) * factor;
    }
    Value* place = to + channel;
    for (int64_t row = 0; row < band.images * band.rows; ++row) {
      const float* from = wide.channels(vector) + (row / band.rows * band.met + row % band.rows * stride) * width;
      for (int64_t column = 0; column < columns; ++column, from += stride * kLanes, place += kChunk) {
        Floats sum = offset;
        for (int up = 0; up < kWindow; ++up) {
          for (int across = 0; across < kWindow; ++across) {
            sum += load(from + up * width + across * kLanes) * taps[up * kWindow + across];
          }
        }
        store(place, activate<kActivation>(sum));
      }
    }
  }
}

// Adds what `pixels` pixels of a chunk project to, to the sums [panel][tile row][columns]; the first chunk begins them.
inline void project(const Value* filtered, int64_t pixels, const Element* packed, int64_t depth, int64_t vectors,
                    bool is_first, Ahead& ahead, float* sums) {
  const Element* rows = reinterpret_cast<const Element*>(filtered);
  constexpr int64_t stride = kChunk / kHeld;
  for (int64_t vector = 0; vector < vectors; vector += kPanel) {
    with_vectors(vectors - vector, [&](auto held) {
      constexpr int panel = decltype(held)::value, tile_rows = kTileRows<panel>, columns = panel * kLanes;
      for_tiles<tile_rows>(pixels, [&](int64_t row, int64_t place, int64_t) {
        Floats tile[tile_rows][panel];
        float* kept = sums + vector * kLanes * (pixels + kMostTileRows) + place * columns;
        ahead.fetch();
        if (is_first) clear_tile(tile);
        else load_tile(kept, columns, tile);
        multiply(rows + row * stride, stride, 1, packed + vector * kLanes * depth, columns, depth, tile);
        store_tile(tile, kept, columns);
      });
    });
  }
}

// Adds up the sums of `groups` groups, `size` apart, the offset, and `x` unless that is null: the pixels of `y`.
inline void finish(const float* sums, int64_t groups, int64_t size, int64_t pixels, const float* offset, int64_t outputs,
                   const BFloat16* x, BFloat16* y) {
  const int64_t vectors = vectors_of(outputs);
  for (int64_t vector = 0; vector < vectors; vector += kPanel) {
    with_vectors(vectors - vector, [&](auto held) {
      constexpr int panel = decltype(held)::value, columns = panel * kLanes;
      const int64_t channel = vector * kLanes, last = std::min<int64_t>(kLanes, outputs - channel - columns + kLanes);
      const auto lanes = [&](int index) { return index + 1 < panel ? kLanes : static_cast<int>(last); };
      for_tiles<kTileRows<panel>>(pixels, [&](int64_t row, int64_t place, int64_t count) {
        for (int64_t index = 0; index < count; ++index) {
          const float* from = sums + channel * (pixels + kMostTileRows) + (place + index) * columns;
          const int64_t to = (row + index) * outputs + channel;
          Floats values[panel];
          for (int column = 0; column < panel; ++column) {
            values[column] = load_some(offset + channel + column * kLanes, lanes(column));
            for (int64_t group = 0; group < groups; ++group) {
              values[column] += load(from + group * size + column * kLanes);
            }
            if (x == nullptr) continue;
            const BFloat16* added = x + to + column * kLanes;
            values[column] += lanes(column) == kLanes ? load(added) : load_part(added, lanes(column));
          }
          store_columns(values, last, y + to);
        }
      });
    });
  }
}

// The two steps that are activated.
struct ActivatedSteps {
  void (*widen)(const Rows&, const Element*, int64_t, const float*, Ahead&, const Wide&);
  void (*filter)(const BlockShape&, const Band&, const Wide&, int64_t, const Folded&, Value*);
};

// y [batch, rows, columns, outputs] of `x`, to which it is added where `adds_input`.
inline void inverted_residual(const Pool& pool, const BlockShape& shape, const ActivatedSteps& steps, const BFloat16* x,
                              const Folded& widening, const Folded& depthwise, const Folded& projecting, bool adds_input,
                              BFloat16* y) {
  const Cut cut(shape, std::max<int64_t>(1, pool.num_threads()));
  const int64_t vectors = vectors_of(shape.outputs), chunks = shape.chunks();
  const int64_t size = vectors * kLanes * (cut.images * cut.rows * shape.columns + kMostTileRows);
  float* shared = cut.groups == 1 ? nullptr : scratch<Room::kKernelShares, float>(cut.count() * cut.groups * size);
  const auto finish_band = [&](const Band& band, const float* sums) {
    const int64_t first = (band.image * shape.rows + band.first) * shape.columns * shape.outputs;
    finish(sums, cut.groups, size, band.outputs(shape), projecting.offset, shape.outputs,
           adds_input ? x + first : nullptr, y + first);
  };
  for_pieces(pool, cut.count() * cut.groups, [&](int64_t piece) {
    const Band band(shape, cut, piece / cut.groups);
    if (band.rows < 1) return;
    const int64_t group = piece % cut.groups, first_chunk = group * chunks / cut.groups;
    const Wide wide(shape, band);
    const int64_t filtered_pixels = band.outputs(shape);
    const Rows a = rows_of_band(shape, x + (band.image * shape.height + band.from) * shape.width * shape.inputs,
                                wide.pixels());
    Value* filtered = scratch<Room::kWindowsOfPixels, Value>((filtered_pixels + kMostTileRows) * kChunk);
    float* sums = shared == nullptr ? scratch<Room::kTileSums, float>(size) : shared + piece * size;
    Element* widening_panels = scratch<Room::kRowPanels, Element>(a.stride * kChunk);
    Element* projecting_panels = scratch<Room::kColumnPanels, Element>(kChunk * vectors * kLanes);
    const int64_t end_chunk = (group + 1) * chunks / cut.groups;
    for (int64_t chunk = first_chunk; chunk < end_chunk; ++chunk) {
      const int64_t channel = chunk * kChunk, channels = std::min(kChunk, shape.channels - channel);
      pack_folded(widening.kernel + channel, widening.factor + channel, shape.channels, shape.inputs, channels,
                  widening_panels);
      // weights are used as soon as they are there: those of the next step are fetched during the one before
      Ahead projecting_weights(tiles_of(wide.pixels(), channels / kLanes));
      projecting_weights.add(projecting.kernel + channel * shape.outputs, channels * shape.outputs);
      steps.widen(a, widening_panels, channels / kLanes, widening.offset + channel, projecting_weights, wide);
      const Folded taps = {depthwise.kernel + channel, depthwise.factor + channel, depthwise.offset + channel};
      steps.filter(shape, band, wide, channels / kLanes, taps, filtered);
      pack_folded(projecting.kernel + channel * shape.outputs, projecting.factor, shape.outputs, channels, shape.outputs,
                  projecting_panels);
      Ahead widening_weights(tiles_of(filtered_pixels, vectors));
      if (chunk + 1 < end_chunk) {
        const int64_t next = channel + kChunk, count = std::min(kChunk, shape.channels - next);
        widening_weights.add(widening.kernel + next, count, shape.inputs, shape.channels);
      }
      project(filtered, filtered_pixels, projecting_panels, channels / kHeld, vectors, chunk == first_chunk,
              widening_weights, sums);
    }
    if (cut.groups == 1) finish_band(band, sums);
  });
  if (cut.groups == 1) return;
  for_pieces(pool, cut.count(), [&](int64_t piece) {
    const Band band(shape, cut, piece);
    if (band.rows > 0) finish_band(band, shared + piece * cut.groups * size);
  });
}

}  // namespace cxr

#endif  // CXR_JAX_INVERTED_RESIDUAL_H_
