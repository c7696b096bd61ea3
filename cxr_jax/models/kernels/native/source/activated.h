// The gradient before an activation, where only the activation's result is known, and its sums over the pixels: what a
// convolution with a bias gives back.
#ifndef CXR_JAX_ACTIVATED_H_
#define CXR_JAX_ACTIVATED_H_

#include <vector>

#include "normalisation.h"

namespace cxr {

// `of_input` [pixels, channels]: the gradient `g` of `y` where the activation that gave `y` has a slope, and `sums`
// [channels] of it. Pieces do not depend on the number of threads, so that sums do not either; up to 256 groups are added
// in float32, everything beyond in float64.
template <Activation kActivation>
void activated_gradient(const Pool& pool, int64_t pixels, int64_t channels, const BFloat16* y,
                        const BFloat16* g, BFloat16* of_input, float* sums) {
  static_assert(kActivation != Activation::kSilu, "its slope is not known from its result");
  const Groups groups = groups_of(pixels, channels);
  const Pieces pieces(groups.count);
  constexpr int64_t at_once = 256;
  std::vector<double> totals(pieces.count * groups.channels);
  for_pieces(pool, pieces.count, [&](int64_t piece) {
    double* total = totals.data() + piece * groups.channels;
    float* block = scratch<Room::kChannelSums, float>(groups.channels);
    for (int64_t first = pieces.first(piece); first < pieces.end(piece); first += at_once) {
      std::fill(block, block + groups.channels, 0.0f);
      for (int64_t group = first; group < std::min(pieces.end(piece), first + at_once); ++group) {
        for (int64_t channel = 0; channel < groups.channels; channel += kLanes) {
          const int64_t place = group * groups.channels + channel;
          const Floats sloped = slope_times<kActivation>(load(y + place), load(g + place));
          store(block + channel, load(block + channel) + sloped);
          store(of_input + place, sloped);
        }
      }
      for (int64_t channel = 0; channel < groups.channels; ++channel) total[channel] += block[channel];
    }
  });
  std::vector<double> all(channels);
  for (int64_t index = 0; index < pieces.count * groups.channels; ++index) all[index % channels] += totals[index];
  for (int64_t place = groups.count * groups.channels; place < pixels * channels; ++place) {
    const Floats sloped = slope_times<kActivation>(load_part(y + place, 1), load_part(g + place, 1));
    store_part(of_input + place, sloped, 1);
    all[place % channels] += sloped[0];
  }
  for (int64_t channel = 0; channel < channels; ++channel) sums[channel] = static_cast<float>(all[channel]);
}

}  // namespace cxr

#endif  // CXR_JAX_ACTIVATED_H_
