// BatchNorm with its activation, forward and backward, one pass over memory each.
//
// Pixels are taken together in groups until their channels fill whole vectors, and enough of them that a sum is not
// needed again before it is done; parameters are repeated for every pixel of a group.
#ifndef CXR_JAX_NORMALISATION_H_
#define CXR_JAX_NORMALISATION_H_

#include <type_traits>
#include <vector>

#include "parallel.h"
#include "vectors.h"

namespace cxr {

struct Groups {
  int64_t pixels;    // in a group
  int64_t channels;  // of a group, a multiple of kLanes
  int64_t count;     // of whole groups; what is left over is less than one
};

inline Groups groups_of(int64_t pixels, int64_t channels) {
  int64_t group = 1;
  while (group * channels % kLanes != 0 || (group * channels < 8 * kLanes && group < 64)) ++group;
  return {group, group * channels, pixels / group};
}

// `values` [channels] repeated for every pixel of a group.
inline std::vector<float> repeated(const float* values, int64_t channels, const Groups& groups) {
  std::vector<float> all(groups.channels);
  for (int64_t index = 0; index < groups.channels; ++index) all[index] = values[index % channels];
  return all;
}

struct Both {
  Floats first, second;
};

// Cuts `groups` groups into pieces that do not depend on the number of threads, so that sums do not either.
struct Pieces {
  int64_t count, size, total;
  explicit Pieces(int64_t groups) : total(groups) {
    count = std::max<int64_t>(1, std::min<int64_t>(64, groups / 64));
    size = (groups + count - 1) / count;
  }
  int64_t first(int64_t piece) const { return std::min(total, piece * size); }
  int64_t end(int64_t piece) const { return std::min(total, (piece + 1) * size); }
};

constexpr int64_t kGroupsAtOnce = 4;

// Adds the terms of `count` groups to `sums`, in their order; a sum is loaded and stored once for all of them.
template <typename Terms>
void add_groups(const BFloat16* x, const BFloat16* g, int64_t count, int64_t channels, const Terms& terms,
                float* sums) {
  const auto add = [&](auto groups) {
    for (int64_t channel = 0; channel < channels; channel += kLanes) {
      Both sum = {load(sums + 2 * channel), load(sums + 2 * channel + kLanes)};
      for (int64_t group = 0; group < groups; ++group) {
        const int64_t place = group * channels + channel;
        const Both both = terms(load(x + place), load(g + place), channel);
        sum.first += both.first;
        sum.second += both.second;
      }
      store(sums + 2 * channel, sum.first);
      store(sums + 2 * channel + kLanes, sum.second);
    }
  };
  if (count == kGroupsAtOnce) add(std::integral_constant<int64_t, kGroupsAtOnce>());
  else add(count);
}

// Both sums of every channel over all pixels of `x` and `g` [pixels, channels]; `terms(x, g, channel)` gives the two
// values to add, one vector of a group's channels at a time. Up to 256 groups are added in float32, everything beyond
// in float64.
template <typename Terms>
void sum_channels(const Pool& pool, int64_t pixels, int64_t channels, const BFloat16* x, const BFloat16* g,
                  const Terms& terms, float* sums) {
  const Groups groups = groups_of(pixels, channels);
  const Pieces pieces(groups.count);
  const int64_t width = 2 * groups.channels;
  std::vector<double> totals((pieces.count + 1) * width);
  for_pieces(pool, pieces.count, [&](int64_t piece) {
    const Terms added = terms;  // a copy of this thread's own, which no store can change: it stays in registers
    double* total = totals.data() + piece * width;
    float* partial = scratch<Room::kChannelSums, float>(width);
    for (int64_t begin = pieces.first(piece); begin < pieces.end(piece); begin += 256) {
      const int64_t end = std::min(begin + 256, pieces.end(piece));
      std::fill(partial, partial + width, 0.0f);
      for (int64_t group = begin; group < end; group += kGroupsAtOnce) {
        const int64_t place = group * groups.channels;
        add_groups(x + place, g + place, std::min(kGroupsAtOnce, end - group), groups.channels, added, partial);
      }
      for (int64_t index = 0; index < width; ++index) total[index] += partial[index];
    }
  });
  double* rest = totals.data() + pieces.count * width;
  for (int64_t place = groups.count * groups.channels; place < pixels * channels; place += kLanes) {
    const int count = static_cast<int>(std::min<int64_t>(kLanes, pixels * channels - place));
    const int64_t channel = place - groups.count * groups.channels;
    const Both both = terms(load_part(x + place, count), load_part(g + place, count), channel);
    for (int lane = 0; lane < count; ++lane) {
      rest[2 * channel + lane] += both.first[lane];
      rest[2 * channel + kLanes + lane] += both.second[lane];
    }
  }
  std::vector<double> both(2 * channels);
  for (int64_t piece = 0; piece <= pieces.count; ++piece) {
    const double* total = totals.data() + piece * width;
    for (int64_t index = 0; index < groups.channels; ++index) {
      const int64_t place = 2 * (index / kLanes) * kLanes + index % kLanes;
      both[index % channels] += total[place];
      both[channels + index % channels] += total[place + kLanes];
    }
  }
  for (int64_t index = 0; index < 2 * channels; ++index) sums[index] = static_cast<float>(both[index]);
}

// Writes `change(x, g, channel)` for all pixels of `x` and `g` [pixels, channels] to `y`.
template <typename Change>
void change_channels(const Pool& pool, int64_t pixels, int64_t channels, const BFloat16* x,
                     const BFloat16* g, BFloat16* y, const Change& change) {
  const Groups groups = groups_of(pixels, channels);
  const Pieces pieces(groups.count);
  for_pieces(pool, pieces.count, [&](int64_t piece) {
    const Change changed = change;  // a copy of this thread's own, which no store can change: it stays in registers
    for (int64_t group = pieces.first(piece); group < pieces.end(piece); ++group) {
      const int64_t first = group * groups.channels;
      const auto value = [&](int64_t channel) {
        return changed(load(x + first + channel), load(g + first + channel), channel);
      };
      int64_t channel = 0;
      for (; channel + 2 * kLanes <= groups.channels; channel += 2 * kLanes) {
        store(y + first + channel, value(channel), value(channel + kLanes));
      }
      if (channel < groups.channels) store(y + first + channel, value(channel));
    }
  });
  for (int64_t place = groups.count * groups.channels; place < pixels * channels; place += kLanes) {
    const int count = static_cast<int>(std::min<int64_t>(kLanes, pixels * channels - place));
    const Floats changed = change(load_part(x + place, count), load_part(g + place, count),
                                  place - groups.count * groups.channels);
    store_part(y + place, changed, count);
  }
}

}  // namespace cxr

#endif  // CXR_JAX_NORMALISATION_H_
