// BatchNorm and its activation, applied to values while a convolution loads them.
#ifndef CXR_JAX_LOADED_H_
#define CXR_JAX_LOADED_H_

#include "buffers.h"
#include "vectors.h"

namespace cxr {

// What the values of each channel are multiplied by, what is added, and how they are activated then; channels are a
// multiple of kLanes. Results are rounded, as if they had been stored: fused or not, the bits are the same.
struct Normalisation {
  const float *factor, *offset;
  int64_t channels;
  Activation activation;

  // Writes what `pixels` pixels are normalised to and activated.
  template <typename Value>
  void copy(const BFloat16* from, int64_t pixels, Value* to) const {
    with_activation(static_cast<int64_t>(activation), [&](auto kind) {
      int64_t pixel = 0;
      // two pixels share what is loaded for their channels
      for (; pixel + 2 <= pixels; pixel += 2) copy_together<kind(), 2>(from + pixel * channels, to + pixel * channels);
      if (pixel < pixels) copy_together<kind(), 1>(from + pixel * channels, to + pixel * channels);
    });
  }

 private:
  template <Activation kActivation, int kPixels, typename Value>
  void copy_together(const BFloat16* from, Value* to) const {
    // the compiler cannot know that what is written is none of these
    const float *factor_from = factor, *offset_from = offset;
    const int64_t count = channels;
    for (int64_t channel = 0; channel < count; channel += kLanes) {
      const Floats factors = load(factor_from + channel), offsets = load(offset_from + channel);
#pragma GCC unroll 2
      for (int pixel = 0; pixel < kPixels; ++pixel) {
        const int64_t place = pixel * count + channel;
        store_rounded(to + place, activate<kActivation>(load(from + place) * factors + offsets));
      }
    }
  }

  static void store_rounded(BFloat16* to, Floats values) { store(to, values); }
  static void store_rounded(float* to, Floats values) { store(to, as_if_stored(values)); }
};

// What a convolution is to apply to `x` while it loads it; refused where it would read beyond the parameters.
inline Normalisation normalisation_of(const Parameters& factor, const Parameters& offset, int64_t activation) {
  return {factor.data(), offset.data(), static_cast<int64_t>(factor.count()),
          static_cast<Activation>(activation)};
}

inline Error check_normalisation(const Values& x, const Parameters& factor, const Parameters& offset) {
  const int64_t channels = x.dimensions()[3];
  if (!all_have(channels, factor, offset)) return kSizesDiffer;
  if (channels % kLanes != 0) return "normalised channels have to fill whole vectors";
  return {};
}

}  // namespace cxr

#endif  // CXR_JAX_LOADED_H_
