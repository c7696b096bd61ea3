// Channels taken by vectors, where they need not fill whole ones.
#ifndef CXR_JAX_LANES_H_
#define CXR_JAX_LANES_H_

#include <type_traits>

#include "vectors.h"

namespace cxr {

// Calls `work` for vectors of channels: with their number of lanes, and the first channel. The last vector goes back to
// be a whole one, and some channels are computed twice; only fewer channels than one vector are a part of it.
template <typename Work>
void for_lanes(int64_t channels, const Work& work) {
  if (channels < kLanes) return work(static_cast<int>(channels), int64_t{0});
  for (int64_t channel = 0; channel + kLanes <= channels; channel += kLanes) {
    work(std::integral_constant<int, kLanes>(), channel);
  }
  if (channels % kLanes != 0) work(std::integral_constant<int, kLanes>(), channels - kLanes);
}

// The same, and the last vector is a part of one: no channel is computed twice.
template <typename Work>
void for_all_lanes(int64_t channels, const Work& work) {
  int64_t channel = 0;
  for (; channel + kLanes <= channels; channel += kLanes) work(std::integral_constant<int, kLanes>(), channel);
  if (channel < channels) work(static_cast<int>(channels - channel), channel);
}

inline Floats load_lanes(const BFloat16* from, std::integral_constant<int, kLanes>) { return load(from); }
inline Floats load_lanes(const BFloat16* from, int lanes) { return load_part(from, lanes); }
inline void store_lanes(BFloat16* to, Floats values, std::integral_constant<int, kLanes>) { store(to, values); }
inline void store_lanes(BFloat16* to, Floats values, int lanes) { store_part(to, values, lanes); }

}  // namespace cxr

#endif  // CXR_JAX_LANES_H_
